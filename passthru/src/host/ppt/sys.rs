//! The system calls through which everything here reaches illumos' kernel.

use std::ffi::{CStr, c_void};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// `open`, `ioctl`, `mmap` and `close`, as illumos has them: files are numbers, requests are plain constants without size or
/// direction, and arguments are pointers.
///
/// [`Kernel`] calls the kernel. Another implementation can answer in its place, in whatever process it likes.
pub trait Sys: Send + Sync + 'static {
    /// `open(2)` of `path` for reading and writing, not inherited by programs that this one starts.
    fn open(&self, path: &CStr) -> io::Result<i32>;

    /// `ioctl(2)`; gives what it returns when that is no error.
    ///
    /// # Safety
    /// `argument` points to what `request` reads and writes, or is null where it does neither.
    unsafe fn ioctl(&self, fd: i32, request: i32, argument: *mut c_void) -> io::Result<i32>;

    /// `mmap(2)` of `len` bytes of the file from `offset`, shared, to read and write.
    fn mmap(&self, fd: i32, len: usize, offset: u64) -> io::Result<NonNull<u8>>;

    /// `munmap(2)`.
    ///
    /// # Safety
    /// Exactly this is mapped by [`Sys::mmap`], and nobody uses it any more.
    unsafe fn munmap(&self, address: NonNull<u8>, len: usize);

    /// `close(2)`.
    fn close(&self, fd: i32);
}

impl<S: Sys + ?Sized> Sys for Arc<S> {
    fn open(&self, path: &CStr) -> io::Result<i32> {
        (**self).open(path)
    }

    unsafe fn ioctl(&self, fd: i32, request: i32, argument: *mut c_void) -> io::Result<i32> {
        // SAFETY: the caller's promise is the same.
        unsafe { (**self).ioctl(fd, request, argument) }
    }

    fn mmap(&self, fd: i32, len: usize, offset: u64) -> io::Result<NonNull<u8>> {
        (**self).mmap(fd, len, offset)
    }

    unsafe fn munmap(&self, address: NonNull<u8>, len: usize) {
        // SAFETY: the caller's promise is the same.
        unsafe { (**self).munmap(address, len) }
    }

    fn close(&self, fd: i32) {
        (**self).close(fd);
    }
}

/// The kernel that this program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Sys for Kernel {
    fn open(&self, path: &CStr) -> io::Result<i32> {
        // SAFETY: the path is a C string.
        done(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })
    }

    unsafe fn ioctl(&self, fd: i32, request: i32, argument: *mut c_void) -> io::Result<i32> {
        // The type of a request differs between systems; all of them fit.
        // SAFETY: the caller promises that the argument is what the request wants.
        done(unsafe { libc::ioctl(fd, request as _, argument) })
    }

    fn mmap(&self, fd: i32, len: usize, offset: u64) -> io::Result<NonNull<u8>> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping at an address of the kernel's choice touches nothing that is there.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
    }

    unsafe fn munmap(&self, address: NonNull<u8>, len: usize) {
        // SAFETY: the caller promises that this is a mapping, and that nobody uses it.
        unsafe { libc::munmap(address.as_ptr().cast(), len) };
    }

    fn close(&self, fd: i32) {
        // SAFETY: closing a number that is not open is an error without effect.
        unsafe { libc::close(fd) };
    }
}

fn done(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
