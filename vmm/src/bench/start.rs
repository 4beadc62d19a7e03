//! From the start of the program to what its guest sends by its first serial port.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use super::Bench;
use super::child::{Ending, Running};
use super::error::BenchError;
use super::guest_text::GuestText;
use super::qemu;
use super::report::Under;
use crate::machine::UseIommufd;
use crate::signals::HeldBack;

/// MiB of the guest: what `slotpass run` gives one unless it is told otherwise.
const MEMORY: u32 = 512;
/// What the image that tests itself is to do: it says so first, and ends.
const WORDS: &str = "code=0";
/// So that a guest that says nothing does not hang the bench. A kernel has much to do.
const LONGEST_START: Duration = Duration::from_secs(120);
const LONGEST_KERNEL: Duration = Duration::from_secs(1800);
/// For a program that has closed its stdout to end.
const LONGEST_END: Duration = Duration::from_secs(10);
/// After which signals are looked for. It is in no figure.
const NAP: Duration = Duration::from_millis(20);
/// Characters of what a program says that are told.
const LONGEST_MESSAGE: usize = 600;

/// A kernel to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its file.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub command_line: String,
    /// Until when: this text has come by its serial port, or anything.
    pub until: Option<String>,
}

/// What came of one start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// The guest has sent what was waited for.
    After(Duration),
    /// It has not, and why.
    Never(String),
}

/// Starts the guest that does what its command line says, until the first byte that it sends.
pub fn image(bench: &Bench, under: Under) -> Result<Started, BenchError> {
    // Before the file, which is gone before one of them can end this program.
    let signals = HeldBack::new().map_err(BenchError::Signals)?;
    let mut file = tempfile::Builder::new().suffix(".elf").tempfile().map_err(BenchError::Image)?;
    file.write_all(guest::EXIT).map_err(BenchError::Image)?;
    let command = command(bench, under, file.path(), None, WORDS)?;
    watch(command, under, "", LONGEST_START, &signals)
}

/// Starts a kernel.
pub fn kernel(bench: &Bench, under: Under, kernel: &Kernel) -> Result<Started, BenchError> {
    let signals = HeldBack::new().map_err(BenchError::Signals)?;
    let Kernel { kernel, initrd, command_line, until } = kernel;
    let command = command(bench, under, kernel, initrd.as_deref(), command_line)?;
    watch(command, under, until.as_deref().unwrap_or_default(), LONGEST_KERNEL, &signals)
}

fn command(
    bench: &Bench,
    under: Under,
    kernel: &Path,
    initrd: Option<&Path>,
    line: &str,
) -> Result<Command, BenchError> {
    let mut command = match under {
        Under::Qemu => qemu::command(MEMORY, bench.assignments.first())?,
        Under::Slotpass | Under::Floor => {
            // Whatever its file is called, and even if it has been replaced.
            let mut command = Command::new("/proc/self/exe");
            command.arg0("slotpass").args(["run", "--no-reboot", "--memory", &format!("{MEMORY}M")]);
            let iommufd = match bench.iommufd {
                UseIommufd::Auto => "auto".to_owned(),
                UseIommufd::On => "on".to_owned(),
                UseIommufd::Off => "off".to_owned(),
                UseIommufd::File(fd) => format!("fd:{fd}"),
            };
            command.args(["--iommufd", &iommufd]);
            for assignment in &bench.assignments {
                command.args(["--slot", &assignment.to_string()]);
            }
            command
        }
    };
    command.arg(match under {
        Under::Qemu => "-kernel",
        _ => "--kernel",
    });
    command.arg(kernel);
    if let Some(initrd) = initrd {
        command.arg(if under == Under::Qemu { "-initrd" } else { "--initrd" }).arg(initrd);
    }
    command.arg(if under == Under::Qemu { "-append" } else { "--cmdline" }).arg(line);
    Ok(command)
}

/// Starts a program, and ends it when the guest has sent that text.
fn watch(
    mut command: Command,
    under: Under,
    until: &str,
    patience: Duration,
    signals: &HeldBack,
) -> Result<Started, BenchError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ending = if under == Under::Qemu { Ending::Killed } else { Ending::Asked };
    let begin = Instant::now();
    let failed = |source| BenchError::Start { under: under.name(), source };
    let mut running = Running::start(&mut command, ending).map_err(failed)?;
    let said = running.stderr.take().map(GuestText::from).transpose().map_err(failed)?;
    let seen = running.stdout.take().map(|stdout| wait_for(stdout, until)).transpose().map_err(failed)?;
    let started = match seen.map(|seen| first(&seen, begin, patience, signals)).transpose()? {
        Some(Some(at)) => Started::After(at.saturating_duration_since(begin)),
        _ => {
            let status = ended(&mut running);
            running.end();
            let said = said.map(GuestText::of).transpose()?.unwrap_or_default();
            Started::Never(why(status, &said, patience))
        }
    };
    running.end();
    Ok(started)
}

