//! One client: bytes in, requests out, answers back. Nothing here waits, and nothing grows with what a client sends or
//! fails to read.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use log::debug;

use super::answer::ConnectionId;
use super::protocol::{self, Command, Id, LONGEST_LINE, Refusal, RefusalKind};

/// Requests of one client that are not answered yet, at most: it is not read from while there are so many.
pub const MOST_OPEN: usize = 8;
/// Bytes that wait for a client to read them, beyond which no more of its requests are read.
const MOST_UNREAD: usize = 64 << 10;

/// Reads at a time, so that a client that never stops does not keep the event loop to itself.
const MOST_READS: usize = 16;

/// A client.
pub struct Connection {
    pub id: ConnectionId,
    stream: UnixStream,
    /// What came and is not a whole line yet, or waits for an answer to be given before it is read.
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Requests without an answer.
    open: usize,
    /// Nothing more will come, or be read.
    ended: bool,
    /// The stream is broken.
    broken: bool,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Connection {
    /// Greets a client. The stream must not block.
    pub fn new(id: ConnectionId, stream: UnixStream) -> Connection {
        let output = protocol::greeting().into_bytes().into();
        Connection { id, stream, input: Vec::new(), output, open: 0, ended: false, broken: false }
    }

    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Says something, and hears nothing any more.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.output.extend(protocol::answer(None, &Err(refusal)).into_bytes());
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.input = Vec::new();
    }

    /// Reads what is there, as far as it is wanted, and hands requests on.
    pub fn read(&mut self, mut request: impl FnMut(Option<Id>, Command)) {
        let mut buffer = [0; 4096];
        for _ in 0..MOST_READS {
            if !self.interest().read {
                return;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    // A client that says no more may still wait for answers.
                    self.ended = true;
                    break;
                }
                Ok(count) => self.input.extend(buffer.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    debug!("control client {}: {error}", self.id);
                    self.broken = true;
                    break;
                }
            }
            self.take_lines(&mut request);
        }
    }

    /// Hands on the requests that came and had to wait.
    fn take_lines(&mut self, request: &mut impl FnMut(Option<Id>, Command)) {
        while self.has_room() {
            let end = self.input.iter().take(LONGEST_LINE + 1).position(|byte| *byte == b'\n');
            let Some(end) = end else {
                if self.input.len() > LONGEST_LINE {
                    let what = format!("a line of more than {LONGEST_LINE} bytes");
                    self.refuse(Refusal::new(RefusalKind::TooLong, what));
                }
                return;
            };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            match protocol::read(line) {
                (id, Ok(command)) => {
                    self.open += 1;
                    request(id, command);
                }
                (id, Err(refusal)) => {
                    self.output.extend(protocol::answer(id.as_ref(), &Err(refusal)).into_bytes());
                }
            }
        }
    }

    /// An answer to one of its requests.
    pub fn answer(&mut self, line: String, mut request: impl FnMut(Option<Id>, Command)) {
        self.open = self.open.saturating_sub(1);
        self.output.extend(line.into_bytes());
        self.take_lines(&mut request);
    }

    /// Sends what waits, as far as the client takes it.
    pub fn write(&mut self, mut request: impl FnMut(Option<Id>, Command)) {
        while !self.output.is_empty() && !self.broken {
            let (bytes, _) = self.output.as_slices();
            match self.stream.write(bytes) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    debug!("control client {}: {error}", self.id);
                    self.broken = true;
                }
            }
        }
        self.take_lines(&mut request);
    }

    /// The client is gone: nobody reads what is answered.
    pub fn hang_up(&mut self) {
        self.broken = true;
    }

    fn has_room(&self) -> bool {
        self.open < MOST_OPEN && self.output.len() < MOST_UNREAD
    }

    /// What to wait for now.
    pub fn interest(&self) -> Interest {
        Interest {
            read: !self.ended && !self.broken && self.has_room() && self.input.len() <= LONGEST_LINE,
            write: !self.broken && !self.output.is_empty(),
        }
    }

    /// Nothing is left to be done for this client.
    pub fn is_done(&self) -> bool {
        let waits = !self.output.is_empty() || self.open > 0 || self.input.contains(&b'\n');
        self.broken || (self.ended && !waits)
    }
}
