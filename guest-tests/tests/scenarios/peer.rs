//! Scenarios with QEMU in the place of slotpass: where these fail too, the test machine is at fault.

use std::time::Duration;

use guest_tests::{Failure, Iommu, Kernel, Machine, Plan, Scenario, Vmm, expect};

use crate::{bare_metal, linux};

type Run = fn(Iommu, &mut Scenario) -> Result<(), Failure>;

fn by_qemu(run: Run, iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    scenario.set_vmm(Vmm::Qemu);
    run(iommu, scenario)
}

pub fn nvme_and_nic(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    by_qemu(linux::nvme_and_nic, iommu, scenario)
}

pub fn two_vcpus(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    by_qemu(linux::two_vcpus, iommu, scenario)
}

pub fn small_memory_and_root_port(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    by_qemu(linux::small_memory_and_root_port, iommu, scenario)
}

pub fn five_gib(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    by_qemu(linux::five_gib, iommu, scenario)
}

pub fn further_functions(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    by_qemu(bare_metal::further_functions, iommu, scenario)
}

pub fn guest_reset(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    by_qemu(linux::guest_reset, iommu, scenario)
}

pub fn killed_in_mid_io(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    by_qemu(linux::killed_in_mid_io, iommu, scenario)
}

/// What scenarios do to a function from outside, done to the machine's own drivers.
pub fn events(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    events_with(Kernel::Usual, iommu, scenario)
}

pub fn events_with_iommufd(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    events_with(Kernel::Iommufd, iommu, scenario)
}

fn events_with(kernel: Kernel, iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 16)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(kernel);
    let port = plan.root_port("4.0");
    let nvme = plan.nvme(&port, &image);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_drivers(&[(&nvme, "nvme")])?;
    let read = machine.sha256_through_nvme_driver(&nvme, 8)?;
    expect!(read == image.sha256_of_first(8)?, "the machine reads other data than the image holds");
    machine.inject_error(&port, "COMP_TIME")?;
    machine.command(
        "look for the error",
        "for i in {1..20}; do if dmesg | grep 'AER:.*error'; then exit 0; fi; sleep 0.5; done; dmesg >&2; exit 1",
    )?;

    machine.give_to_vfio(&[&nvme])?;
    machine.start_unbinding(&nvme)?;
    machine.await_unbound(&nvme, 10)?;

    machine.start_unplugging(&nvme)?;
    machine.await_unplugged(&nvme, Duration::from_secs(30))?;
    machine.command("gone", &format!("[ ! -e /sys/bus/pci/devices/{nvme} ]"))?;
    machine.plug_in(&nvme)?;
    machine.command(
        "back",
        &format!(
            "for i in {{1..100}}; do [ ! -e /sys/bus/pci/devices/{nvme} ] || exit 0; sleep 0.1; done; exit 1"
        ),
    )?;
    machine.give_to_drivers(&[(&nvme, "nvme")])?;
    let read = machine.sha256_through_nvme_driver(&nvme, 8)?;
    expect!(read == image.sha256_of_first(8)?, "the machine reads other data after plugging in");
    machine.power_off()
}
