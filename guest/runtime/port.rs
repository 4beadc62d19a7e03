//! I/O ports, through the shim: `in` and `out` fault at CPL3.

use crate::call::{Call, call};

macro_rules! port_access {
    ($read:ident, $write:ident, $type:ty, $in:ident, $out:ident) => {
        #[must_use]
        pub fn $read(port: u16) -> $type {
            // SAFETY: a port read touches no memory of ours.
            unsafe { call(Call::$in, u64::from(port), 0) as $type }
        }

        pub fn $write(port: u16, value: $type) {
            // SAFETY: no device is ever given an address inside the image, so none writes there.
            unsafe { call(Call::$out, u64::from(port), u64::from(value)) };
        }
    };
}

port_access!(read8, write8, u8, In8, Out8);
port_access!(read16, write16, u16, In16, Out16);
port_access!(read32, write32, u32, In32, Out32);

/// TSC cycles of two readings of the time stamp counter at CPL0, with nothing between them: what all times of this file
/// hold besides the access.
#[must_use]
pub fn cycles_of_nothing() -> u64 {
    // SAFETY: reads the time stamp counter only.
    unsafe { call(Call::TimeNothing, 0, 0) }
}

/// TSC cycles of one 32-bit read, taken next to the instruction.
#[must_use]
pub fn cycles_of_read32(port: u16) -> u64 {
    // SAFETY: as `read32`.
    unsafe { call(Call::TimeIn32, u64::from(port), 0) }
}

/// TSC cycles of one 32-bit write, taken next to the instruction.
#[must_use]
pub fn cycles_of_write32(port: u16, value: u32) -> u64 {
    // SAFETY: as `write32`.
    unsafe { call(Call::TimeOut32, u64::from(port), u64::from(value)) }
}

/// TSC cycles of writing `address` to 0xCF8 and reading 0xCFC, taken next to the two instructions.
#[must_use]
pub fn cycles_of_config_read(address: u32) -> u64 {
    // SAFETY: as `read32`.
    unsafe { call(Call::TimeConfigRead, u64::from(address), 0) }
}

/// TSC cycles of writing `address` to 0xCF8 and `value` to 0xCFC, taken next to the two instructions.
#[must_use]
pub fn cycles_of_config_write(address: u32, value: u32) -> u64 {
    // SAFETY: as `write32`.
    unsafe { call(Call::TimeConfigWrite, u64::from(address), u64::from(value)) }
}
