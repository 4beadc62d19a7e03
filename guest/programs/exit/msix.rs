//! `msix=SLOT`: the MSI-X structures of slotpass' simulated function are as after power-on. Then they are left otherwise, with a
//! vector that pends and one that is live, so that a reset has something to take away.

use runtime::function::Function;
use runtime::msix::MsiX;
use runtime::slot::Slot;
use runtime::time::Deadline;
use runtime::{Boot, Check, apic, ensure, fail};

const VENDOR: u16 = 0x5350;
const DEVICE: u16 = 0x0001;
/// In BAR 0: a vector's number written here raises it.
const TRIGGER: u64 = 0x48;
const PENDS: u16 = 3;
const LIVE: u16 = 4;
const PROCESSOR_VECTOR: u8 = 0x40;
const MASKED: u32 = 1;
/// Microseconds until the hypervisor has heard of a masked vector.
const PATIENCE: u64 = 5_000_000;

/// Gives how many entries there are.
pub fn as_after_power_on(boot: &Boot, slot: &str) -> Check<u16> {
    let Some(slot) = Slot::parse(slot) else { fail!("{slot:?} is not a slot") };
    let function = Function::find(slot, boot.acpi.as_ref())?;
    function.expect_id(VENDOR, DEVICE)?;
    function.enable();
    let msix = MsiX::of(&function)?;
    ensure!(!msix.any_pending(), "a vector is pending at the start");
    for vector in 0..msix.vectors() {
        let entry = msix.entry(vector);
        ensure!(entry == (0, 0, MASKED), "entry {vector} reads {entry:x?} at the start");
    }

    let message = apic::message(boot.apic_id, PROCESSOR_VECTOR);
    msix.set_enabled(true);
    for vector in [PENDS, LIVE] {
        msix.program(vector, message, false);
    }
    msix.set_mask(PENDS, true);
    function.memory_bar(0)?.write32(TRIGGER, u32::from(PENDS));
    let deadline = Deadline::after_microseconds(PATIENCE);
    while !msix.is_pending(PENDS) {
        ensure!(!deadline.passed(), "vector {PENDS} is masked and raised, but not pending");
    }
    ensure!(
        msix.entry(PENDS) == (message.0, message.1, MASKED) && msix.entry(LIVE) == (message.0, message.1, 0),
        "entries read {:x?} and {:x?}",
        msix.entry(PENDS),
        msix.entry(LIVE)
    );
    Ok(msix.vectors())
}
