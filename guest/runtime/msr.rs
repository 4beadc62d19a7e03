//! Model-specific registers, through the shim.

use crate::call::{Call, call};

/// A register that the processor does not have ends the guest with a report of exception 13.
#[must_use]
pub fn read(register: u32) -> u64 {
    // SAFETY: a read changes nothing.
    unsafe { call(Call::ReadMsr, u64::from(register), 0) }
}

/// # Safety
/// The register must not be one that compiled code or the shim relies on: EFER, APIC base, the segment bases.
pub unsafe fn write(register: u32, value: u64) {
    // SAFETY: up to the caller.
    unsafe { call(Call::WriteMsr, u64::from(register), value) };
}
