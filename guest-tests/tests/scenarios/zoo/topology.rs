use guest_tests::{Failure, GuestRun, Iommu, Machine, Plan, Scenario};

use super::{IMAGE_MIB, expect_disk, expect_network};

/// Functions that stand behind a switch in the machine, and on the root bus in the guest.
pub fn behind_a_switch(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let image = scenario.blank_image("nvme.img", IMAGE_MIB)?;
    let mut plan = Plan::new(iommu);
    let port = plan.root_port("4.0");
    let ports = plan.switch(&port, 2);
    let [first, second] = &ports[..] else {
        return Err(Failure::NotAsExpected("a switch of two ports has others".to_owned()));
    };
    let nvme = plan.nvme(first, &image);
    let nic = plan.e1000e(second);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux_with_more_drivers(
        &machine,
        "check=pci,disk@0000:00:08.0@nvme,network@0000:00:09.0@e1000e,poweroff",
    )
    .slot("0:8:0", &nvme)
    .slot("0:9:0", &nic);
    let report = machine.run("slotpass run", &run)?;
    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    expect_disk(&report, "0000:00:08.0", "msix", &image)?;
    expect_network(&report, "0000:00:09.0", "msix", &fetched)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Behind a bridge to conventional PCI the IOMMU cannot tell functions apart: they are one group. One guest gets both;
/// one of them alone is refused while a driver of the machine holds the other.
pub fn one_group(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let image = scenario.blank_image("sata.img", IMAGE_MIB)?;
    let mut plan = Plan::new(iommu);
    let port = plan.root_port("4.0");
    let bus = plan.conventional_bus(&port);
    let sata = plan.ahci((&bus, "1.0"), &image);
    let nic = plan.virtio_network((&bus, "2.0"));

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&sata])?;
    let both = |run: GuestRun| run.slot("0:8:0", &sata).slot("0:9:0", &nic);
    let words = "check=disk@0000:00:08.0@ahci,network@0000:00:09.0@virtio_net,poweroff";

    let alone = GuestRun::linux_with_more_drivers(&machine, words).slot("0:8:0", &sata);
    let report = machine.run("one of two, the other held", &alone)?;
    report.expect_refusal(&[sata.as_str(), nic.as_str(), "virtio-pci", "group"])?;
    machine.expect_nothing_left()?;

    machine.give_to_vfio(&[&nic])?;
    let run = both(GuestRun::linux_with_more_drivers(&machine, words));
    let report = machine.run("both", &run)?;
    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    expect_disk(&report, "0000:00:08.0", "msi", &image)?;
    expect_network(&report, "0000:00:09.0", "msix", &fetched)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}
