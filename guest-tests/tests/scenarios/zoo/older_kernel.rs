use guest_tests::{Failure, GuestRun, Iommu, Kernel, Machine, Plan, Scenario, expect};

use super::{IMAGE_MIB, expect_interrupts, expect_network};

/// VFIO of kernel 6.1 cannot add an MSI-X vector to those in use, and drivers enable them one by one: no interrupt of
/// any queue is lost.
pub fn vectors_one_by_one(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let image = scenario.blank_image("nvme.img", IMAGE_MIB)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(Kernel::V6_1);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    let release = machine.command("which kernel", "uname -r")?;
    expect!(release.starts_with("6.1."), "the machine runs {release}");
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux_with_more_drivers(
        &machine,
        "check=network@0000:00:08.1@e1000e,disk@0000:00:08.0@nvme,queues@0000:00:08.0@2,network@0000:00:08.1@e1000e,\
         interrupts,poweroff",
    )
    .option("--cpus", "2")
    .slot("0:8:0", &nvme)
    .slot("0:8:1", &nic);
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    // The check of the queues wrote behind what the check of the disk had written and compared.
    report.check("disk@0000:00:08.0")?;
    expect_network(&report, "0000:00:08.1", "msix", &fetched)?;
    let queues = report.check("queues@0000:00:08.0")?;
    expect_interrupts(&queues, "0000:00:08.0", "msix")?;
    // One vector for the commands that administer the drive, one for each processor.
    let counts: Vec<u64> = queues.value("counts")?.split('/').flat_map(str::parse).collect();
    expect!(
        counts.len() == 3 && counts.iter().all(|&count| count > 0),
        "interrupts of the queues: {counts:?}"
    );
    machine.expect_nothing_left()?;
    machine.power_off()
}
