//! The guest's serial port on this process' stdin and stdout.
//!
//! None of this sets `O_NONBLOCK`: the flag belongs to the open file, which stdin, stdout, stderr and the shell share
//! when they are one terminal. Whether a descriptor is ready is asked of poll instead.

mod escape;
mod input;
mod output;
mod terminal;
pub mod window;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

pub use input::{ConsoleInput, Input};
pub use output::{Output, OutputStop};
pub use terminal::restore;

/// stdin and stdout as a console.
#[derive(Debug)]
pub struct Console {
    pub input: Input,
    pub output: Output,
}

/// Why there is no console.
#[derive(Debug, thiserror::Error)]
#[error("console: cannot {operation}: {source}")]
pub struct Error {
    operation: &'static str,
    source: io::Error,
}

impl Error {
    fn new(operation: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error { operation, source }
    }
}

impl Console {
    /// Takes over stdin and stdout, whatever they are. A terminal as stdin goes to raw mode until the input is dropped or
    /// [`restore`] is called; see [`Input`].
    pub fn stdio() -> Result<Self, Error> {
        let input = Input::new(duplicate(io::stdin().as_fd())?)?;
        let output = Output::new(duplicate(io::stdout().as_fd())?)?;
        Ok(Console { input, output })
    }

    /// Both directions by one socket.
    pub fn socket(stream: &UnixStream) -> Result<Self, Error> {
        let input = Input::new(duplicate(stream.as_fd())?)?;
        let output = Output::new(duplicate(stream.as_fd())?)?;
        Ok(Console { input, output })
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned().map_err(Error::new("duplicate stdin or stdout"))
}

/// poll for one or two descriptors.
fn poll(fds: &mut [libc::pollfd], timeout_ms: libc::c_int) -> io::Result<()> {
    // SAFETY: the array is valid for its length, and poll writes only revents.
    match unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
