use guest_tests::{DoorbellPeer, Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

const VECTORS: u16 = 4;
const SOCKET: &str = "doorbells";

/// ivshmem-doorbell: a peer on the host rings the guest by MSI-X, every vector of it, and is rung by the guest.
pub fn both_ways(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let memory = scenario.blank_image("shared.img", 4)?;
    let kernel = scenario.file_for_machine("devices.elf", guest::DEVICES)?;
    let peer = DoorbellPeer::listen(scenario, SOCKET, &memory, VECTORS)?;
    let mut plan = Plan::new(iommu);
    let ivshmem = plan.ivshmem_doorbell("4.0", SOCKET, VECTORS);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&ivshmem])?;
    let run = GuestRun::bare_metal(&kernel, "doorbell=0:8:0 poweroff").slot("0:8:0", &ivshmem);
    let report = machine.run("bare-metal guest", &run)?;
    report.expect_code(0)?;
    report.expect_serial_start("ok doorbell 0:8:0 ")?;
    let rings = peer.rings()?;
    expect!(rings == vec![1; VECTORS.into()], "the guest rang the peer so often, by vector: {rings:?}");
    machine.expect_nothing_left()?;
    machine.power_off()
}
