//! What the guest's serial port sends.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Error, poll};

/// Most bytes in one write. A terminal that poll calls writable takes 256, a pipe 4096; with more, a write could
/// wait where [`OutputStop`] does not reach it.
const CHUNK: usize = 256;

/// The console's output: a terminal, pipe, socket, file or device.
///
/// A reader that is slow makes the writer wait; nothing is lost, also where another owner of a shared terminal has
/// made it non-blocking. When the reader is gone or the disk is full, that is logged once and what follows is
/// discarded: writing never fails, since the guest could do nothing about it.
#[derive(Debug)]
pub struct Output {
    sink: File,
    stop: Arc<EventFd>,
    discarding: bool,
}

/// Ends the waiting of an [`Output`] from another thread.
#[derive(Clone, Debug)]
pub struct OutputStop(Arc<EventFd>);

impl OutputStop {
    /// From now on the output discards what it cannot write at once; a writer that waits comes back. For the end
    /// of a guest, so that a reader that does not read cannot hold it up.
    pub fn stop(&self) {
        // The one error is a counter at its limit, and then it is readable as well.
        let _ = self.0.write(1);
    }
}

impl Output {
    /// Sends output to `fd`.
    pub fn new(fd: OwnedFd) -> Result<Self, Error> {
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::new("make an eventfd"))?;
        Ok(Output { sink: fd.into(), stop: Arc::new(stop), discarding: false })
    }

    /// A handle that ends waiting.
    pub fn stop_handle(&self) -> OutputStop {
        OutputStop(Arc::clone(&self.stop))
    }

    /// Whether output is discarded because it cannot be written.
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Waits until the sink takes bytes; false if it does not and waiting was ended.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [
            libc::pollfd { fd: self.sink.as_raw_fd(), events: libc::POLLOUT, revents: 0 },
            libc::pollfd { fd: self.stop.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        ];
        poll(&mut fds, -1)?;
        let [sink, stop] = fds;
        // A sink at fault counts as ready: the write says what is wrong.
        Ok(sink.revents != 0 || stop.revents == 0)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.wait()? {
            return Ok(bytes.len());
        }
        self.sink.write(bytes.get(..CHUNK).unwrap_or(bytes))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !self.discarding && !bytes.is_empty() {
            match self.write_some(bytes) {
                Ok(length) if length > 0 => return Ok(length),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                result => {
                    let error = result.err().unwrap_or(io::ErrorKind::WriteZero.into());
                    log::error!("console: the guest's output cannot be written and is discarded: {error}");
                    self.discarding = true;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
