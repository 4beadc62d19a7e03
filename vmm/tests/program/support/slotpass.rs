//! A run that is about to start.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use tempfile::TempDir;

use super::{Ended, Running};

/// The built program.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_slotpass"))
}

/// The program, its arguments, and a folder of its own that it runs in, which goes away with the run.
pub struct Slotpass {
    command: Command,
    folder: TempDir,
    input: Option<Vec<u8>>,
}

impl Slotpass {
    /// Without arguments.
    pub fn new() -> Slotpass {
        Slotpass::by(Command::new(program()))
    }

    /// By way of another program, whose last arguments are the program and its own.
    pub fn through(wrapper: &str, arguments: &[&str]) -> Slotpass {
        let mut command = Command::new(wrapper);
        command.args(arguments).arg(program());
        Slotpass::by(command)
    }

    fn by(mut command: Command) -> Slotpass {
        let folder = TempDir::with_prefix("slotpass-").unwrap();
        command.current_dir(folder.path()).stdin(Stdio::null());
        Slotpass { command, folder, input: None }
    }

    /// `run` with the guest that does what its command line says.
    pub fn exit(words: &str) -> Slotpass {
        Slotpass::new().run_image(guest::EXIT, words)
    }

    /// `run` with the guest that drives a simulated function; it measures once only.
    pub fn demo(slot: &str) -> Slotpass {
        Slotpass::new().run_image(guest::DEMO, &format!("slot={slot} iterations=1"))
    }

    /// Adds `run` with an image of package `guest`.
    pub fn run_image(self, image: &[u8], words: &str) -> Slotpass {
        self.file("kernel.elf", image).args(["run", "--kernel", "kernel.elf", "--cmdline", words])
    }

    /// Puts a file into the run's folder, which is its working directory.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Slotpass {
        fs::write(self.folder.path().join(name), content).unwrap();
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Slotpass {
        self.command.args(arguments);
        self
    }

    /// Adds `--slot SLOT=sim:demo` for each of these.
    pub fn simulated<S: std::fmt::Display>(self, slots: impl IntoIterator<Item = S>) -> Slotpass {
        slots.into_iter().fold(self, |run, slot| run.args(["--slot".to_owned(), format!("{slot}=sim:demo")]))
    }

    /// What comes from stdin, a pipe; without this it is `/dev/null`.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Slotpass {
        self.command.stdin(Stdio::piped());
        self.input = Some(bytes.into());
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Slotpass {
        self.command.stdin(stdin);
        self
    }

    /// The run's folder, to look into afterwards; whoever holds it keeps it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// For what has no method of its own here.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    pub fn start(mut self) -> Running {
        self.command.stdout(Stdio::piped());
        self.start_with_own_stdout()
    }

    /// Does not collect stdout, which was set by [`Slotpass::command`].
    pub fn start_with_own_stdout(self) -> Running {
        let Slotpass { mut command, folder, input } = self;
        command.stderr(Stdio::piped());
        let text = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{text}: {error}"));
        // Its copies of what the child was given would keep a pipe open.
        drop(command);
        if let Some(input) = input {
            let mut stdin = child.stdin.take().unwrap();
            // A guest that ends before it has read everything is no failure.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        Running::new(child, text, folder)
    }

    /// Runs it to its end.
    pub fn end(self) -> Ended {
        self.start().end()
    }

    /// Runs it to its end and reads a file that it wrote.
    pub fn end_and_read(self, name: &str) -> (Ended, String) {
        let running = self.start();
        let (ended, folder) = running.end_in_folder();
        let text = fs::read_to_string(folder.path().join(name));
        let text = text.unwrap_or_else(|error| panic!("{name}: {error}\n{ended}"));
        (ended, text)
    }
}
