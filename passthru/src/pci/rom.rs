//! The contents of an expansion ROM, given instead of a function's own (PCI Firmware 3.3 §5.1).

use std::fmt;
use std::sync::Arc;

use super::bar::ROM_SIZES;

/// What a guest reads from an expansion ROM.
#[derive(Clone, PartialEq, Eq)]
pub struct RomImage(Arc<[u8]>);

/// Why bytes are no ROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RomError {
    /// There are none.
    #[error("it is empty")]
    Empty,
    /// More than a BAR of a ROM can hold.
    #[error("it has {0} bytes; an expansion ROM has 16 MiB at most")]
    TooLarge(u64),
    /// Not how a ROM begins.
    #[error("it does not begin with 55 AA, as every expansion ROM does; is it the right file?")]
    Signature,
}

impl RomImage {
    /// Takes the contents; their size need not be one that a BAR can have.
    pub fn new(contents: Vec<u8>) -> Result<RomImage, RomError> {
        let len = contents.len() as u64;
        if len == 0 {
            return Err(RomError::Empty);
        }
        if len > *ROM_SIZES.end() {
            return Err(RomError::TooLarge(len));
        }
        if !contents.starts_with(&[0x55, 0xaa]) {
            return Err(RomError::Signature);
        }
        Ok(RomImage(contents.into()))
    }

    /// Size of the BAR that holds it, in bytes.
    pub fn bar_size(&self) -> u64 {
        (self.0.len() as u64).next_power_of_two().max(*ROM_SIZES.start())
    }

    /// Reads part of it; all-ones behind its end.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        data.fill(0xff);
        for (to, byte) in data.iter_mut().zip(self.0.iter().skip(from)) {
            *to = *byte;
        }
    }
}

impl fmt::Debug for RomImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ROM of {:#x} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(len: usize) -> Result<RomImage, RomError> {
        let mut contents: Vec<u8> = (0..len).map(|at| at as u8).collect();
        contents.iter_mut().zip([0x55, 0xaa]).for_each(|(to, from)| *to = from);
        RomImage::new(contents)
    }

    #[test]
    fn the_bar_is_the_next_size_that_there_is() {
        for (len, size) in
            [(2, 0x800), (0x800, 0x800), (0x801, 0x1000), (0x9c00, 0x1_0000), (1 << 24, 1 << 24)]
        {
            assert_eq!(image(len).unwrap().bar_size(), size, "{len:#x}");
        }
        assert_eq!(image(0), Err(RomError::Empty));
        assert_eq!(image((1 << 24) + 1), Err(RomError::TooLarge((1 << 24) + 1)));
        assert_eq!(image(1), Err(RomError::Signature));
        assert_eq!(RomImage::new(vec![0x7f, b'E', b'L', b'F']), Err(RomError::Signature));
    }

    #[test]
    fn reads_end_in_ones() {
        let rom = image(6).unwrap();
        for (offset, want) in
            [(0, [0x55, 0xaa, 2, 3]), (4, [4, 5, 0xff, 0xff]), (6, [0xff; 4]), (u64::MAX, [0xff; 4])]
        {
            let mut data = [0; 4];
            rom.read(offset, &mut data);
            assert_eq!(data, want, "{offset:#x}");
        }
    }
}
