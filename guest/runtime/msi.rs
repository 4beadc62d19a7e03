//! The MSI capability (PCI Local Bus Specification 3.0, 6.8.1).

use crate::capability;
use crate::config::ConfigSpace;
use crate::function::Function;
use crate::{Check, fail};

pub struct Msi<'a> {
    function: &'a Function,
    capability: u16,
}

impl<'a> Msi<'a> {
    pub fn of(function: &'a Function) -> Check<Self> {
        match function.capability(capability::MSI) {
            Some(capability) => Ok(Self { function, capability }),
            None => fail!("{} has no MSI capability", function.slot()),
        }
    }

    fn control(&self) -> u16 {
        self.function.read16(self.capability + 2)
    }

    /// 1 to 32.
    #[must_use]
    pub fn vectors(&self) -> u8 {
        1 << (self.control() >> 1 & 7).min(5)
    }

    #[must_use]
    pub fn is_64_bit(&self) -> bool {
        self.control() & 1 << 7 != 0
    }

    #[must_use]
    pub fn is_maskable(&self) -> bool {
        self.control() & 1 << 8 != 0
    }

    /// Sends vector n as `message` with n added to its data: the data's lower bits must be zero for `vectors`, a
    /// power of two.
    pub fn enable(&self, message: (u64, u32), vectors: u8) {
        let (address, data) = message;
        self.function.write32(self.capability + 4, address as u32);
        if self.is_64_bit() {
            self.function.write32(self.capability + 8, (address >> 32) as u32);
        }
        self.function.write16(self.capability + if self.is_64_bit() { 12 } else { 8 }, data as u16);
        let control = self.control() & !(7 << 4);
        self.function.write16(self.capability + 2, control | (vectors.trailing_zeros() as u16) << 4 | 1);
    }

    pub fn disable(&self) {
        self.function.write16(self.capability + 2, self.control() & !1);
    }

    fn mask_register(&self) -> u16 {
        self.capability + if self.is_64_bit() { 16 } else { 12 }
    }

    /// One bit for each vector. Only if [`Msi::is_maskable`].
    pub fn set_mask(&self, bits: u32) {
        self.function.write32(self.mask_register(), bits);
    }

    /// Only if [`Msi::is_maskable`].
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.function.read32(self.mask_register() + 4)
    }
}
