//! Functions that come and go while a Linux guest runs: because a user says so, because the machine wants one back, or
//! because one fails.

use std::time::Duration;

use guest_tests::{Bdf, Failure, GuestRun, Iommu, Kernel, Machine, Plan, RunningGuest, Scenario, expect};

use crate::zoo;

/// Where slotpass listens in the machine.
const SOCKET: &str = "/run/slotpass.control";
/// Guests that wait for something from outside take longer than others.
const LIMIT: Duration = Duration::from_secs(240);

/// What `slotpass ctl` says, which must succeed.
fn ctl(machine: &mut Machine<'_>, arguments: &str) -> Result<String, Failure> {
    let program = machine.scenario().provisioned().slotpass().display().to_string();
    let output = machine.attempt(
        &format!("ctl {arguments}"),
        &format!("'{program}' ctl --control {SOCKET} {arguments}\n"),
        60,
    )?;
    expect!(output.code == 0, "slotpass ctl {arguments}: exit code {}: {}", output.code, output.err.trim());
    Ok(output.out)
}

/// Waits until the guest has printed a line with this in it.
fn await_line(machine: &mut Machine<'_>, line: &str) -> Result<(), Failure> {
    machine.await_serial_line(line, LIMIT)
}

fn control(run: GuestRun) -> GuestRun {
    run.option("--control", SOCKET).limit(LIMIT)
}

/// An NVMe drive goes and comes twice while the guest writes to it: once the guest is asked, once it is not.
pub fn under_io(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme])?;
    let at = "0000:01:00.0";
    let words = format!("check=unplugged@{at}@1,plugged@{at}@1,unplugged@{at}@2,plugged@{at}@2,poweroff");
    let run = control(GuestRun::linux_elf(&machine, &words)).option("--slot", &format!("1:0:0={nvme},port"));
    let running = machine.start_until("hot-plug", &run, "guest: writing, round 1")?;

    let listed = ctl(&mut machine, "list")?;
    expect!(listed.contains("1:0:0") && listed.contains("in use"), "the drive is not listed: {listed}");
    let removed = ctl(&mut machine, "remove 1:0:0 --timeout 60")?;
    expect!(removed.contains("is removed"), "not removed: {removed}");
    // It is nobody's now: its own driver takes it.
    machine.give_to_drivers(&[(&nvme, "nvme")])?;
    machine.give_to_vfio(&[&nvme])?;
    ctl(&mut machine, &format!("add 1:0:0={nvme}"))?;
    await_line(&mut machine, "guest: writing, round 2")?;
    let removed = ctl(&mut machine, "remove 1:0:0 --force")?;
    expect!(removed.contains("taken away"), "not removed: {removed}");
    await_line(&mut machine, &format!("check unplugged@{at}@2"))?;
    ctl(&mut machine, &format!("add 1:0:0={nvme}"))?;
    let report = machine.finish("until it ends", running, LIMIT)?;

    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    for round in 1..=2 {
        report.check(&format!("unplugged@{at}@{round}"))?;
    }
    let last = report.check(&format!("plugged@{at}@2"))?;
    let (inside, outside) = (last.value("sha256")?, image.sha256_of_first(last.number("mib")?)?);
    expect!(inside == outside, "the guest wrote {inside}, the image file holds {outside}");
    expect!(last.number("interrupts")? > 0, "no MSI-X interrupt from the drive");
    machine.command("the socket is gone", &format!("[ ! -e {SOCKET} ]"))?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// The machine gets a function back within seconds, and the guest goes on.
fn unbind(machine: &mut Machine<'_>, function: &Bdf, running: RunningGuest) -> Result<(), Failure> {
    machine.start_unbinding(function)?;
    machine.await_unbound(function, 40)?;
    machine.command("slotpass goes on", &format!("[ -e /proc/{} ]", running.pid))?;
    Ok(())
}

/// Somebody unbinds a drive on a root bus, and one behind a port, from vfio-pci while the guest uses them.
pub fn wanted_back(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let other = scenario.blank_image("other.img", 64)?;
    let mut plan = Plan::new(iommu);
    let behind = plan.nvme("4.0", &image);
    let root = plan.nvme("5.0", &other);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&behind, &root])?;
    let at = "0000:01:00.0";
    let words = format!("check=unplugged@{at}@1,silent@0000:00:08.0,unplugged@0000:02:00.0@2,poweroff");
    let run = control(GuestRun::linux_elf(&machine, &words))
        .option("--slot", &format!("1:0:0={behind},port"))
        .slot("0:8:0", &root)
        .option("--port", "2")
        .option("--on-request", "ask:30");
    let running = machine.start_until("wanted back", &run, "guest: writing, round 1")?;
    unbind(&mut machine, &behind, running)?;
    machine.give_to_drivers(&[(&behind, "nvme")])?;
    await_line(&mut machine, "guest: waiting for silence")?;
    unbind(&mut machine, &root, running)?;
    machine.give_to_drivers(&[(&root, "nvme")])?;

    // A guest that is given no time.
    machine.give_to_vfio(&[&behind])?;
    ctl(&mut machine, &format!("add 2:0:0={behind}"))?;
    await_line(&mut machine, "guest: writing, round 2")?;
    ctl(&mut machine, "remove 2:0:0 --force")?;
    let report = machine.finish("until it ends", running, LIMIT)?;

    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    for check in [&format!("unplugged@{at}@1"), "silent@0000:00:08.0", "unplugged@0000:02:00.0@2"] {
        report.check(check)?;
    }
    report.expect_message(&[behind.as_ref(), root.as_ref(), "wants it back"])?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// A NIC reports an error: the guest is stopped, or it goes on, as slotpass was told.
