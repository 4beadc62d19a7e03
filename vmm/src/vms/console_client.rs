//! Somebody at the serial port of a VM that runs: stdin and stdout, a terminal or not.
//!
//! Nothing here waits but for all of them at once: signals and the keys to leave count also while nobody reads stdout.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};

use crate::console::{self, ConsoleInput, Input};
use crate::control_socket::path::Folder;
use crate::signals;

/// Said to the user of a terminal.
const HELP: &str = "slotpass: Ctrl-A x leaves the console, Ctrl-A Ctrl-A sends Ctrl-A, Ctrl-A h shows this; the guest goes on";
/// Bytes that wait for the guest. What is typed beyond is lost, as on a real line; a pipe is read later.
const MOST_TYPED: usize = 64 << 10;
/// Bytes that wait for stdout. No more are taken before it has them: what the VM's process has for who does not read it bounds.
const MOST_HEARD: usize = 8 << 10;
/// Bytes of one write to stdout, which may be a terminal that others have too, so that it must not be made non-blocking. A
/// terminal that poll calls writable takes 256, where a line feed may become two of them; a pipe takes PIPE_BUF.
const PIECE: usize = 128;

/// Why there is no console.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Nobody serves it.
    #[error("console {}: {source}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// stdin or stdout.
    #[error(transparent)]
    Terminal(#[from] console::Error),
    /// Something broke.
    #[error("console: {0}")]
    Io(#[from] io::Error),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The user left it, or nobody reads stdout any more.
    User,
    /// A signal ended it.
    Signal,
    /// The VM hung up: it has ended.
    Vm,
}

/// Connects stdin and stdout with the console at `path`, until the user leaves or the VM ends. The end of stdin ends nothing:
/// output goes on.
pub fn attach(path: &Path) -> Result<Left, ConsoleError> {
    let connect = |source| ConsoleError::Connect { path: path.to_owned(), source };
    let (folder, name) = Folder::of(path).map_err(connect)?;
    let stream = UnixStream::connect(folder.path(name)).map_err(connect)?;
    stream.set_nonblocking(true)?;
    // Before the terminal is raw: from there on a signal must not end this without a way back.
    signals::prepare()?;
    let ended = signals::descriptor()?;
    let input = Input::with_help(io::stdin().as_fd().try_clone_to_owned()?, HELP)?;
    let stdout = io::stdout().as_fd().try_clone_to_owned()?.into();
    let left = Client::new(stream, input, stdout).run(io::stdin().as_fd(), ended.as_fd());
    if !matches!(left, Ok(Left::Signal)) {
        // What is said after this may wait for who reads it, and a signal ends that too.
        signals::unblock()?;
    }
    left
}

struct Client {
    stream: UnixStream,
    input: Input,
    stdout: File,
    typed: VecDeque<u8>,
    heard: VecDeque<u8>,
    /// Nothing more will be typed.
    has_ended: bool,
}

/// What there is to do.
struct Ready {
    signal: bool,
    stdout: PollFlags,
    stream: bool,
    stdin: bool,
}

impl Client {
    fn new(stream: UnixStream, input: Input, stdout: File) -> Client {
        Client { stream, input, stdout, typed: VecDeque::new(), heard: VecDeque::new(), has_ended: false }
    }

    fn run(mut self, stdin: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> Result<Left, ConsoleError> {
        loop {
            let ready = match self.wait(stdin, signals) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                ready => ready?,
            };
            if ready.signal {
                return Ok(Left::Signal);
            }
            // Whoever read it has seen enough.
            if ready.stdout.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
                return Ok(Left::User);
            }
            if ready.stdin {
                match self.input.on_readable(4096) {
                    ConsoleInput::Bytes(bytes) => self.typed.extend(bytes),
                    ConsoleInput::Eof => self.has_ended = true,
                    ConsoleInput::Quit => return Ok(Left::User),
                }
                self.typed.truncate(MOST_TYPED);
            }
            self.send()?;
            if ready.stdout.contains(PollFlags::OUT) && !self.show()? {
                return Ok(Left::User);
            }
            if ready.stream && self.heard.is_empty() && !self.hear()? {
                return Ok(Left::Vm);
            }
        }
    }

    fn wait(&self, stdin: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> io::Result<Ready> {
        // Without any, what is told without being asked for: the other end is closed.
        let mut stdout = PollFlags::empty();
        stdout.set(PollFlags::OUT, !self.heard.is_empty());
        let mut stream = PollFlags::empty();
        stream.set(PollFlags::IN, self.heard.is_empty());
        stream.set(PollFlags::OUT, !self.typed.is_empty());
        // What a person types is always looked at, for the way out.
        let reads = !self.has_ended
            && self.input.watch_fd().is_some()
            && (self.input.is_terminal() || self.typed.is_empty());
        let mut fds = vec![
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(self.stdout.as_fd(), stdout),
        ];
        // That it has hung up is told over and over, and is for later while stdout does not take what came before that.
        if !stream.is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.stream.as_fd(), stream));
        }
        if reads {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        poll(&mut fds, None)?;
        let mut flags = fds.iter().map(PollFd::revents);
        // In the order of `fds`.
        let mut next = || flags.next().unwrap_or(PollFlags::empty());
        Ok(Ready {
            signal: !next().is_empty(),
            stdout: next(),
            stream: !stream.is_empty() && !next().is_empty(),
            stdin: reads && !next().is_empty(),
        })
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.typed.is_empty() {
            let (bytes, _) = self.typed.as_slices();
            match self.stream.write(bytes) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It hangs up, which its last words are read before.
                Err(_) => self.typed.clear(),
            }
        }
        if self.has_ended {
            // Who listens for the end of what is typed is told once; again it is an error that means nothing.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Takes what the VM says; false: it has hung up.
    fn hear(&mut self) -> io::Result<bool> {
        let mut buffer = [0; MOST_HEARD];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.heard.extend(buffer.iter().take(length));
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a piece to stdout, which takes some; false: nobody reads it any more.
    fn show(&mut self) -> io::Result<bool> {
        let (bytes, _) = self.heard.as_slices();
        match self.stdout.write(bytes.get(..PIECE).unwrap_or(bytes)) {
            Ok(length) => {
                self.heard.drain(..length);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
