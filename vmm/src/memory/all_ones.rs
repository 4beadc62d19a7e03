//! Memory that reads all-ones, however much of it there is.

use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::HUGE_PAGE;

const ALIAS: usize = HUGE_PAGE as usize;
/// Written at once.
static CHUNK: [u8; 64 << 10] = [0xff; 64 << 10];

/// A read-only range of this process whose bytes are all 0xff: 2 MiB of memory that appear over and over.
#[derive(Debug)]
pub struct AllOnes {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to no thread, and nobody can write to it.
unsafe impl Send for AllOnes {}
// SAFETY: as above.
unsafe impl Sync for AllOnes {}

impl AllOnes {
    /// A range of `length` bytes, a multiple of 2 MiB.
    pub fn new(length: u64) -> io::Result<AllOnes> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        let file = memfd_create("all-ones", MemfdFlags::CLOEXEC)?;
        for chunk in 0..ALIAS / CHUNK.len() {
            write(&file, chunk * CHUNK.len())?;
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), length, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        // From here on it is unmapped when anything fails.
        let ones = AllOnes { start, length };
        for offset in (0..length).step_by(ALIAS) {
            let here: *mut c_void = start.as_ptr().wrapping_add(offset).cast();
            let length = ALIAS.min(length - offset);
            // SAFETY: this replaces part of the mapping just made, which nothing refers to yet.
            unsafe { mmap(here, length, ProtFlags::READ, MapFlags::SHARED | MapFlags::FIXED, &file, 0)? };
        }
        Ok(ones)
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    /// Address in this process of the byte at `offset`.
    pub fn at(&self, offset: u64) -> *mut u8 {
        self.start.as_ptr().wrapping_add(offset as usize)
    }
}

fn write(file: &OwnedFd, mut offset: usize) -> io::Result<()> {
    let end = offset + CHUNK.len();
    while offset < end {
        let left = CHUNK.get(..end - offset).unwrap_or_default();
        match rustix::io::pwrite(file, left, offset as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => offset += written,
        }
    }
    Ok(())
}

impl Drop for AllOnes {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more; whoever took an address of it has given it back.
        let done = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        if let Err(error) = done {
            log::debug!("unmapping {} bytes of all-ones: {error}", self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_all_ones() {
        let ones = AllOnes::new(5 * HUGE_PAGE).unwrap();
        for offset in (0..ones.length()).step_by(64 << 10).chain([1, HUGE_PAGE - 1, 5 * HUGE_PAGE - 1]) {
            // SAFETY: inside the mapping.
            assert_eq!(unsafe { ones.at(offset).read_volatile() }, 0xff, "{offset:#x}");
        }
    }

    #[test]
    fn it_takes_a_little_memory_only() {
        let _ones = AllOnes::new(256 << 20).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let shared = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap();
        let kib: u64 = shared.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 64 << 10, "{kib} KiB");
    }
}
