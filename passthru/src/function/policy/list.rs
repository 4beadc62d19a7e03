//! The lists that a guest finds: what it sees of each, tied together anew.

use crate::function::registers::{Register, Registers};
use crate::pci::capability::{Capability, ExtendedCapability};
use crate::pci::registers::*;

/// Ties capabilities of the first 256 bytes together, in this order.
pub fn link(registers: &mut Registers, visible: &[&Capability]) {
    let mut next = 0;
    for capability in visible.iter().rev() {
        registers.update(capability.offset, |r| {
            r.shadow = r.shadow & 0xffff_0000 | u32::from(next) << 8 | u32::from(capability.id);
        });
        next = capability.offset;
    }
    registers.update(CAPABILITIES, |r| *r = Register { shadow: u32::from(next), ..Register::default() });
    if next != 0 {
        registers.update(STATUS, |r| r.shadow |= u32::from(STATUS_CAPABILITIES) << 16);
    }
}

/// Ties extended capabilities together, in this order.
pub fn link_extended(registers: &mut Registers, visible: &[&ExtendedCapability]) {
    let mut next = 0;
    for capability in visible.iter().rev() {
        let header = u32::from(next) << 20 | u32::from(capability.version) << 16 | u32::from(capability.id);
        registers.update(capability.offset, |r| *r = Register { shadow: header, ..Register::default() });
        next = capability.offset;
    }
    // The list starts at 0x100 whatever is there: a null capability (id 0, PCIe 6.0 §7.9.28) leads on when what the
    // function has there is not shown.
    if next > EXTENDED_CAPABILITIES {
        let null = Register { shadow: u32::from(next) << 20 | 1 << 16, ..Register::default() };
        registers.update(EXTENDED_CAPABILITIES, |r| *r = null);
    }
}
