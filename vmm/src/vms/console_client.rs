//! Somebody at the serial port of a VM that runs: stdin and stdout, a terminal or not.

use std::collections::VecDeque;
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
    /// The user left it, or a signal ended it.
    User,
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
    Client { stream, input, typed: VecDeque::new(), has_ended: false }.run(ended.as_fd())
}

struct Client {
    stream: UnixStream,
    input: Input,
    typed: VecDeque<u8>,
    /// Nothing more will be typed.
    has_ended: bool,
}

impl Client {
    fn run(mut self, signals: BorrowedFd<'_>) -> Result<Left, ConsoleError> {
        let stdin = io::stdin();
        let mut output = io::stdout().lock();
        loop {
            let [signal, closed, stream, typed] = match self.wait(signals, stdin.as_fd(), output.as_fd()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                ready => ready?,
            };
            if signal || closed {
                return Ok(Left::User);
            }
            if typed {
                match self.input.on_readable(4096) {
                    ConsoleInput::Bytes(bytes) => self.typed.extend(bytes),
                    ConsoleInput::Eof => self.has_ended = true,
                    ConsoleInput::Quit => return Ok(Left::User),
                }
                self.typed.truncate(MOST_TYPED);
            }
            self.send()?;
            if stream && let Some(left) = self.hear(&mut output)? {
                return Ok(left);
            }
        }
    }

    /// Whether there is a signal, nobody who reads stdout, something at the stream, and something on stdin.
    fn wait(
        &self,
        signals: BorrowedFd<'_>,
        stdin: BorrowedFd<'_>,
        stdout: BorrowedFd<'_>,
    ) -> io::Result<[bool; 4]> {
        let mut stream = PollFlags::IN;
        stream.set(PollFlags::OUT, !self.typed.is_empty());
        let mut fds = vec![
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            // What is told without being asked for: the other end is closed.
            PollFd::from_borrowed_fd(stdout, PollFlags::empty()),
            PollFd::from_borrowed_fd(self.stream.as_fd(), stream),
        ];
        // What a person types is always looked at, for the way out.
        let reads = !self.has_ended
            && self.input.watch_fd().is_some()
            && (self.input.is_terminal() || self.typed.is_empty());
        if reads {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        poll(&mut fds, None)?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok([(); 4].map(|_| ready.next().unwrap_or_default()))
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

    fn hear(&mut self, output: &mut impl Write) -> io::Result<Option<Left>> {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(Some(Left::Vm)),
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                match output.write_all(bytes).and_then(|()| output.flush()) {
                    // Whoever read it has seen enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Some(Left::User)),
                    written => written.map(|()| None),
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Some(Left::Vm)),
            Err(error) => Err(error),
        }
    }
}
