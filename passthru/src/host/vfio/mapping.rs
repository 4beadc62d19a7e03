//! A range of a BAR in this process' memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// Largest alignment that helps: the size of a huge page at the second level of the page tables.
const HUGE: usize = 1 << 30;

/// Part of a device's file that is mapped here, until it is dropped.
#[derive(Debug)]
pub struct Mapping {
    address: *mut u8,
    len: usize,
}

// SAFETY: the memory belongs to the mapping until it is dropped; it is only handed to the kernel or accessed by volatile
// loads and stores, which may come from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` from `file_offset` on. `bar_offset` is where that is in the BAR: the address is made
    /// congruent to it, up to 1 GiB, so that huge pages of the guest's, the process' and the IOMMU's tables can lie
    /// on each other.
    pub fn new(file: &File, file_offset: u64, bar_offset: u64, len: u64) -> io::Result<Mapping> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let len = usize::try_from(len).map_err(|_| invalid())?;
        let align = len.checked_next_power_of_two().ok_or_else(invalid)?.clamp(4096, HUGE);
        let space = len.checked_add(align).ok_or_else(invalid)?;
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let reserved = unsafe { libc::mmap(ptr::null_mut(), space, libc::PROT_NONE, anonymous, -1, 0) };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = reserved as usize;
        let wanted = (bar_offset % align as u64) as usize;
        let skip = (wanted + align - start % align) % align;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let offset = libc::off_t::try_from(file_offset).map_err(|_| invalid());
        let mapped = offset.and_then(|offset| {
            // SAFETY: `skip` is less than `align`, so the range is inside the reservation above, which nobody uses.
            let address =
                unsafe { libc::mmap(reserved.byte_add(skip), len, prot, flags, file.as_raw_fd(), offset) };
            if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
        });
        let Ok(address) = mapped else {
            // SAFETY: the whole reservation, which nobody uses.
            unsafe { libc::munmap(reserved, space) };
            return mapped.map(|address| Mapping { address, len });
        };
        let after = skip + len;
        // SAFETY: what the reservation has before and behind the mapping.
        unsafe {
            if skip > 0 {
                libc::munmap(reserved, skip);
            }
            if after < space {
                libc::munmap(reserved.byte_add(after), space - after);
            }
        }
        Ok(Mapping { address, len })
    }

    /// Where it is.
    pub fn address(&self) -> *mut u8 {
        self.address
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own.
        unsafe { libc::munmap(self.address.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::pieces::{self, Backing, MsixReads, MsixStructures};
    use crate::function::test_support::report;
    use crate::host::{BarRange, Description, Region};
    use crate::pci::bar::{Bar, BarKind};

    /// A guest address is a multiple of the BAR's size, so what is congruent to the offset in the BAR is to the guest's too.
    #[test]
    fn all_parts_of_a_bar_of_32_gib_lie_as_huge_pages_need_it() {
        const GIB: u64 = 1 << 30;
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap();
        file.as_file().set_len(32 * GIB).unwrap();
        let mut description = Description::default();
        description.bars[2] = Region { size: 32 * GIB, mappable: vec![0..32 * GIB], accessible: true };
        let bar = Bar { index: 2, kind: BarKind::Memory64 { prefetchable: true }, size: 32 * GIB };
        let range = |offset, len| BarRange { bar: 2, offset, len };
        let msix = MsixStructures {
            table: range(16 * GIB + 0x2000, 0x8000),
            pending: range(16 * GIB + 0xa000, 0x100),
        };
        let pieces = pieces::plan(&[bar], &description, Some(&msix), MsixReads::default(), &[], &report());
        let mapped = pieces.iter().filter(|piece| piece.backing == Backing::Mapped);
        let mapped: Vec<BarRange> = mapped.map(|piece| piece.range).collect();
        assert_eq!(mapped.iter().map(|range| range.len).sum::<u64>(), 32 * GIB - 0x9000);
        for range in mapped {
            let mapping = Mapping::new(file.as_file(), range.offset, range.offset, range.len).unwrap();
            assert_eq!((mapping.address() as u64).wrapping_sub(range.offset) % GIB, 0, "{range}");
        }
    }

    #[test]
    fn addresses_are_congruent_to_the_offset_in_the_bar() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        for (bar_offset, len) in [(0u64, 4u64 << 20), (0x1000, 0x3000), (2 << 20, 4 << 20), (0, 0x1000)] {
            let mapping = Mapping::new(file.as_file(), bar_offset, bar_offset, len).unwrap();
            let align = len.next_power_of_two();
            assert_eq!(mapping.address() as u64 % align, bar_offset % align);
        }
        assert!(Mapping::new(file.as_file(), 0x10, 0, 0x1000).is_err(), "an offset in the middle of a page");
        assert!(Mapping::new(file.as_file(), 0, 0, u64::MAX).is_err());
    }
}
