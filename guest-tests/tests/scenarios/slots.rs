//! Where functions appear in the guest, and what stands beside them.

use guest_tests::{Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use crate::linux::{E1000E, NVME, expect_checked_io, expect_function, expect_network};

/// A bus above 0, with nothing of slotpass's own on it.
pub fn bus_three(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux_elf(
        &machine,
        "check=pci,nvme,nic,interrupts,poweroff nvme=0000:03:00.0 nic=0000:03:05.0",
    )
    .slot("3:0:0", &nvme)
    .slot("3:5:0", &nic);
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    expect_function(&report, "0000:03:00.0", NVME)?;
    expect_function(&report, "0000:03:05.0", E1000E)?;
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    machine.power_off()
}

/// The slot map comes from a file, in the notations that bhyve and vmadm use.
pub fn config_file(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");
    let config = serde_json::json!({"pci_devices": [
        {"path": format!("/sys/bus/pci/devices/{nvme}"), "pci_slot": "8"},
        {"path": nic.as_str(), "pci_slot": "8:1"},
    ]});
    let config = scenario.file_for_machine("vm.json", format!("{config:#}").as_bytes())?;

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let run = GuestRun::linux_elf(&machine, "check=pci,poweroff").option("--config", &config);
    let report = machine.run("slotpass run --config", &run)?;

    report.expect_code(0)?;
    expect_function(&report, "0000:00:08.0", NVME)?;
    expect_function(&report, "0000:00:08.1", E1000E)?;
    machine.power_off()
}

/// Functions that have no reset of their own are attached with a warning each; --require-reset refuses them.
pub fn function_without_reset(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let edu = plan.edu("5.0", None);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &edu])?;
    let methods = machine.command(
        "look at the reset methods",
        &format!(
            "cd /sys/bus/pci/devices; [ -e {nvme}/reset ] && [ ! -e {edu}/reset ] && cat {nvme}/reset_method"
        ),
    )?;
    expect!(methods.trim() == "flr", "the machine resets the drive by {methods:?}");

    let run = GuestRun::linux_elf(&machine, "check=pci,poweroff").slot("0:8:0", &nvme).slot("0:8:2", &edu);
    let report = machine.run("attached with a warning", &run)?;
    report.expect_code(0)?;
    expect_function(&report, "0000:00:08.0", NVME)?;
    expect_function(&report, "0000:00:08.2", "1234:11e8")?;
    report.expect_message(&[edu.as_str(), "reset"])?;
    expect!(
        !report.messages().lines().any(|line| line.contains(nvme.as_str()) && line.contains("reset")),
        "a warning about the reset of the drive, which has one: {}",
        report.messages()
    );

    let report = machine.run("refused", &run.flag("--require-reset"))?;
    report.expect_refusal(&[edu.as_str(), "reset"])?;
    machine.expect_nothing_left()?;
    machine.power_off()
}
