//! One contiguous range of guest RAM and the host memory behind it.

use std::io;
use std::ptr::NonNull;

use vm_memory::guest_memory::Result as MemoryResult;
use vm_memory::{
    GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, GuestUsize,
    MemoryRegionAddress, VolatileSlice,
};

use super::HUGE_PAGE;

/// A range of guest RAM backed by private anonymous memory, host and guest address equal modulo 2 MiB, so that one
/// huge page of the host can be one huge page of the guest and of the IOMMU.
#[derive(Debug)]
pub struct RamRegion {
    start: GuestAddress,
    mapping: Mapping,
}

impl RamRegion {
    /// Maps `length` bytes, a multiple of 2 MiB, for guest address `start`, likewise a multiple, as transparent
    /// huge pages where the host has them.
    pub(super) fn transparent(start: u64, length: usize) -> io::Result<Self> {
        let mapping = Mapping::aligned(length)?;
        // A host without transparent huge pages answers EINVAL; small pages then do.
        if let Err(error) = mapping.advise(libc::MADV_HUGEPAGE) {
            log::debug!("guest memory: no transparent huge pages: {error}");
        }
        Self::new(start, mapping)
    }

    /// The same from the host's pool of reserved 2 MiB pages.
    pub(super) fn reserved(start: u64, length: usize) -> io::Result<Self> {
        Self::new(start, Mapping::reserved(length)?)
    }

    fn new(start: u64, mapping: Mapping) -> io::Result<Self> {
        // Guest RAM would make a core file as large as the guest, with the guest's secrets in it.
        mapping.advise(libc::MADV_DONTDUMP)?;
        // After a fork the first write would move this process to a copy, away from the pages that devices DMA to.
        mapping.advise(libc::MADV_DONTFORK)?;
        Ok(RamRegion { start: GuestAddress(start), mapping })
    }

    /// Bytes.
    pub(super) fn length(&self) -> usize {
        self.mapping.length
    }

    /// Takes from the host what is not there yet of up to `length` bytes from `offset` on, both multiples of the page size.
    pub(super) fn populate(&self, offset: usize, length: usize) -> io::Result<()> {
        self.mapping.populate(offset, length)
    }

    /// Host address of the region's first byte.
    pub fn host_address(&self) -> NonNull<u8> {
        self.mapping.address
    }
}

impl GuestMemoryRegion for RamRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.mapping.length as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) {}

    fn get_host_address(&self, addr: MemoryRegionAddress) -> MemoryResult<*mut u8> {
        let offset = self.check_address(addr).ok_or(GuestMemoryError::InvalidBackendAddress)?;
        Ok(self.mapping.address.as_ptr().wrapping_add(offset.0 as usize))
    }

    fn get_slice(&self, offset: MemoryRegionAddress, count: usize) -> MemoryResult<VolatileSlice<'_>> {
        let offset = offset.0 as usize;
        match offset.checked_add(count) {
            // SAFETY: offset..offset + count lies in the mapping, which lives as long as self; guest memory is
            // only accessed through volatile slices.
            Some(end) if end <= self.mapping.length => unsafe {
                Ok(VolatileSlice::new(self.mapping.address.as_ptr().add(offset), count))
            },
            _ => Err(GuestMemoryError::InvalidBackendAddress),
        }
    }
}

impl GuestMemoryRegionBytes for RamRegion {}

/// Anonymous memory of this process, unmapped on drop.
#[derive(Debug)]
struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to no thread; it is accessed only by volatile accesses, guest and host at once.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed pages at a multiple of 2 MiB.
    ///
    /// The kernel promises no more than a page's alignment, so this maps 2 MiB more and gives the ends back.
    fn aligned(length: usize) -> io::Result<Self> {
        let huge_page = HUGE_PAGE as usize;
        let padded = length.checked_add(huge_page).ok_or(io::ErrorKind::InvalidInput)?;
        let start = map(padded, 0)?;
        let head = start.align_offset(huge_page);
        let tail = padded - head - length;
        let address = start.wrapping_add(head);
        unmap(start, head);
        unmap(address.wrapping_add(length), tail);
        Self::new(address, length)
    }

    /// Pages of the host's pool of 2 MiB pages, promised to this mapping now and taken when they are touched.
    fn reserved(length: usize) -> io::Result<Self> {
        let address = map(length, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)?;
        Self::new(address, length)
    }

    fn new(address: *mut u8, length: usize) -> io::Result<Self> {
        let address = NonNull::new(address).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Mapping { address, length })
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is this mapping, and the advices used here change no content.
        match unsafe { libc::madvise(self.address.as_ptr().cast(), self.length, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn populate(&self, offset: usize, length: usize) -> io::Result<()> {
        let length = length.min(self.length.saturating_sub(offset));
        let start = self.address.as_ptr().wrapping_add(offset);
        // SAFETY: the range lies in this mapping, and this changes no content.
        match unsafe { libc::madvise(start.cast(), length, libc::MADV_POPULATE_WRITE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.address.as_ptr(), self.length);
    }
}

fn map(length: usize, flags: libc::c_int) -> io::Result<*mut u8> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}

/// Unmaps part of a mapping made by [`map`]; nothing for length 0.
fn unmap(address: *mut u8, length: usize) {
    if length != 0 {
        // SAFETY: called only for parts of a mapping that nothing refers to: the ends of a new one, or all of one
        // that is dropped.
        unsafe { libc::munmap(address.cast(), length) };
    }
}
