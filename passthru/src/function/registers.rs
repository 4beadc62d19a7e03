//! The configuration space that a guest sees: for each bit who answers a read and what a write does.

/// One dword, bit by bit. A bit that is in none of the masks is constant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// What a guest reads, live bits excepted.
    pub shadow: u32,
    /// A guest's writes change the shadow.
    pub writable: u32,
    /// Reads come from the function.
    pub live: u32,
    /// Writes go to the function.
    pub forward: u32,
    /// Writing a one clears the bit in the function, so a zero goes there unless the guest wrote a one.
    pub clear: u32,
    /// Fields of the writable bits that take no value above one.
    pub limits: [Limit; 2],
}

/// A field that keeps what it has when a value above `most` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Its bits.
    pub mask: u32,
    /// The largest value, in place.
    pub most: u32,
}

/// What a guest reads: the shadow, and which bits of it are to be replaced by the function's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigRead {
    /// The bytes read, from the lowest on; live bits are zero.
    pub value: u32,
    /// The bits that the function has to say.
    pub live: u32,
}

/// A write to the function's own configuration space, of 1, 2 or 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigWrite {
    /// First byte.
    pub offset: u16,
    /// Bytes.
    pub len: u8,
    /// What the bits in `mask` become.
    pub value: u32,
    /// The bits that change. Others keep what the function has, except those in `clear`.
    pub mask: u32,
    /// Bits that are written as zero when they are not in `mask`.
    pub clear: u32,
}

impl ConfigWrite {
    /// All bits that the write covers.
    pub const fn covers(&self) -> u32 {
        width_mask(self.len)
    }

    /// The bytes to write, given what the function has there now.
    pub const fn merge(&self, now: u32) -> u32 {
        (now & !self.mask & !self.clear | self.value & self.mask) & self.covers()
    }

    /// What the function has now does not matter.
    pub const fn is_whole(&self) -> bool {
        (self.mask | self.clear) & self.covers() == self.covers()
    }
}

const fn width_mask(len: u8) -> u32 {
    if len >= 4 { u32::MAX } else { (1u32 << (8 * len as u32)) - 1 }
}

/// Dwords of a configuration space.
#[derive(Clone, Debug)]
pub struct Registers {
    dwords: Box<[Register]>,
}

impl Registers {
    /// `len` bytes (256 or 4096) that read zero and cannot be written.
    pub fn new(len: usize) -> Registers {
        Registers { dwords: vec![Register::default(); len / 4].into() }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.dwords.len() * 4
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.dwords.is_empty()
    }

    /// The dword that holds byte `offset`.
    pub fn dword(&self, offset: u16) -> Register {
        self.dwords.get(usize::from(offset) / 4).copied().unwrap_or_default()
    }

    /// Changes the dword that holds byte `offset`; one beyond the end is left alone.
    pub fn update(&mut self, offset: u16, change: impl FnOnce(&mut Register)) {
        if let Some(register) = self.dwords.get_mut(usize::from(offset) / 4) {
            change(register);
        }
    }

    /// The shadow of the word at an even `offset`.
    pub fn word(&self, offset: u16) -> u16 {
        (self.dword(offset).shadow >> (8 * (offset & 2))) as u16
    }

    /// Sets the shadow of the word at an even `offset`.
    pub fn set_word(&mut self, offset: u16, value: u16) {
        let shift = 8 * (offset & 2);
        self.update(offset, |r| r.shadow = r.shadow & !(0xffff << shift) | u32::from(value) << shift);
    }

    /// Reads 1, 2 or 4 bytes of one dword.
    pub fn read(&self, offset: u16, len: usize) -> ConfigRead {
        let Some(register) = self.dwords.get(usize::from(offset) / 4) else {
            // A conventional function has no extended space: nothing answers there.
            return ConfigRead { value: u32::MAX, live: 0 };
        };
        let shift = 8 * (offset & 3);
        let mask = width_mask(len.min(4) as u8);
        ConfigRead {
            value: (register.shadow & !register.live) >> shift & mask,
            live: register.live >> shift & mask,
        }
    }

