//! Whether this process may open a file, without opening it: to open a group's file would keep others from it.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What would come of opening a file for reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may be opened.
    Granted,
    /// There is no such file.
    Absent,
    /// This user may not.
    Denied,
}

/// Asks with the effective user, whom opening counts for too.
pub fn of(path: &Path) -> Access {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return Access::Absent };
    // SAFETY: the kernel reads a string that ends with a zero byte.
    let done =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::R_OK | libc::W_OK, libc::AT_EACCESS) };
    match done {
        0 => Access::Granted,
        _ if io::Error::last_os_error().kind() == io::ErrorKind::NotFound => Access::Absent,
        _ => Access::Denied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_may_be_opened_or_are_not_there() {
        assert_eq!(of(Path::new("/dev/null")), Access::Granted);
        assert_eq!(of(Path::new("/no/such/file")), Access::Absent);
        assert_eq!(of(Path::new("/dev/null/below")), Access::Denied);
        assert_eq!(of(Path::new("a\0b")), Access::Absent);
    }
}
