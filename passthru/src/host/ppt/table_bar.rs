//! The BAR with the MSI-X table, mapped in this process: `ppt` maps that one and no other, for the registers that share
//! pages with the table.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::{AtomicAccess, Bytes, VolatileSlice};

use super::access::split;
use super::sys::Sys;

/// The mapped BAR.
pub(super) struct TableBar<S: Sys> {
    sys: Arc<S>,
    address: NonNull<u8>,
    len: usize,
    bar: u8,
}

// SAFETY: the mapping is a device's memory, which is only accessed by volatile loads and stores; any thread may.
unsafe impl<S: Sys> Send for TableBar<S> {}
// SAFETY: as above.
unsafe impl<S: Sys> Sync for TableBar<S> {}

impl<S: Sys> TableBar<S> {
    /// Maps all of BAR `bar`, `size` bytes, of an open function.
    pub(super) fn map(sys: Arc<S>, fd: i32, bar: u8, size: u64) -> io::Result<TableBar<S>> {
        let len = usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let address = sys.mmap(fd, len, 0)?;
        Ok(TableBar { sys, address, len, bar })
    }

    pub(super) fn bar(&self) -> u8 {
        self.bar
    }

    /// Reads bytes, in aligned accesses of up to 8.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut rest = data;
        for (at, width) in split(offset, rest.len(), self.len as u64, 8)? {
            let at = usize::try_from(at).map_err(io::Error::other)?;
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(width);
            match part {
                [byte] => *byte = self.load::<u8>(at)?,
                [_, _] => part.copy_from_slice(&self.load::<u16>(at)?.to_ne_bytes()),
                [_, _, _, _] => part.copy_from_slice(&self.load::<u32>(at)?.to_ne_bytes()),
                _ => part.copy_from_slice(&self.load::<u64>(at)?.to_ne_bytes()),
            }
            rest = behind;
        }
        Ok(())
    }

    /// Writes bytes, in aligned accesses of up to 8.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        for (at, width) in split(offset, data.len(), self.len as u64, 8)? {
            let at = usize::try_from(at).map_err(io::Error::other)?;
            let (part, behind) = rest.split_at(width);
            match *part {
                [value] => self.store(at, value)?,
                [a, b] => self.store(at, u16::from_ne_bytes([a, b]))?,
                [a, b, c, d] => self.store(at, u32::from_ne_bytes([a, b, c, d]))?,
                [a, b, c, d, e, f, g, h] => self.store(at, u64::from_ne_bytes([a, b, c, d, e, f, g, h]))?,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
            rest = behind;
        }
        Ok(())
    }

    fn load<T: AtomicAccess>(&self, at: usize) -> io::Result<T> {
        self.slice().load(at, std::sync::atomic::Ordering::Relaxed).map_err(io::Error::other)
    }

    fn store<T: AtomicAccess>(&self, at: usize, value: T) -> io::Result<()> {
        self.slice().store(value, at, std::sync::atomic::Ordering::Relaxed).map_err(io::Error::other)
    }

    fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: it is mapped as long as this is there, and everybody accesses it as volatile memory.
        unsafe { VolatileSlice::new(self.address.as_ptr(), self.len) }
    }
}

impl<S: Sys> Drop for TableBar<S> {
    fn drop(&mut self) {
        // SAFETY: this is what was mapped, and accesses borrow this.
        unsafe { self.sys.munmap(self.address, self.len) };
    }
}
