//! Parts of a kernel file and the guest addresses they go to.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::error::{Defect, Error};
use super::image::Image;
use super::placement::check_free;
use crate::memory::{GuestMemory, MapEntry};

/// `file_size` bytes at `offset` in the file go to guest address `address`; zeros follow up to `memory_size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub offset: u64,
    pub file_size: u64,
    pub address: u64,
    pub memory_size: u64,
}

impl Segment {
    /// Guest addresses, once [`Segment::check`] has passed.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.memory_size)
    }

    /// Fails unless the file has the segment's bytes and its addresses do not wrap.
    pub fn check(&self, image: &Image) -> Result<(), Error> {
        image.check(self.offset, self.file_size)?;
        let wraps = self.address.checked_add(self.memory_size).is_none();
        if wraps || self.memory_size < self.file_size {
            return Err(image.defective(Defect::ProgramHeader));
        }
        Ok(())
    }
}

/// Fails unless there is RAM for all segments; gives the end of the highest.
pub(super) fn place(segments: &[Segment], image: &Image, map: &[MapEntry]) -> Result<u64, Error> {
    for segment in segments {
        check_free(image, map, segment.range())?;
    }
    Ok(segments.iter().map(|segment| segment.range().end).max().unwrap_or(0))
}

/// Copies and zeroes all segments, which [`place`] has passed.
pub(super) fn load(segments: &[Segment], image: &mut Image, memory: &GuestMemory) -> Result<(), Error> {
    for segment in segments {
        image.copy(segment.offset, segment.file_size, memory, segment.address)?;
        zero(memory, segment.address + segment.file_size..segment.range().end)
            .map_err(|source| Error::Memory { what: "the kernel's zeroed memory", source })?;
    }
    Ok(())
}

/// Zeroes guest memory. At start it is zero already, at a guest reset it is not.
pub(super) fn zero(memory: &GuestMemory, range: Range<u64>) -> Result<(), GuestMemoryError> {
    const ZEROS: [u8; 0x1000] = [0; 0x1000];
    let mut address = range.start;
    while address < range.end {
        let length = (range.end - address).min(ZEROS.len() as u64);
        memory.write_slice(ZEROS.get(..length as usize).unwrap_or_default(), GuestAddress(address))?;
        address += length;
    }
    Ok(())
}
