//! What the user types, or what a pipe or file holds, for the guest's serial port.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::escape::{EscapeFilter, HELP, Request};
use super::terminal::{self, RawMode};
use super::{Error, poll};

/// Input for the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum ConsoleInput {
    /// Bytes for the guest's serial port; may be none.
    Bytes(Vec<u8>),
    /// Nothing more will come: take the descriptor out of the event loop.
    Eof,
    /// The user wants slotpass to end.
    Quit,
}

/// The console's input: a terminal, pipe, socket, file or device.
///
/// A terminal is put into raw mode until this is dropped, and escape sequences (Ctrl-A x and others, which it says
/// on stderr) are taken out of what is typed. In a background job the terminal belongs to another program: it is left as it is, and there is no input.
#[derive(Debug)]
pub struct Input {
    source: File,
    /// Readable for ever; watched instead of a source that epoll refuses (files and /dev/null), which never waits.
    always_ready: Option<EventFd>,
    /// Only for a terminal: what a pipe or file holds goes to the guest as it is.
    terminal: Option<(RawMode, EscapeFilter)>,
    /// What Ctrl-A does, for a user.
    help: &'static str,
    ended: bool,
}

impl Input {
    /// Takes input from `fd` for a guest of this process.
    pub fn new(fd: OwnedFd) -> Result<Self, Error> {
        Input::with_help(fd, HELP)
    }

    /// Takes input from `fd`; `help` says to the user of a terminal what Ctrl-A x and others do.
    pub fn with_help(fd: OwnedFd, help: &'static str) -> Result<Self, Error> {
        let mut input = Input { source: fd.into(), always_ready: None, terminal: None, help, ended: false };
        if input.source.is_terminal() {
            if terminal::in_background(input.source.as_fd()) {
                log::info!("console: in the background; the terminal's input is left to the shell");
                input.ended = true;
            } else {
                say(help);
                let mode = RawMode::enter(input.source.as_fd())?;
                input.terminal = Some((mode, EscapeFilter::default()));
            }
        } else if !pollable(&input.source)? {
            let failed = Error::new("make an eventfd");
            let ready = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(&failed)?;
            ready.write(1).map_err(&failed)?;
            input.always_ready = Some(ready);
        }
        Ok(input)
    }

    /// The descriptor to watch for `EventSet::IN`, level-triggered; nothing if there is no input (any more).
    ///
    /// To pause, for instance while the serial port's FIFO is full, take it out of the event loop: with an empty
    /// event set epoll would still report the hang-up of a pipe, over and over.
    pub fn watch_fd(&self) -> Option<RawFd> {
        match &self.always_ready {
            _ if self.ended => None,
            Some(ready) => Some(ready.as_raw_fd()),
            None => Some(self.source.as_raw_fd()),
        }
    }

    /// Somebody types: what is not read keeps their escape sequences from being seen.
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Reads at most `max` bytes after [`Input::watch_fd`] has become readable, hung up or faulty. Does not wait.
    pub fn on_readable(&mut self, max: usize) -> ConsoleInput {
        if self.ended {
            return ConsoleInput::Eof;
        }
        if max == 0 {
            return ConsoleInput::Bytes(Vec::new());
        }
        let mut typed = vec![0; max.min(4096)];
        match self.read(&mut typed) {
            Ok(0) => {
                self.ended = true;
                ConsoleInput::Eof
            }
            Ok(length) => {
                typed.truncate(length);
                self.filter(typed)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                ConsoleInput::Bytes(Vec::new())
            }
            // EIO: the terminal has hung up.
            Err(error) => {
                log::warn!("console: no more input: {error}");
                self.ended = true;
                ConsoleInput::Eof
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // Another reader of the same terminal may have been faster; a read would then wait for the next key.
        let mut fds = [libc::pollfd { fd: self.source.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        poll(&mut fds, 0)?;
        if fds.iter().all(|fd| fd.revents == 0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.source.read(bytes)
    }

    fn filter(&mut self, typed: Vec<u8>) -> ConsoleInput {
        let Some((_, filter)) = &mut self.terminal else { return ConsoleInput::Bytes(typed) };
        let (bytes, request) = filter.filter(&typed);
        match request {
            Some(Request::Quit) => return ConsoleInput::Quit,
            Some(Request::Help) => say(&format!("\n{}", self.help)),
            None => {}
        }
        ConsoleInput::Bytes(bytes)
    }
}

/// A line to the user. Unlike `eprintln!` this does not panic when nobody reads stderr any more.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether epoll takes the file; it refuses those that are always ready.
fn pollable(source: &File) -> Result<bool, Error> {
    let failed = Error::new("watch stdin");
    let epoll = Epoll::new().map_err(&failed)?;
    match epoll.ctl(ControlOperation::Add, source.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}
