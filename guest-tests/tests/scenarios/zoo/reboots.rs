use std::time::Duration;

use guest_tests::{Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use super::{IMAGE_MIB, expect_disk, expect_network};

const STARTS: u64 = 4;

/// A guest resets itself three times; each time all of its functions, of whatever kind, work again.
pub fn three_times(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let [nvme, sata, virtio] =
        ["nvme", "sata", "virtio"].map(|name| scenario.blank_image(&format!("{name}.img"), IMAGE_MIB));
    let (nvme, sata, virtio) = (nvme?, sata?, virtio?);
    let mut plan = Plan::new(iommu);
    let functions = [
        ("0:8:0", plan.nvme("4.0", &nvme)),
        ("0:9:0", plan.e1000e("5.0")),
        ("0:10:0", plan.ahci("6.0", &sata)),
        ("0:11:0", plan.virtio_block("7.0", &virtio)),
    ];

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&functions.each_ref().map(|(_, bdf)| bdf))?;
    let run = GuestRun::linux_with_more_drivers(
        &machine,
        &format!(
            "check=disk@0000:00:08.0@nvme,network@0000:00:09.0@e1000e,disk@0000:00:0a.0@ahci,\
             disk@0000:00:0b.0@virtio_blk,reboots@0000:00:08.0@{STARTS},poweroff"
        ),
    );
    let run = functions
        .iter()
        .fold(run, |run, (slot, bdf)| run.slot(slot, bdf))
        .limit(Duration::from_secs(STARTS * 100));
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    for check in ["disk@0000:00:08.0", "network@0000:00:09.0", "disk@0000:00:0a.0", "disk@0000:00:0b.0"] {
        let passed = report.serial().matches(&format!("check {check} ok")).count() as u64;
        expect!(passed == STARTS, "check {check} passed in {passed} of {STARTS} starts");
    }
    report.check("reboots@0000:00:08.0")?;
    // The report has the sum of the first start, the images that of the last.
    let last = report.of_last_start("guest: up");
    expect_disk(&last, "0000:00:08.0", "msix", &nvme)?;
    expect_network(&last, "0000:00:09.0", "msix", &fetched)?;
    expect_disk(&last, "0000:00:0a.0", "msi", &sata)?;
    expect_disk(&last, "0000:00:0b.0", "msix", &virtio)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}