    /// Writes 1, 2 or 4 bytes of one dword, and says what has to be written to the function.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Option<ConfigWrite> {
        let shift = 8 * u32::from(offset & 3);
        let mut bytes = [0; 4];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        let len = data.len().min(4) as u8;
        let (value, covered) = (u32::from_le_bytes(bytes) << shift, width_mask(len) << shift);
        let register = self.dwords.get_mut(usize::from(offset) / 4)?;
        let change = register.writable & covered;
        let before = register.shadow;
        register.shadow = before & !change | value & change;
        for limit in register.limits {
            if register.shadow & limit.mask > limit.most {
                register.shadow = register.shadow & !limit.mask | before & limit.mask;
            }
        }
        // A zero does nothing to a bit that a one clears: such bits are the function's business only where the guest
        // wrote ones, so that a write to COMMAND does not become one to STATUS.
        let forward = register.forward & covered & !(register.clear & !value);
        (forward != 0).then_some(ConfigWrite {
            offset,
            len,
            value: value >> shift,
            mask: forward >> shift,
            clear: (register.clear & !forward & covered) >> shift,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(register: Register) -> Registers {
        let mut registers = Registers::new(256);
        registers.update(0x40, |r| *r = register);
        registers
    }

    #[test]
    fn reads_of_every_width_see_their_bytes() {
        let registers = registers(Register { shadow: 0x4433_2211, live: 0xff00_0000, ..Default::default() });
        for (offset, len, value, live) in [
            (0x40, 4, 0x33_2211, 0xff00_0000),
            (0x40, 1, 0x11, 0),
            (0x41, 1, 0x22, 0),
            (0x42, 2, 0x33, 0xff00),
            (0x43, 1, 0, 0xff),
            (0x44, 4, 0, 0),
            (0x100, 4, u32::MAX, 0),
        ] {
            assert_eq!(registers.read(offset, len), ConfigRead { value, live }, "{offset:#x}/{len}");
        }
    }

    #[test]
    fn writes_change_what_is_writable_and_no_more() {
        let mut registers =
            registers(Register { shadow: 0xaaaa_aaaa, writable: 0x00ff_ff00, ..Default::default() });
        assert_eq!(registers.write(0x41, &[0x12, 0x34]), None);
        assert_eq!(registers.dword(0x40).shadow, 0xaa34_12aa);
        assert_eq!(registers.write(0x40, &[0; 4]), None);
        assert_eq!(registers.dword(0x40).shadow, 0xaa00_00aa);
        assert_eq!(registers.write(0x100, &[0; 4]), None);
    }

    #[test]
    fn a_field_with_a_limit_keeps_what_it_has_rather_than_go_above() {
        let limits = [Limit { mask: 0x70, most: 0x20 }, Limit::default()];
        let mut registers =
            registers(Register { shadow: 0x10, writable: 0xff, limits, ..Default::default() });
        for (write, shadow) in [(0x21, 0x21), (0x3f, 0x2f), (0x70, 0x20), (0x00, 0x00), (0x80, 0x80)] {
            registers.write(0x40, &[write]);
            assert_eq!(registers.dword(0x40).shadow, shadow, "{write:#x}");
        }
    }

    #[test]
    fn forwarded_writes_leave_the_other_bits_to_the_function() {
        // A status byte whose low bits are cleared by ones, of which the guest may clear one.
        let mut registers =
            registers(Register { live: 0xff00, forward: 0x0100, clear: 0x0f00, ..Default::default() });
        assert_eq!(registers.write(0x41, &[0xfe]), None, "zeros clear nothing");
        let write = registers.write(0x41, &[0xff]).unwrap();
        assert_eq!((write.offset, write.len, write.mask, write.clear), (0x41, 1, 0x01, 0x0e));
        assert!(!write.is_whole());
        assert_eq!(write.merge(0xff), 0xf1, "bits it must not clear are written as zero, others as they are");
    }
}
