//! What the guest does not do to itself, whatever the random numbers say. Everything else is allowed.
//!
//! Each rule looks at single bytes, so it holds for accesses of any width at any offset. Two of them go by the offset's
//! last bits only, since a BAR may be anywhere by now: table entries and message data are aligned.

use crate::budget::Budget;
use crate::message::{delivery, each_byte, vector};
use crate::target::Target;

/// QEMU's edu. A transfer beyond its buffer ends QEMU, which in tests is the machine around the hypervisor under test.
pub const EDU: u32 = 0x11e8_1234;
const EDU_BAR: u64 = 1 << 20;
const EDU_DMA_COMMAND: u64 = 0x98;

/// What the command line allows.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Bus mastering may go on: devices write to whatever memory they are told to.
    pub dma: bool,
    /// There is an edu.
    pub edu: bool,
}

impl Rules {
    /// For a write to memory where BARs are or were. An entry of an MSI-X table has its data at 8 of 16 bytes.
    pub fn memory(&self, address: u64, bytes: u64, value: u64) -> u64 {
        each_byte(address, bytes, value, |address, byte| {
            let byte = match address % 8 {
                0 => vector(byte),
                1 => delivery(byte),
                _ => byte,
            };
            let starts_dma = self.edu && address % EDU_BAR == EDU_DMA_COMMAND;
            if starts_dma { byte & !1 } else { byte }
        })
    }

    /// For a write to a function's configuration space.
    pub fn config(&self, target: &Target, budget: &mut Budget, offset: u64, bytes: u64, value: u64) -> u64 {
        let is_at = |capability: Option<u16>, register: u64, offset: u64| {
            capability.is_some_and(|capability| u64::from(capability) + register == offset)
        };
        each_byte(offset, bytes, value, |offset, byte| {
            // Bits that put the function into D3hot or reset it, or what is below the bridge.
            let resets = match offset {
                0x3f if target.is_bridge => 0,
                0x3e if target.is_bridge => 0x40,
                _ if is_at(target.power, 4, offset) => 0x03,
                _ if is_at(target.express, 9, offset) => 0x80,
                _ if is_at(target.advanced, 4, offset) => 0x01,
                _ => 0,
            };
            let byte = if byte & resets != 0 && !budget.reset() { byte & !resets } else { byte };
            match offset {
                0x04 if !self.dma => byte & !0x04,
                _ if offset < 0x40 => byte,
                _ if is_at(target.power, 4, offset) => byte,
                _ => match offset % 4 {
                    0 => vector(byte),
                    1 if !is_at(target.express, 9, offset) => delivery(byte),
                    _ => byte,
                },
            }
        })
    }

    /// Whether a write to configuration space is left out: with other bus numbers behind a bridge, accesses would go to
    /// functions that they were not meant for.
    pub fn renumbers(target: &Target, offset: u64, bytes: u64) -> bool {
        target.is_bridge && offset < 0x1b && offset + bytes > 0x18
    }
}
