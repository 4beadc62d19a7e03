//! The serial port of a VM that has a name: output goes to a log and to everybody who is connected, and what they type goes
//! to the guest.
//!
//! All on one thread, which waits for nobody: a client that does not read loses output, which it is told, and the guest goes
//! on.

mod client;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use log::{debug, error};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::rotating_file::RotatingFile;
use crate::control_socket::SocketFile;
use client::Client;

/// Clients at once.
const MOST_CLIENTS: usize = 16;
/// Output that a new client is shown first: so many bytes at most, and whole lines.
const RECENT: usize = 16 << 10;
/// Bytes that wait for the guest to read them. Beyond, nothing more is taken from clients.
const MOST_TYPED: usize = 64 << 10;
/// How long clients have at the end to take what was said last.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A listener that cannot accept, for want of descriptors, is left alone for this long.
const NO_DESCRIPTORS: Duration = Duration::from_millis(200);

/// The thread that serves a guest's serial port.
pub struct ConsoleServer {
    guest: UnixStream,
    thread: JoinHandle<()>,
}

impl ConsoleServer {
    /// Serves `socket` and writes to `log`. The guest's serial port is to be at the end that is given.
    pub fn start(socket: SocketFile, log: RotatingFile) -> io::Result<(ConsoleServer, UnixStream)> {
        let (port, guest) = UnixStream::pair()?;
        port.set_nonblocking(true)?;
        let serving = Serving {
            port,
            is_open: true,
            socket,
            log,
            recent: VecDeque::new(),
            typed: VecDeque::new(),
            clients: Vec::new(),
        };
        let thread = Builder::new().name("console".to_owned()).spawn(move || serving.run())?;
        Ok((ConsoleServer { guest: guest.try_clone()?, thread }, guest))
    }

    /// The guest has ended: what it said last is passed on, clients are hung up on, and the socket goes.
    pub fn end(self) {
        let _ = self.guest.shutdown(Shutdown::Write);
        if self.thread.join().is_err() {
            error!("console: the thread panicked");
        }
    }
}

struct Serving {
    /// To the guest's serial port.
    port: UnixStream,
    /// The guest may say more.
    is_open: bool,
    socket: SocketFile,
    log: RotatingFile,
    recent: VecDeque<u8>,
    typed: VecDeque<u8>,
    clients: Vec<Client>,
}

impl Serving {
    fn run(mut self) {
        let mut until = None;
        let mut no_descriptors = false;
        loop {
            if !self.is_open {
                let until = *until.get_or_insert_with(|| Instant::now() + LAST_WORDS);
                if Instant::now() >= until || self.clients.iter().all(Client::is_idle) {
                    return;
                }
            }
            let ready = match self.wait(no_descriptors) {
                Ok(ready) => ready,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return error!("console: {error}"),
            };
            // Newest last: those that come now are not in `ready`.
            for (client, flags) in self.clients.iter_mut().zip(ready.clients) {
                client.on(flags, &mut self.typed, MOST_TYPED);
            }
            if !ready.port.is_empty() {
                self.hear();
            }
            self.say();
            no_descriptors = ready.accept && self.accept();
            for client in &mut self.clients {
                client.write();
            }
            self.clients.retain(|client| !client.is_gone());
        }
    }

    fn wait(&self, no_descriptors: bool) -> io::Result<Ready> {
        let mut port = PollFlags::empty();
        port.set(PollFlags::IN, self.is_open);
        port.set(PollFlags::OUT, self.is_open && !self.typed.is_empty());
        let room = self.typed.len() < MOST_TYPED;
        let listener = if no_descriptors { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.port.as_fd(), port),
            PollFd::from_borrowed_fd(self.socket.listener().as_fd(), listener),
        ];
        fds.extend(
            self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.fd(), client.interest(room))),
        );
        if !self.is_open {
            // Its hang-up would be reported for ever.
            fds.remove(0);
        }
        let limit = match (self.is_open, no_descriptors) {
            (false, _) => Some(LAST_WORDS),
            (true, true) => Some(NO_DESCRIPTORS),
            (true, false) => None,
        };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        poll(&mut fds, limit.as_ref())?;
        let mut flags: VecDeque<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let port = if self.is_open { flags.pop_front() } else { None };
        let accept = flags.pop_front().is_some_and(|flags| !flags.is_empty());
        Ok(Ready { port: port.unwrap_or(PollFlags::empty()), accept, clients: flags.into() })
    }

    /// Takes what the guest says.
    fn hear(&mut self) {
        let mut buffer = [0; 8192];
        match self.port.read(&mut buffer) {
            Ok(0) => self.is_open = false,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                let _ = self.log.write_all(bytes);
                self.recent.extend(bytes);
                self.recent.drain(..self.recent.len().saturating_sub(RECENT));
                self.clients.iter_mut().for_each(|client| client.send(bytes));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => {
                debug!("console: {error}");
                self.is_open = false;
            }
        }
    }

    /// Hands on what was typed, as far as the guest takes it.
    fn say(&mut self) {
        while self.is_open && !self.typed.is_empty() {
            let (bytes, _) = self.typed.as_slices();
            match self.port.write(bytes) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The guest takes no more input, but may say something.
                Err(_) => self.typed.clear(),
            }
        }
    }

    /// Lets a client in. True: there is no descriptor for it.
    fn accept(&mut self) -> bool {
        let stream = match self.socket.listener().accept() {
            Ok((stream, _)) => stream,
            Err(error) => return matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)),
        };
        if stream.set_nonblocking(true).is_err() {
            return false;
        }
        let mut client = Client::new(stream);
        if self.clients.len() >= MOST_CLIENTS {
            client.send(format!("slotpass: {MOST_CLIENTS} others have this console\r\n").as_bytes());
            // What the socket takes at once is all that it gets.
            client.write();
            return false;
        }
        client.send(&self.last_lines());
        self.clients.push(client);
        false
    }

    /// What the guest said last, from the beginning of a line.
    fn last_lines(&self) -> Vec<u8> {
        let recent: Vec<u8> = self.recent.iter().copied().collect();
        if recent.len() < RECENT {
            return recent;
        }
        let start = recent.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        recent.get(start..).unwrap_or_default().to_vec()
    }
}

struct Ready {
    port: PollFlags,
    accept: bool,
    clients: Vec<PollFlags>,
}