/// When it came; nothing if nothing more comes, or it took too long.
fn first(
    seen: &Receiver<Instant>,
    begin: Instant,
    patience: Duration,
    signals: &HeldBack,
) -> Result<Option<Instant>, BenchError> {
    loop {
        match seen.recv_timeout(NAP) {
            Ok(at) => return Ok(Some(at)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if begin.elapsed() > patience => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(by) = signals.taken() {
            return Err(BenchError::Asked(by));
        }
    }
}

/// How a program has ended that has nothing more to say; nothing if it goes on.
fn ended(running: &mut Running) -> Option<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < LONGEST_END {
        if let Ok(Some(status)) = running.try_wait() {
            return Some(status);
        }
        thread::sleep(NAP);
    }
    None
}

fn why(status: Option<ExitStatus>, said: &str, patience: Duration) -> String {
    let lines = said.lines().map(|line| line.strip_prefix("slotpass: ").unwrap_or(line).trim());
    let said: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let said: String = said.join(" ").chars().take(LONGEST_MESSAGE).collect();
    let how = match status {
        None => format!("the guest did not send it in {} seconds", patience.as_secs()),
        Some(status) if status.signal().is_none() && status.success() => "the guest ended before".to_owned(),
        Some(status) => format!("it ended with {status}"),
    };
    if said.is_empty() { how } else { format!("{how}: {said}") }
}

/// Tells when this text has come, or anything if it is empty, and reads on so that nobody waits for a reader.
fn wait_for(stdout: ChildStdout, until: &str) -> io::Result<Receiver<Instant>> {
    let (sender, seen) = mpsc::sync_channel(1);
    let search = Search { text: until.as_bytes().to_vec(), rest: Vec::new() };
    Builder::new().name("guest's text".to_owned()).spawn(move || read(stdout, search, sender))?;
    Ok(seen)
}

fn read(mut stdout: impl Read, mut search: Search, sender: SyncSender<Instant>) {
    let (mut chunk, mut sender) = ([0; 4096], Some(sender));
    loop {
        match stdout.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                let now = Instant::now();
                let piece = chunk.get(..count).unwrap_or_default();
                if sender.is_some()
                    && search.is_there(piece)
                    && let Some(sender) = sender.take()
                {
                    // Nobody waits any more if the bench was asked to end.
                    let _ = sender.send(now);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// A text in what comes in pieces.
struct Search {
    text: Vec<u8>,
    /// The end of what came, which may be the beginning of the text.
    rest: Vec<u8>,
}

impl Search {
    /// With this piece it is there.
    fn is_there(&mut self, piece: &[u8]) -> bool {
        self.rest.extend_from_slice(piece);
        let is_there = self.text.is_empty() && !piece.is_empty()
            || self.rest.windows(self.text.len().max(1)).any(|window| window == self.text);
        let kept = self.text.len().saturating_sub(1);
        self.rest.drain(..self.rest.len().saturating_sub(kept));
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_however_it_is_cut() {
        for (text, pieces, at) in [
            ("", &["", "x"][..], Some(1)),
            ("login:", &["host login: "], Some(0)),
            ("login:", &["host lo", "g", "in", ":"], Some(3)),
            ("login:", &["lologin", "login", ":"], Some(2)),
            ("login:", &["login", " :"], None),
            ("aab", &["aa", "ab"], Some(1)),
        ] {
            let mut search = Search { text: text.as_bytes().to_vec(), rest: Vec::new() };
            let found = pieces.iter().position(|piece| search.is_there(piece.as_bytes()));
            assert_eq!(found, at, "{text} in {pieces:?}");
            assert!(search.rest.len() < text.len().max(1));
        }
    }

    fn started(script: &str, until: &str, patience: Duration) -> Started {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        watch(command, Under::Qemu, until, patience, &HeldBack::new().unwrap()).unwrap()
    }

    #[test]
    fn it_is_over_when_the_text_has_come() {
        let long = Duration::from_secs(3600);
        // It is not waited for, and it is gone.
        let script = "echo first; echo second; exec sleep 3600";
        for until in ["", "first", "t\ns"] {
            assert!(matches!(started(script, until, long), Started::After(time) if time < long), "{until}");
        }
    }

    #[test]
    fn what_never_comes_is_said() {
        for (script, until, patience, wanted) in [
            ("echo first", "second", 60, "the guest ended before"),
            ("exit 3", "", 60, "it ended with exit status: 3"),
            (
                "echo slotpass: no such >&2; echo kernel >&2; exit 1",
                "",
                60,
                "it ended with exit status: 1: no such kernel",
            ),
        ] {
            let never = Started::Never(wanted.to_owned());
            assert_eq!(started(script, until, Duration::from_secs(patience)), never, "{script}");
        }
    }
}
