//! Memory of this process that a guest reads in the place of a part of a BAR.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vm_memory::{MmapRegion, VolatileMemory};

use crate::host::BarRange;

/// Whole pages that the guest may read while they are written here, all zero at first. They stay allocated as long as a
/// clone of this is there.
#[derive(Clone, Debug)]
pub struct ReadOnlyPages {
    range: BarRange,
    memory: Arc<MmapRegion>,
}

impl ReadOnlyPages {
    /// Pages in the place of `range`, which is a multiple of the page size long.
    pub fn new(range: BarRange) -> io::Result<ReadOnlyPages> {
        let len = usize::try_from(range.len).map_err(io::Error::other)?;
        let memory = Arc::new(MmapRegion::new(len).map_err(io::Error::other)?);
        let pages = ReadOnlyPages { range, memory };
        // The kernel would give a guest that reads first the page of zeros that it has for all, and take it away again from
        // every vCPU with the first write here.
        for at in (range.offset..range.offset.saturating_add(range.len)).step_by(4096) {
            pages.store(at, 0);
        }
        Ok(pages)
    }

    /// The part of the BAR.
    pub fn range(&self) -> BarRange {
        self.range
    }

    /// Where they are in this process.
    pub(super) fn address(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// Is dropped when nobody has them any more.
    #[cfg(test)]
    pub(super) fn allocated(&self) -> std::sync::Weak<MmapRegion> {
        Arc::downgrade(&self.memory)
    }

    /// The 8 bytes at `offset` of the BAR, as the guest reads them.
    #[cfg(test)]
    pub(crate) fn word(&self, offset: u64) -> Option<u64> {
        let word = self.memory.get_atomic_ref::<AtomicU64>(self.at(offset)?).ok()?;
        Some(u64::from_le(word.load(Ordering::Relaxed)))
    }

    /// Stores the dword at `offset` of the BAR, which is a multiple of 4; nothing happens outside of the pages.
    pub fn store(&self, offset: u64, value: u32) {
        let dword = self.at(offset).and_then(|at| self.memory.get_atomic_ref::<AtomicU32>(at).ok());
        if let Some(dword) = dword {
            dword.store(value.to_le(), Ordering::Release);
        }
    }

    /// Sets or clears bits of the 8 bytes at `offset` of the BAR, which is a multiple of 8.
    pub fn change(&self, offset: u64, bits: u64, set: bool) {
        let word = self.at(offset).and_then(|at| self.memory.get_atomic_ref::<AtomicU64>(at).ok());
        if let Some(word) = word {
            match set {
                true => word.fetch_or(bits.to_le(), Ordering::AcqRel),
                false => word.fetch_and(!bits.to_le(), Ordering::AcqRel),
            };
        }
    }

    fn at(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.range.offset)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_stored_inside_and_nowhere_else() {
        let pages = ReadOnlyPages::new(BarRange { bar: 4, offset: 0x2000, len: 0x2000 }).unwrap();
        let read = |offset: u64| pages.word(0x2000 + offset).unwrap();
        pages.store(0x3ffc, 0x1234_5678);
        pages.change(0x2008, 1 << 63 | 1, true);
        pages.change(0x2008, 1, false);
        for (offset, value) in [(0x1ffc, 1), (0x4000, 1), (0, 1), (!3, 1)] {
            pages.store(offset, value);
            pages.change(offset & !7, 1, true);
        }
        assert_eq!((read(0x1ff8), read(8)), (0x1234_5678 << 32, 1 << 63));
        assert_eq!((0..0x2000).step_by(8).filter(|offset| read(*offset) != 0).count(), 2);
        assert_eq!((pages.address() as usize % 4096, pages.range().offset), (0, 0x2000));
    }
}
