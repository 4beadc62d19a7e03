//! A Linux guest that drives passed-through functions with its own drivers.

use std::time::Duration;

use guest_tests::{DiskImage, Failure, GuestReport, GuestRun, Iommu, Machine, Plan, Scenario, expect};

pub const NVME: &str = "1b36:0010";
pub const E1000E: &str = "8086:10d3";

/// The NVMe drive wrote and read what the host finds in the image file, and interrupted by MSI-X.
pub fn expect_checked_io(report: &GuestReport, image: &DiskImage) -> Result<(), Failure> {
    let nvme = report.check("nvme")?;
    let mib = nvme.number("mib")?;
    let (inside, outside) = (nvme.value("sha256")?, image.sha256_of_first(mib)?);
    expect!(mib >= 64, "only {mib} MiB were written");
    expect!(inside == outside, "the guest wrote {inside}, the image file holds {outside}");
    expect!(nvme.number("interrupts")? > 0, "no MSI-X interrupt from the drive");
    Ok(())
}

/// The NIC reached its gateway, and interrupted by MSI-X.
pub fn expect_network(report: &GuestReport) -> Result<(), Failure> {
    let nic = report.check("nic")?;
    expect!(nic.number("interrupts")? > 0, "no MSI-X interrupt from the NIC");
    Ok(())
}

/// The guest's Linux found a function with these ids at exactly this address.
pub fn expect_function(report: &GuestReport, bdf: &str, ids: &str) -> Result<(), Failure> {
    report.expect_serial_start(&format!("pci {bdf} {ids} ")).map(drop)
}

/// Two unrelated functions of the machine become two functions of one guest device.
pub fn nvme_and_nic(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux(&machine, "check=pci,nvme,nic,interrupts,poweroff")
        .slot("0:8:0", &nvme)
        .slot("0:8:1", &nic);
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    expect_function(&report, "0000:00:08.0", NVME)?;
    expect_function(&report, "0000:00:08.1", E1000E)?;
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    machine.expect_nothing_left()?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    let read = machine.sha256_through_nvme_driver(&nvme, 8)?;
    expect!(read == image.sha256_of_first(8)?, "the machine's own driver reads other data from the drive");
    machine.power_off()
}

/// Two vCPUs, which the machine's one processor runs in turns.
pub fn two_vcpus(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux(&machine, "check=cpus,nvme,nic,interrupts,poweroff")
        .option("--cpus", "2")
        .slot("0:8:0", &nvme)
        .slot("0:8:1", &nic);
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    let online = report.check("cpus")?.number("online")?;
    expect!(online == 2, "{online} processors are online in the guest");
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    machine.power_off()
}

/// Little memory; and the drive is behind a root port of the machine while the NIC is on its bus 0:
/// in the guest both are on bus 0.
pub fn small_memory_and_root_port(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let port = plan.root_port("4.0");
    let nvme = plan.nvme(&port, &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux_elf(
        &machine,
        "check=pci,memory,nvme,nic,poweroff nvme=0000:00:04.0 nic=0000:00:1e.0",
    )
    .option("--memory", "256M")
    .slot("0:4:0", &nvme)
    .slot("0:30:0", &nic);
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    expect_function(&report, "0000:00:04.0", NVME)?;
    expect_function(&report, "0000:00:1e.0", E1000E)?;
    let kib = report.check("memory")?.number("kib")?;
    expect!((128 << 10..=256 << 10).contains(&kib), "the guest counts {kib} KiB of memory");
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    machine.power_off()
}

/// Memory on both sides of the hole below 4 GiB; the drive reaches both.
pub fn five_gib(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    plan.memory_mib(7168);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux_elf(&machine, "check=memory,nvme,nic,sides,poweroff")
        .option("--memory", "5G")
        // All of it is pinned, and unpinned.
        .limit(Duration::from_secs(300))
        .slot("0:8:0", &nvme)
        .slot("0:8:1", &nic);
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    let kib = report.check("memory")?.number("kib")?;
    expect!(kib > 9 << 19, "the guest counts {kib} KiB of memory");
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    let sides = report.check("sides")?;
    let sum = image.sha256_of_first(64)?;
    expect!(sides.value("sha256")? == sum, "other data came into the guest's memory than the image holds");
    for side in ["above-mib", "below-mib"] {
        // Some of the 64 MiB come from pages that were free elsewhere, or free others meanwhile.
        let mib = sides.number(side)?;
        expect!(mib >= 16, "only {mib} MiB were read {side}");
    }
    machine.power_off()
}

/// A guest that resets itself starts again, on the same functions; with --no-reboot that ends slotpass.
pub fn guest_reset(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let twice = GuestRun::linux_elf(&machine, "check=nic,reboot_once,nvme,poweroff")
        .slot("0:8:0", &nvme)
        .slot("0:8:1", &nic);
    let report = machine.run("a guest that resets itself once", &twice)?;
    report.expect_code(0)?;
    let starts = report.serial().matches("guest: up").count();
    expect!(starts == 2, "the guest started {starts} times");
    let pings = report.serial().matches("check nic ok").count();
    expect!(pings == 2, "the NIC worked in {pings} of 2 starts");
    report.check("reboot_once")?;
    expect_checked_io(&report, &image)?;

    let once = GuestRun::linux_elf(&machine, "check=pci,reboot")
        .slot("0:8:0", &nvme)
        .slot("0:8:1", &nic)
        .flag("--no-reboot");
    let report = machine.run("--no-reboot", &once)?;
    report.expect_code(0)?;
    report.expect_serial_line("guest: rebooting")?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Of a guest for whom nothing else was asked.
const MEMORY_MIB: u64 = 512;
/// Resident memory of slotpass that is not its guest's, at most.
const OWN_KIB: u64 = 8 << 10;

/// slotpass needs little memory of its own. Killed while the drive is writing; then the same devices work for the next run and for the machine itself.
pub fn killed_in_mid_io(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let busy = GuestRun::linux_elf(&machine, "check=nic,busy").slot("0:8:0", &nvme).slot("0:8:1", &nic);
    let running = machine.start_until("a guest that writes without end", &busy, "check busy ok")?;
    let resident = machine.resident(running)?;
    let own = resident.beside_the_guest(MEMORY_MIB)?;
    expect!(own <= OWN_KIB, "{own} KiB are slotpass' own, {OWN_KIB} are enough:\n{}", resident.largest());
    machine.command(
        "kill -9",
        &format!("sleep 1; kill -9 {0}; for i in {{1..200}}; do [ -e /proc/{0} ] || exit 0; sleep 0.1; done; exit 1", running.pid),
    )?;
    machine.expect_nothing_left()?;

    let again =
        GuestRun::linux_elf(&machine, "check=pci,nvme,nic,poweroff").slot("0:8:0", &nvme).slot("0:8:1", &nic);
    let report = machine.run("the same devices again", &again)?;
    report.expect_code(0)?;
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    let read = machine.sha256_through_nvme_driver(&nvme, 8)?;
    expect!(read == image.sha256_of_first(8)?, "the machine's own driver reads other data from the drive");
    machine.power_off()
}
