use guest_tests::{Failure, GuestRun, Iommu, Kernel, Machine, Plan, Scenario};

use super::{IMAGE_MIB, expect_disk, expect_network};

/// A kernel that has /dev/iommu and VFIO's character devices as well as its groups.
pub fn nvme_and_nic(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let image = scenario.blank_image("nvme.img", IMAGE_MIB)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(Kernel::Iommufd);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    machine.command(
        "what the kernel has",
        &format!(
            "[ -c /dev/iommu ] && [ -c /dev/vfio/vfio ] && ls -d /sys/bus/pci/devices/{nvme}/vfio-dev/vfio*"
        ),
    )?;
    let run = GuestRun::linux_with_more_drivers(
        &machine,
        "check=pci,disk@0000:00:08.0@nvme,network@0000:00:08.1@e1000e,poweroff",
    )
    .slot("0:8:0", &nvme)
    .slot("0:8:1", &nic);
    let report = machine.run("slotpass run", &run)?;
    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    expect_disk(&report, "0000:00:08.0", "msix", &image)?;
    expect_network(&report, "0000:00:08.1", "msix", &fetched)?;
    machine.expect_nothing_left()?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    machine.power_off()
}
