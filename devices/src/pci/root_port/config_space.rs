//! A function's 4096 bytes of configuration space, with what software may do to each bit.

use passthru::pci::registers::EXPRESS_SIZE;

/// Register values and, bit by bit, whether a write sets them (RW), or a write of one clears them (RW1C). All other
/// bits are read-only (PCIe 6.0 §7.4).
#[derive(Clone, Debug)]
pub(super) struct ConfigSpace {
    values: [u8; EXPRESS_SIZE],
    writable: [u8; EXPRESS_SIZE],
    clearable: [u8; EXPRESS_SIZE],
}

/// A register of 1, 2 or 4 bytes as it is defined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    /// Offset of its first byte.
    pub offset: u16,
    /// Bytes.
    pub length: u8,
    /// What it holds after a reset.
    pub value: u32,
    /// Bits that a write sets.
    pub writable: u32,
    /// Bits that a write of one clears.
    pub clearable: u32,
}

impl ConfigSpace {
    pub fn new(registers: impl IntoIterator<Item = Register>) -> ConfigSpace {
        let mut space = ConfigSpace {
            values: [0; EXPRESS_SIZE],
            writable: [0; EXPRESS_SIZE],
            clearable: [0; EXPRESS_SIZE],
        };
        for register in registers {
            let length = usize::from(register.length.min(4));
            put(&mut space.values, register.offset, register.value, length);
            put(&mut space.writable, register.offset, register.writable, length);
            put(&mut space.clearable, register.offset, register.clearable, length);
        }
        space
    }

    /// What software reads. What is no register is zero.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.values.get(at).copied().unwrap_or(0);
        }
    }

    /// What software writes.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            if let (Some(value), Some(writable), Some(clearable)) =
                (self.values.get_mut(at), self.writable.get(at), self.clearable.get(at))
            {
                *value = (*value & !writable | byte & writable) & !(byte & clearable);
            }
        }
    }

    pub fn u8(&self, offset: u16) -> u8 {
        self.values.get(usize::from(offset)).copied().unwrap_or(0)
    }

    pub fn u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset + 1)])
    }

    pub fn u32(&self, offset: u16) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    /// Sets a byte whatever software may do to it.
    pub fn set_u8(&mut self, offset: u16, value: u8) {
        put(&mut self.values, offset, value.into(), 1);
    }

    /// Sets a word whatever software may do to it.
    pub fn set_u16(&mut self, offset: u16, value: u16) {
        put(&mut self.values, offset, value.into(), 2);
    }

    /// Sets a dword whatever software may do to it.
    pub fn set_u32(&mut self, offset: u16, value: u32) {
        put(&mut self.values, offset, value, 4);
    }

    /// Sets those bits of `mask` in a word that are set in `bits`, and clears the others of `mask`.
    pub fn change_u16(&mut self, offset: u16, mask: u16, bits: u16) {
        self.set_u16(offset, self.u16(offset) & !mask | bits & mask);
    }
}

fn put(bytes: &mut [u8; EXPRESS_SIZE], offset: u16, value: u32, length: usize) {
    let values = value.to_le_bytes();
    for (byte, value) in bytes.iter_mut().skip(usize::from(offset)).zip(values.iter().take(length)) {
        *byte = *value;
    }
}