pub fn errors(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let mut plan = Plan::new(iommu);
    let port = plan.root_port("4.0");
    let nic = plan.e1000e(&port);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nic])?;
    let run = |machine: &Machine<'_>, policy: &str| {
        control(GuestRun::linux_elf(machine, "check=wait@15,nic,poweroff nic=0000:00:08.0"))
            .slot("0:8:0", &nic)
            .option("--on-error", policy)
    };
    for (policy, code) in [("stop", 8), ("log", 0), ("pass", 0)] {
        let run = run(&machine, policy);
        let running = machine.start_until(policy, &run, "guest: waiting")?;
        machine.inject_error(&port, "COMP_TIME")?;
        let report = machine.finish("until it ends", running, LIMIT)?;
        report.expect_code(code)?;
        report.expect_message(&[nic.as_ref(), "uncorrectable error"])?;
        if code == 0 {
            report.expect_no_failed_check()?;
            report.check("nic")?;
        }
    }
    // Behind a root port of the guest its driver is told, and recovers.
    let at = "0000:01:00.0";
    let words = format!("check=nic,wait@1,recovered@{at},reaches@10.0.2.2,poweroff nic={at}");
    let run = control(GuestRun::linux_elf(&machine, &words))
        .option("--slot", &format!("1:0:0={nic},port"))
        .option("--on-error", "pass");
    let running = machine.start_until("passed on", &run, "guest: waiting")?;
    machine.inject_error(&port, "COMP_TIME")?;
    let report = machine.finish("until it ends", running, LIMIT)?;
    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    report.check(&format!("recovered@{at}"))?;
    report.check("nic")?;
    report.check("reaches@10.0.2.2")?;
    report.expect_message(&[nic.as_ref(), "the guest is told"])?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// A drive and a NIC come into an empty slot as one device, are used, go, come again and are used again.
pub fn two_functions(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    two_functions_on(Kernel::Usual, "group and container", iommu, scenario)
}

/// The same where the first function that comes makes slotpass open an iommufd.
pub fn two_functions_by_iommufd(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    two_functions_on(Kernel::Iommufd, "device file and iommufd", iommu, scenario)
}

fn two_functions_on(
    kernel: Kernel,
    interface: &str,
    iommu: Iommu,
    scenario: &mut Scenario,
) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(kernel);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let (drive_at, nic_at) = ("0000:01:00.0", "0000:01:00.1");
    let used = |round: u8| {
        format!(
            "present@{drive_at}@{round},present@{nic_at}@{round},disk@{drive_at}@nvme,network@{nic_at}@e1000e"
        )
    };
    let gone = format!("absent@{drive_at}@1,absent@{nic_at}@1");
    let words = format!("check={},{gone},{},poweroff", used(1), used(2));
    let log = "/run/scenario/slotpass.log";
    let run = control(GuestRun::linux_elf(&machine, &words)).option("--port", "1").option("--log", log);
    let waiting = |what: &str, round: u8| format!("guest: waiting for {drive_at} to {what}, round {round}");
    let running = machine.start_until("an empty slot", &run, &waiting("come", 1))?;

    let add = format!("add 1:0:0={nvme} 1:0:1={nic}");
    let added = ctl(&mut machine, &add)?;
    expect!(added.contains("1:0:0") && added.contains("1:0:1"), "not both are added: {added}");
    await_line(&mut machine, &waiting("go", 1))?;
    let program = machine.scenario().provisioned().slotpass().display().to_string();
    for slot in ["1:0:0", "1:0:1"] {
        let refused = machine.attempt(
            "one of two",
            &format!("'{program}' ctl --control {SOCKET} remove {slot}\n"),
            60,
        )?;
        expect!(
            refused.code != 0 && refused.err.contains("remove 1:0:0 1:0:1"),
            "{slot} alone: exit code {}: {}{}",
            refused.code,
            refused.out,
            refused.err
        );
    }
    let listed = ctl(&mut machine, "list")?;
    expect!(listed.matches("in use").count() == 2, "not both are in use: {listed}");
    let removed = ctl(&mut machine, "remove 1:0:0 1:0:1 --timeout 60")?;
    expect!(removed.matches("is removed").count() == 2, "not both are removed: {removed}");
    await_line(&mut machine, &waiting("come", 2))?;
    ctl(&mut machine, &add)?;
    let report = machine.finish("until it ends", running, LIMIT)?;

    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    for check in gone.split(',') {
        report.check(check)?;
    }
    // Of the drive the host has what was written last.
    let first = report.check(&format!("disk@{drive_at}"))?;
    let second = report.of_last_start(&waiting("come", 2));
    for report in [&report, &second] {
        zoo::expect_network(report, nic_at, "msix", &fetched)?;
    }
    zoo::expect_disk(&second, drive_at, "msix", &image)?;
    let last = second.check(&format!("disk@{drive_at}"))?;
    expect!(first.value("sha256")? != last.value("sha256")?, "the guest wrote the same twice");
    expect!(first.number("interrupts")? > 0, "no MSI-X interrupt from the drive when it came first");
    let noted = machine.command("what was noted", &format!("cat {log}; [ ! -e {SOCKET} ]"))?;
    expect!(noted.contains(interface), "no {interface:?} in:\n{noted}");
    machine.expect_nothing_left()?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    machine.power_off()
}
