use guest_tests::{Emulator, Failure, GuestRun, Iommu, Machine, Plan, Scenario};

use super::expect_network;

/// igb as a whole; then two virtual functions of it in one guest, while the machine's own driver has the physical one.
pub fn igb(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let mut plan = Plan::new(iommu);
    plan.emulator(Emulator::Newer);
    let port = plan.root_port("4.0");
    let igb = plan.network(&port, "igb");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&igb])?;
    let run = GuestRun::linux_with_more_drivers(&machine, "check=pci,network@0000:00:08.0@igb,poweroff")
        .slot("0:8:0", &igb);
    let report = machine.run("the physical function", &run)?;
    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    expect_network(&report, "0000:00:08.0", "msix", &fetched)?;

    machine.give_to_drivers(&[(&igb, "igb")])?;
    let functions = machine.virtual_functions(&igb, 2)?;
    machine.give_to_vfio(&functions.iter().collect::<Vec<_>>())?;
    let run = GuestRun::linux_with_more_drivers(
        &machine,
        "check=pci,network@0000:00:08.0@igbvf,network@0000:00:09.0@igbvf,poweroff",
    );
    let run = ["0:8:0", "0:9:0"].iter().zip(&functions).fold(run, |run, (slot, bdf)| run.slot(slot, bdf));
    let report = machine.run("two virtual functions", &run)?;
    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    expect_network(&report, "0000:00:08.0", "msix", &fetched)?;
    expect_network(&report, "0000:00:09.0", "msix", &fetched)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}
