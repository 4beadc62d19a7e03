//! Scenarios with QEMU in the place of slotpass: where these fail too, the test machine is at fault.

use guest_tests::{Failure, Iommu, Scenario, Vmm};

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
