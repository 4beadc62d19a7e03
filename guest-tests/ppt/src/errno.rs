//! What a system call fails with.

use std::io;

/// An errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What a system call gives.
pub type Result<T> = std::result::Result<T, Errno>;

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.0)
    }
}

macro_rules! names {
    ($($name:ident)*) => {
        impl Errno {
            $(pub const $name: Errno = Errno(libc::$name);)*
        }
    };
}

names!(EBADF EBUSY EEXIST EFAULT EINVAL EIO EMFILE ENODEV ENOENT ENOMEM ENOSPC ENOTTY ENXIO);
