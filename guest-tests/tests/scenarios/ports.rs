//! Root ports of the guest: functions behind them, and what Linux makes of their slots.

use std::time::Duration;

use guest_tests::{Failure, GuestReport, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use crate::linux::{E1000E, NVME, expect_checked_io, expect_function, expect_network};

/// The root port as the guest finds it.
const ROOT_PORT: &str = "1b36:000c";

/// The port is driven for hot plug, by MSI, and its slot has a card with power or neither.
fn expect_port(report: &GuestReport, bdf: &str, slot: u64, full: bool) -> Result<(), Failure> {
    expect_function(report, bdf, ROOT_PORT)?;
    let port = report.check(&format!("port@{bdf}"))?;
    let (services, kind) = (port.value("services")?, port.value("kind")?);
    expect!(services.split(',').any(|service| service == "pciehp"), "port {bdf} has the services {services}");
    expect!(kind == "msi", "port {bdf} interrupts by {kind}");
    let found = [port.number("slot")?, port.number("card")?, port.number("power")?];
    expect!(found == [slot, full.into(), full.into()], "slot, card and power of port {bdf} are {found:?}");
    Ok(())
}

/// A function of the machine's bus 0 comes to a guest behind a root port, beside one on bus 0 and an empty port. The
/// guest turns the slot's power off and on, resets the bus, and starts again.
pub fn guest_root_port(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux_elf(
        &machine,
        "check=pci,port@0000:00:10.0,port@0000:00:11.0,slot_power@0000:00:10.0@0000:01:00.0,\
         bus_reset@0000:01:00.0,nic,reboot_once,nvme,poweroff nvme=0000:01:00.0 nic=0000:00:08.0",
    )
    .option("--slot", &format!("1:0:0={nvme},port"))
    .slot("0:8:0", &nic)
    .option("--port", "2")
    // Two starts, and the seconds that a slot's power needs.
    .limit(Duration::from_secs(300));
    let report = machine.run("a drive behind a root port", &run)?;

    report.expect_code(0)?;
    let starts = report.serial().matches("guest: up").count();
    expect!(starts == 2, "the guest started {starts} times");
    expect_function(&report, "0000:01:00.0", NVME)?;
    expect_function(&report, "0000:00:08.0", E1000E)?;
    expect_port(&report, "0000:00:10.0", 1, true)?;
    expect_port(&report, "0000:00:11.0", 2, false)?;
    let power = report.check("slot_power@0000:00:10.0@0000:01:00.0")?;
    expect!(power.number("off")? == 0 && power.number("on")? == 1, "the slot's power did not change");
    report.check("bus_reset@0000:01:00.0")?;
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Behind a root port of the machine and behind one of the guest.
pub fn root_port_to_root_port(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let port = plan.root_port("4.0");
    let nvme = plan.nvme(&port, &image);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme])?;
    let run = GuestRun::linux_elf(&machine, "check=pci,port@0000:00:1e.0,nvme,poweroff nvme=0000:0f:00.0")
        .option("--slot", &format!("15:0:0={nvme},port"))
        .option("--port-window", "16M,64M");
    let report = machine.run("from port to port", &run)?;

    report.expect_code(0)?;
    expect_function(&report, "0000:0f:00.0", NVME)?;
    expect_port(&report, "0000:00:1e.0", 15, true)?;
    expect_checked_io(&report, &image)?;
    machine.power_off()
}
