//! What the host does for a guest's functions: how it resets them, and by which interface it opens them.

use std::time::Duration;

use guest_tests::{Bdf, Failure, GuestRun, Iommu, Kernel, Machine, Plan, Scenario, expect};

use crate::linux::{E1000E, NVME, expect_checked_io, expect_function, expect_network};

/// Where slotpass writes its notes, as the machine sees it.
const LOG: &str = "/run/scenario/slotpass.log";

/// Each function is reset by the first way that it has, and what only its bus resets, together with all that is there.
pub fn resets(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    resets_on(Kernel::Usual, iommu, scenario)
}

/// The same by device files, where the kernel knows from the iommufd who may reset what.
pub fn resets_by_iommufd(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    resets_on(Kernel::Iommufd, iommu, scenario)
}

fn resets_on(kernel: Kernel, iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(kernel);
    let nvme = plan.nvme("4.0", &image);
    let port = plan.root_port("5.0");
    let alone = plan.edu(&port, None);
    let port = plan.root_port("6.0");
    let bus = plan.conventional_bus(&port);
    let first = plan.edu((&bus, "1.0"), None);
    let second = plan.edu((&bus, "2.0"), None);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &alone, &first])?;
    let run = GuestRun::linux_elf(&machine, "check=pci,poweroff").slot("0:8:0", &first);
    let report = machine.run("one of two, the other held by nobody", &run)?;
    report.expect_code(0)?;
    report.expect_message(&[first.as_str(), "cannot be reset", second.as_str(), "no driver"])?;
    let report = machine.run("refused", &run.flag("--require-reset"))?;
    report.expect_refusal(&[first.as_str(), "cannot be reset", second.as_str()])?;
    machine.expect_nothing_left()?;

    machine.give_to_vfio(&[&second])?;
    write_message_address(&mut machine, &[&alone, &first, &second])?;
    let run = GuestRun::linux_elf(&machine, "check=busy")
        .slot("0:8:0", &nvme)
        .slot("0:9:0", &alone)
        .slot("0:10:0", &first)
        .slot("0:11:0", &second)
        .flag("--require-reset")
        .option("--log", LOG);
    let running = machine.start_until("all of them", &run, "check busy ok")?;
    for function in [&alone, &first, &second] {
        let address = message_address(&mut machine, function)?;
        expect!(address == 0, "{function} still has what was written to it before: {address:#x}");
    }
    let log = machine.command("what was noted", &format!("cat {LOG}; kill -TERM {}", running.pid))?;
    machine.finish("the end of all of them", running, Duration::from_secs(30))?;
    for (function, method) in [
        (&nvme, "FLR".to_owned()),
        (&alone, "bus".to_owned()),
        (&first, format!("bus, together with {second}")),
        (&second, format!("bus, together with {first}")),
    ] {
        let line = format!("{function} is reset by: {method}");
        expect!(log.lines().any(|found| found.trim_end().ends_with(&line)), "no {line:?} in:\n{log}");
    }
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// MSI capability of QEMU's edu, and the register there that holds the lower half of a message's address. A reset clears
/// it; the kernel restores it only while MSI is on.
const MESSAGE_ADDRESS: u32 = 0x44;

fn write_message_address(machine: &mut Machine<'_>, functions: &[&Bdf]) -> Result<(), Failure> {
    for function in functions {
        machine.command(
            "leave something in a function",
            &format!(
                "printf '\\x00\\x00\\xe0\\xfe' | \
                 dd of=/sys/bus/pci/devices/{function}/config bs=1 seek={MESSAGE_ADDRESS} conv=notrunc status=none\n"
            ),
        )?;
        let written = message_address(machine, function)?;
        expect!(written == 0xfee0_0000, "{function} has {written:#x} where an address was written");
    }
    Ok(())
}

fn message_address(machine: &mut Machine<'_>, function: &Bdf) -> Result<u32, Failure> {
    let text = machine.command(
        "look into a function",
        &format!("od -An -tx4 -j{MESSAGE_ADDRESS} -N4 /sys/bus/pci/devices/{function}/config\n"),
    )?;
    u32::from_str_radix(text.trim(), 16).map_err(|_| Failure::NotAsExpected(format!("{text:?} is no number")))
}

/// Where the kernel has device files and iommufd they are used, unless groups are asked for; and a program that was given
/// open files needs no rights of its own.
pub fn iommufd(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(Kernel::Iommufd);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let words = "check=pci,nvme,nic,interrupts,poweroff";
    let run = GuestRun::linux_elf(&machine, words).slot("0:8:0", &nvme).slot("0:8:1", &nic);
    for (name, run, interface) in [
        ("chosen by itself", run.clone(), "device file and iommufd"),
        ("by group", run.option("--iommufd", "off"), "group and container"),
    ] {
        let report = machine.run(name, &run.option("--log", LOG))?;
        report.expect_code(0)?;
        expect_function(&report, "0000:00:08.0", NVME)?;
        expect_function(&report, "0000:00:08.1", E1000E)?;
        expect_checked_io(&report, &image)?;
        expect_network(&report)?;
        let log = machine.command("what was noted", &format!("cat {LOG}"))?;
        expect!(log.contains(interface), "{name}: no {interface:?} in:\n{log}");
        machine.expect_nothing_left()?;
    }

    let device_file = |bdf: &Bdf| format!("/dev/vfio/devices/$(ls /sys/bus/pci/devices/{bdf}/vfio-dev)");
    let handed_over = GuestRun::linux_elf(&machine, words)
        .after("chmod 666 /dev/kvm; ulimit -l unlimited")
        .after(&format!("exec 5<>{} 6<>{} 7<>/dev/iommu", device_file(&nvme), device_file(&nic)))
        // It may read the kernel, which is in root's directories, and open no device.
        .through(
            "setpriv --reuid 1000 --regid 1000 --clear-groups \
             --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search",
        )
        .option("--slot", "0:8:0=fd:5")
        .option("--slot", "0:8:1=fd:6");
    let report = machine.run("without rights", &handed_over)?;
    report.expect_refusal(&["/dev/iommu", "ermission denied"])?;
    let report = machine.run("handed over", &handed_over.option("--iommufd", "fd:7"))?;
    report.expect_code(0)?;
    expect_function(&report, "0000:00:08.0", NVME)?;
    expect_function(&report, "0000:00:08.1", E1000E)?;
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    machine.expect_nothing_left()?;

    let run = GuestRun::linux_elf(&machine, words).option("--slot", "0:8:0=fd:9");
    machine.run("no such file", &run)?.expect_refusal(&["file descriptor 9", "/dev/vfio/devices"])?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    let read = machine.sha256_through_nvme_driver(&nvme, 8)?;
    expect!(read == image.sha256_of_first(8)?, "the machine's own driver reads other data from the drive");
    machine.power_off()
}
