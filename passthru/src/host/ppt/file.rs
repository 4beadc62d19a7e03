//! An open file, and requests to it.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::abi::Request;
use super::error::OpenError;
use super::sys::Sys;

/// A file that is open in a [`Sys`], and closed with this unless it is somebody else's.
pub(super) struct File<S: Sys> {
    sys: Arc<S>,
    fd: i32,
    is_own: bool,
}

impl<S: Sys> File<S> {
    pub(super) fn open(sys: Arc<S>, path: &Path) -> Result<io::Result<File<S>>, OpenError> {
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| OpenError::Path { path: path.to_owned() })?;
        Ok(sys.open(&name).map(|fd| File { sys, fd, is_own: true }))
    }

    /// Somebody else's, who keeps it open as long as this lives.
    pub(super) fn borrowed(sys: Arc<S>, fd: i32) -> File<S> {
        File { sys, fd, is_own: false }
    }

    pub(super) fn fd(&self) -> i32 {
        self.fd
    }

    pub(super) fn sys(&self) -> &Arc<S> {
        &self.sys
    }

    /// A request, with what it reads and writes.
    pub(super) fn call<T>(&self, request: Request<T>, argument: &mut T) -> io::Result<i32> {
        // SAFETY: the argument is what the request says that it takes.
        unsafe { self.sys.ioctl(self.fd, request.number(), std::ptr::from_mut(argument).cast()) }
    }
}

impl<S: Sys> Drop for File<S> {
    fn drop(&mut self) {
        if self.is_own {
            self.sys.close(self.fd);
        }
    }
}
