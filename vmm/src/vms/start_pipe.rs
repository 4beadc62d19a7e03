//! What a VM's process says to the `start` that waits for it, by the pipe that is its stdout: a line for each message.
//!
//! The process waits for nobody: what the pipe does not take at once is left out here, and is in the log.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use log::{Level, Record};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::dup2_stdout;

use crate::progress;

/// A pipe that is writable takes so many bytes at once, all or none of them.
const PIECE: usize = libc::PIPE_BUF;
/// Bytes of notes at most, far less than a pipe has room for: the message that ends all of them finds room too.
const MOST_NOTED: usize = 16 << 10;

const RUNNING: &str = "running";
const FAILED: &str = "failed";
/// In the place of the notes that follow.
const MORE: &str = "there is more in the VM's log";

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The guest runs. It is the last one.
    Running,
    /// A line of why it does not. After those the process ends.
    Failed(String),
    /// Something that the user is to know meanwhile; at [`Level::Info`], what takes so long.
    Note(Level, String),
}

impl Message {
    /// What a line says. One that is none of these is not lost either: it is part of a failure.
    pub fn parse(line: &str) -> Message {
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        match (word, word.parse()) {
            (RUNNING, _) if text.is_empty() => Message::Running,
            (FAILED, _) => Message::Failed(text.to_owned()),
            (_, Ok(level)) => Message::Note(level, text.to_owned()),
            _ => Message::Failed(line.to_owned()),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Running => f.write_str(RUNNING),
            Message::Failed(text) => write!(f, "{FAILED} {text}"),
            Message::Note(level, text) => write!(f, "{} {text}", level.as_str().to_lowercase()),
        }
    }
}

/// The process' end.
#[derive(Debug)]
pub struct StartPipe(Mutex<Sending>);

#[derive(Debug)]
struct Sending {
    /// None after the last message.
    pipe: Option<File>,
    noted: usize,
}

impl StartPipe {
    /// Takes stdout, which is `/dev/null` from then on: with the last message the pipe is closed.
    pub fn of_stdout() -> io::Result<StartPipe> {
        let pipe = io::stdout().as_fd().try_clone_to_owned()?;
        dup2_stdout(File::options().write(true).open("/dev/null")?)?;
        Ok(StartPipe::new(pipe.into()))
    }

    fn new(pipe: File) -> StartPipe {
        StartPipe(Mutex::new(Sending { pipe: Some(pipe), noted: 0 }))
    }

    /// Says what of the log a user is to see: errors, warnings and progress.
    pub fn note(&self, record: &Record<'_>) {
        if record.level() <= Level::Warn || record.target() == progress::TARGET {
            let text = record.args().to_string();
            self.0.lock().note(record.level(), &text);
        }
    }

    /// Says that the guest runs. An error: nobody is there any more who waits for that.
    pub fn say_running(&self) -> io::Result<()> {
        let mut sending = self.0.lock();
        // Who is there and reads nothing finds it out by the VM's lock.
        let said = sending.say(&Message::Running);
        sending.pipe = None;
        said
    }

    /// Says why the guest does not run. It is for nobody once it has run.
    pub fn say_failed(&self, error: &dyn fmt::Display) {
        let mut sending = self.0.lock();
        for line in error.to_string().lines() {
            let _ = sending.say(&Message::Failed(line.to_owned()));
        }
        sending.pipe = None;
    }
}

impl Sending {
    fn note(&mut self, level: Level, text: &str) {
        for line in text.lines() {
            if self.noted > MOST_NOTED {
                return;
            }
            self.noted += line.len();
            let is_last = self.noted > MOST_NOTED;
            let line = if is_last { MORE } else { line };
            // That nobody is there counts when the guest is to run.
            let _ = self.say(&Message::Note(level, line.to_owned()));
        }
    }

    fn say(&mut self, message: &Message) -> io::Result<()> {
        let line = format!("{message}\n");
        for (number, piece) in line.as_bytes().chunks(PIECE).enumerate() {
            let Some(pipe) = &mut self.pipe else { return Ok(()) };
            if !takes_more(pipe)? {
                // The rest of a line must not be another one's begin.
                if number > 0 {
                    self.pipe = None;
                }
                return Ok(());
            }
            pipe.write_all(piece)?;
        }
        Ok(())
    }
}

/// Whether a write comes back at once; with an error, where nobody reads.
fn takes_more(pipe: &File) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::OUT)];
    loop {
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(count) => return Ok(count > 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
