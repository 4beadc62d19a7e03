//! The MSI-X capability, its table and its pending bits (PCI Local Bus Specification 3.0, 6.8.2).

use crate::capability;
use crate::config::ConfigSpace;
use crate::function::Function;
use crate::window::Window;
use crate::{Check, ensure, fail};

const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
const ENTRY: u64 = 16;
const CONTROL: u64 = 12;

pub struct MsiX<'a> {
    function: &'a Function,
    capability: u16,
    table: Window,
    pending: Window,
}

/// Where a structure is: BAR and offset in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    pub bar: u8,
    pub offset: u64,
}

/// Vectors, table and pending bits as the capability tells them.
#[must_use]
pub fn describe(function: &Function, capability: u16) -> (u16, Place, Place) {
    let place = |register| {
        let value = function.read32(capability + register);
        Place { bar: (value & 7) as u8, offset: u64::from(value & !7) }
    };
    ((function.read16(capability + 2) & 0x7ff) + 1, place(4), place(8))
}

impl<'a> MsiX<'a> {
    pub fn of(function: &'a Function) -> Check<Self> {
        let Some(capability) = function.capability(capability::MSIX) else {
            fail!("{} has no MSI-X capability", function.slot());
        };
        let (vectors, table, pending) = describe(function, capability);
        let window = |place: Place, length: u64| {
            ensure!(place.bar < 6, "MSI-X structure in BAR{}", place.bar);
            function.memory_bar_part(place.bar, place.offset, length)
        };
        Ok(Self {
            function,
            capability,
            table: window(table, u64::from(vectors) * ENTRY)?,
            pending: window(pending, u64::from(vectors).div_ceil(64) * 8)?,
        })
    }

    #[must_use]
    pub fn vectors(&self) -> u16 {
        (self.table.length() / ENTRY) as u16
    }

    /// The table itself, for raw accesses.
    #[must_use]
    pub fn table(&self) -> Window {
        self.table
    }

    /// The pending bits themselves, for raw accesses.
    #[must_use]
    pub fn pending_bits(&self) -> Window {
        self.pending
    }

    /// Writes the message of a vector, in the order that keeps a half-written one from being sent, and sets its mask.
    pub fn program(&self, vector: u16, message: (u64, u32), masked: bool) {
        let entry = u64::from(vector) * ENTRY;
        self.set_mask(vector, true);
        self.table.write32(entry, message.0 as u32);
        self.table.write32(entry + 4, (message.0 >> 32) as u32);
        self.table.write32(entry + 8, message.1);
        if !masked {
            self.set_mask(vector, false);
        }
    }

    /// Address, data and vector control as the table reads.
    #[must_use]
    pub fn entry(&self, vector: u16) -> (u64, u32, u32) {
        let entry = u64::from(vector) * ENTRY;
        let address = u64::from(self.table.read32(entry)) | u64::from(self.table.read32(entry + 4)) << 32;
        (address, self.table.read32(entry + 8), self.table.read32(entry + CONTROL))
    }

    pub fn set_mask(&self, vector: u16, masked: bool) {
        self.table.write32(u64::from(vector) * ENTRY + CONTROL, u32::from(masked));
    }

    #[must_use]
    pub fn is_pending(&self, vector: u16) -> bool {
        let word = self.pending.read64(u64::from(vector / 64) * 8);
        word >> (vector % 64) & 1 != 0
    }

    /// Whether any vector is pending.
    #[must_use]
    pub fn any_pending(&self) -> bool {
        (0..self.pending.length() / 8).any(|word| self.pending.read64(word * 8) != 0)
    }

    fn set_control(&self, bits: u16, on: bool) {
        let control = self.function.read16(self.capability + 2);
        self.function.write16(self.capability + 2, if on { control | bits } else { control & !bits });
    }

    pub fn set_enabled(&self, on: bool) {
        self.set_control(ENABLE, on);
    }

    /// Masks all vectors at once, whatever their own masks say.
    pub fn set_function_mask(&self, on: bool) {
        self.set_control(FUNCTION_MASK, on);
    }
}
