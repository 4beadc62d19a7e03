//! Somebody who is connected to a serial port.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::PollFlags;

/// Bytes that wait for a client. One that lets more of them come loses what comes then.
const MOST_UNREAD: usize = 256 << 10;

/// A client. Nothing here waits, and nothing grows with what it sends or fails to read.
pub struct Client {
    stream: UnixStream,
    unread: VecDeque<u8>,
    /// Bytes that it lost since it last took all.
    lost: u64,
    /// It may send more.
    sends: bool,
    gone: bool,
}

impl Client {
    /// The stream must not block.
    pub fn new(stream: UnixStream) -> Client {
        Client { stream, unread: VecDeque::new(), lost: 0, sends: true, gone: false }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What to wait for; `room` for what it sends.
    pub fn interest(&self, room: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.sends && room);
        flags.set(PollFlags::OUT, !self.unread.is_empty());
        flags
    }

    /// Output of the guest.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.lost > 0 || self.unread.len() + bytes.len() > MOST_UNREAD {
            self.lost += bytes.len() as u64;
        } else {
            self.unread.extend(bytes);
        }
    }

    /// Something is ready. What it sends goes behind `typed`, of which there are to be `most` bytes at most.
    pub fn on(&mut self, flags: PollFlags, typed: &mut VecDeque<u8>, most: usize) {
        if flags.contains(PollFlags::IN) {
            let mut buffer = [0; 4096];
            let room = most.saturating_sub(typed.len()).min(buffer.len());
            match self.stream.read(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) if room == 0 => {}
                // Who says no more may still listen.
                Ok(0) => self.sends = false,
                Ok(length) => typed.extend(buffer.iter().take(length)),
                Err(error) => self.failed(&error),
            }
        }
        if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.gone = true;
        }
    }

    /// Sends what waits, as far as it is taken.
    pub fn write(&mut self) {
        while !self.unread.is_empty() && !self.gone {
            let (bytes, _) = self.unread.as_slices();
            match self.stream.write(bytes) {
                Ok(length) => drop(self.unread.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => self.failed(&error),
            }
            if self.unread.is_empty() && self.lost > 0 {
                let lost = std::mem::take(&mut self.lost);
                let note = format!("\r\nslotpass: {lost} bytes of output were left out here\r\n");
                self.unread.extend(note.into_bytes());
            }
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.gone = true;
        }
    }

    /// It has hung up.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// It has taken everything.
    pub fn is_idle(&self) -> bool {
        self.unread.is_empty()
    }
}
