//! Functions that reach the guest through illumos' interface: the same scenarios, the same guests, the same devices.

use std::fs;

use guest_tests::{Failure, GuestRun, Iommu, Machine, PPT_TRACE, Plan, Scenario, Vmm, expect};

use crate::linux::{self, expect_checked_io, expect_network};

/// A drive and a NIC with MSI-X, whose drivers are Linux'.
pub fn nvme_and_nic(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    scenario.set_vmm(Vmm::SlotpassOverPpt);
    linux::nvme_and_nic(iommu, scenario)?;
    expect_life(scenario, &[("/dev/ppt0", "msix"), ("/dev/ppt1", "msix")])
}

/// A function with MSI, and one of I/O ports that has no interrupts; and all of them beside each other.
pub fn further_functions(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    scenario.set_vmm(Vmm::SlotpassOverPpt);
    let image = scenario.blank_image("nvme.img", 64)?;
    let kernel = scenario.file_for_machine("devices.elf", guest::DEVICES)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");
    let edu = plan.edu("6.0", None);
    let testdev = plan.pci_testdev("7.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic, &edu, &testdev])?;
    let with_all = |run: GuestRun| {
        run.slot("0:8:0", &nvme).slot("0:8:1", &nic).slot("0:8:2", &edu).slot("0:9:0", &testdev)
    };
    let run = GuestRun::bare_metal(&kernel, "edu=0:8:2 testdev=0:9:0 poweroff");
    let report = machine.run("bare-metal guest", &with_all(run))?;
    report.expect_code(0)?;
    report.expect_serial_start("ok edu 0:8:2 ")?;
    report.expect_serial_start("ok testdev 0:9:0 ")?;
    expect_life(machine.scenario(), &[("/dev/ppt2", "msi")])?;

    let run = GuestRun::linux_elf(&machine, "check=pci,nvme,nic,interrupts,poweroff");
    let report = machine.run("Linux guest", &with_all(run))?;
    report.expect_code(0)?;
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    let life = [("/dev/ppt0", "msix"), ("/dev/ppt1", "msix")];
    expect_life(machine.scenario(), &life)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// What the kernel was asked in a VM's whole life: it is made, with wired memory, before it is given functions; each is bound,
/// then asked for its limits and BARs, then mapped, then interrupts are set up; it is unbound, and nothing comes after that.
fn expect_life(scenario: &Scenario, functions: &[(&str, &str)]) -> Result<(), Failure> {
    let path = scenario.directory().join(PPT_TRACE);
    let trace = fs::read_to_string(&path).map_err(|source| Failure::Io { action: "read", path, source })?;
    let lines: Vec<&str> = trace.lines().collect();
    let at = |line: &str| lines.iter().position(|known| *known == line);
    let last = |line: &str| lines.iter().rposition(|known| *known == line);
    let failed = lines.iter().find(|line| !line.ends_with(": ok") && !line.starts_with("bar-query"));
    expect!(failed.is_none(), "the kernel refused {failed:?}");
    let vm = "/dev/vmm/slotpass";
    let wired = last(&format!("wire-memory {vm}: ok"));
    expect!(at("create-vm /dev/vmmctl: ok") < wired, "no VM with wired memory was made: {trace}");
    // Each function is bound before the next is opened, so that a function's calls to the VM follow its own.
    let count = lines.iter().filter(|line| line.starts_with("open /dev/ppt")).count();
    for what in ["bind", "limits", "unbind"] {
        let calls = lines.iter().filter(|line| **line == format!("{what} {vm}: ok")).count();
        expect!(calls == count, "{what}: {calls} calls for {count} functions: {trace}");
    }
    for (function, interrupts) in functions {
        let opened = at(&format!("open {function}: ok"));
        expect!(
            opened.is_some() && wired < opened,
            "{function} was not opened after memory was wired: {trace}"
        );
        let rest = lines.get(opened.unwrap_or_default()..).unwrap_or_default();
        let order = [
            format!("bar-query {function}: ok"),
            format!("bind {vm}: ok"),
            format!("limits {vm}: ok"),
            format!("bar-query {function}: ok"),
            format!("map {vm}: ok"),
            format!("{interrupts} {vm}: ok"),
            format!("unbind {vm}: ok"),
            format!("close {function}: ok"),
        ];
        let mut rest = rest.iter();
        let missing = order.iter().find(|wanted| !rest.any(|line| *line == wanted.as_str()));
        expect!(missing.is_none(), "{function}: {missing:?} is not where it should be: {trace}");
        let after = rest.find(|line| line.contains(function));
        expect!(after.is_none(), "{function}: {after:?} after its end");
    }
    Ok(())
}
