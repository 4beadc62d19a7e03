//! The caller's memory, as a kernel copies it in and out: an address that is not there is EFAULT.

use std::ffi::c_void;

use crate::errno::{Errno, Result};

/// The argument of an ioctl.
#[derive(Clone, Copy, Debug)]
pub struct UserMemory(*mut c_void);

impl UserMemory {
    /// # Safety
    /// What is there, if anything is, may be read and overwritten as the request says.
    pub unsafe fn new(address: *mut c_void) -> UserMemory {
        UserMemory(address)
    }

    /// Copies its first bytes in.
    pub fn read<const SIZE: usize>(&self) -> Result<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        let here = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: SIZE };
        let there = libc::iovec { iov_base: self.0, iov_len: SIZE };
        // SAFETY: one part here, which is `bytes`, and one there, which the kernel checks.
        done::<SIZE>(unsafe { libc::process_vm_readv(libc::getpid(), &here, 1, &there, 1, 0) })?;
        Ok(bytes)
    }

    /// Copies out to its first bytes.
    pub fn write<const SIZE: usize>(&self, bytes: &[u8; SIZE]) -> Result<()> {
        let here = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: SIZE };
        let there = libc::iovec { iov_base: self.0, iov_len: SIZE };
        // SAFETY: one part here, which is `bytes` and only read, and one there, which the kernel checks and which may be
        // overwritten, as whoever made this promised.
        done::<SIZE>(unsafe { libc::process_vm_writev(libc::getpid(), &here, 1, &there, 1, 0) })
    }
}

/// Copying part of it is as bad as none.
fn done<const SIZE: usize>(copied: isize) -> Result<()> {
    if usize::try_from(copied) == Ok(SIZE) { Ok(()) } else { Err(Errno::EFAULT) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::Edge;

    fn at(edge: &Edge, offset: usize) -> UserMemory {
        // SAFETY: the page belongs to the test.
        unsafe { UserMemory::new(edge.at(offset)) }
    }

    #[test]
    fn what_is_there_is_copied() {
        let page = Edge::new(libc::PROT_READ | libc::PROT_WRITE);
        at(&page, 4088).write(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        assert_eq!(at(&page, 4088).read::<8>(), Ok([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(at(&page, 0).read::<4>(), Ok([0; 4]));
    }

    #[test]
    fn what_is_not_there_is_efault() {
        let (page, constant) = (Edge::new(libc::PROT_READ | libc::PROT_WRITE), Edge::new(libc::PROT_READ));
        // SAFETY: nothing is there.
        let null = unsafe { UserMemory::new(std::ptr::null_mut()) };
        for (name, address) in [("null", null), ("the end", at(&page, 4092)), ("behind it", at(&page, 4096))]
        {
            assert_eq!(address.read::<8>(), Err(Errno::EFAULT), "{name}");
            assert_eq!(address.write(&[0; 8]), Err(Errno::EFAULT), "{name}");
        }
        assert_eq!(at(&constant, 0).read::<8>(), Ok([0; 8]));
        assert_eq!(at(&constant, 0).write(&[0; 8]), Err(Errno::EFAULT), "not to be written");
    }
}
