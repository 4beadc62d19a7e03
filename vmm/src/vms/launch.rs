//! Starts a VM's process, and waits until its guest runs.

mod inherited;

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use log::Level;
use uuid::Uuid;

use super::folders::{Folders, VmFolders};
use super::running::{self, VmState};
use super::start_pipe::Message;

/// The command, hidden from help, by which this program becomes a VM's process.
pub const COMMAND: &str = "vm-process";

/// Bytes at most that are listened to.
const MOST_SAID: u64 = 1 << 20;
const PAUSE: Duration = Duration::from_millis(20);

/// Why a VM was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its process cannot be made.
    #[error("cannot start {}: {source}", .program.display())]
    Spawn {
        /// This program.
        program: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// It has said why.
    #[error("{0}")]
    Refused(String),
    /// It has said nothing.
    #[error("the VM's process ended before its guest ran ({status}); what it noted: slotpass log {vm}")]
    Silent {
        /// The VM.
        vm: Uuid,
        /// How it ended.
        status: ExitStatus,
    },
    /// It cannot be listened to.
    #[error("the VM's process cannot be waited for: {0}")]
    Wait(io::Error),
}

/// Starts a VM, and hands on what its process says meanwhile: warnings, and what takes long. When this returns, its guest
/// runs, or has run.
pub fn launch(
    folders: &Folders,
    vm: Uuid,
    accept_dirty: bool,
    verbose: u8,
    note: impl FnMut(Level, &str),
) -> Result<(), LaunchError> {
    // Who waits for the end of a pipe must not wait for the VM's.
    inherited::keep_to_this_process();
    let program = program();
    let mut command = Command::new(&program);
    command.arg0("slotpass").arg(COMMAND);
    command.arg("--state-dir").arg(&folders.state).arg("--run-dir").arg(&folders.run);
    command.args(accept_dirty.then_some("--accept-dirty"));
    command.args((verbose > 0).then(|| OsString::from(format!("-{}", "v".repeat(verbose.into())))));
    command.arg(vm.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child =
        command.spawn().map_err(|source| LaunchError::Spawn { program: program.clone(), source })?;
    let why = match child.stdout.take().map(|out| listen(BufReader::new(out.take(MOST_SAID)), note)) {
        Some(Heard::Running) => return Ok(()),
        Some(Heard::Failed(why)) => why,
        None => Vec::new(),
    };
    match ended(&mut child, &folders.of_vm(vm)).map_err(LaunchError::Wait)? {
        None => Ok(()),
        Some(status) if why.is_empty() => Err(LaunchError::Silent { vm, status }),
        Some(_) => Err(LaunchError::Refused(why.join("\n"))),
    }
}

/// What was said by the end.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Running,
    /// Lines of why it does not; there may be none.
    Failed(Vec<String>),
}

fn listen(mut out: impl BufRead, mut note: impl FnMut(Level, &str)) -> Heard {
    let mut why = Vec::new();
    let mut line = Vec::new();
    // What cannot be read is as good as the end: the process itself is looked at then.
    while out.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        match Message::parse(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
            Message::Running => return Heard::Running,
            Message::Failed(text) => why.push(text),
            Message::Note(level, text) => note(level, &text),
        }
        line.clear();
    }
    Heard::Failed(why)
}

/// Waits until the process has ended; or, which gives nothing, until the guest runs without its having found room to say so.
fn ended(child: &mut Child, vm: &VmFolders) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if running::state(vm) == (VmState::Running { pid: child.id() }) {
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

/// This program, by its name where that still leads to it, so that `pgrep` finds it.
fn program() -> PathBuf {
    env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn notes_are_handed_on_as_they_come() {
        for (said, notes, heard) in [
            ("", vec![], Heard::Failed(vec![])),
            ("warn a\ninfo b\nrunning\nwarn c\n", vec!["WARN a", "INFO b"], Heard::Running),
            ("failed a\nfailed b\n", vec![], Heard::Failed(vec!["a".to_owned(), "b".to_owned()])),
            // It was killed.
            ("warn a\nwarn b", vec!["WARN a", "WARN b"], Heard::Failed(vec![])),
            // Another program, or another version.
            ("?\n", vec![], Heard::Failed(vec!["?".to_owned()])),
        ] {
            let mut noted = Vec::new();
            let note = |level: Level, text: &str| noted.push(format!("{level} {text}"));
            assert_eq!(listen(said.as_bytes(), note), heard, "{said:?}");
            assert_eq!(noted, notes, "{said:?}");
        }
        let mut noted = String::new();
        assert_eq!(listen(&b"warn \xff\nrunning\n"[..], |_, text| noted.push_str(text)), Heard::Running);
        assert_eq!(noted, "\u{fffd}");
    }

    #[test]
    fn a_guest_that_runs_is_known_by_its_lock_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { state: folder.path().join("s"), run: folder.path().join("r") };
        let vm = folders.of_vm(Uuid::new_v4());
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        fs::create_dir_all(&vm.run).unwrap();
        let text = format!("{}\nrunning\n", child.id());
        fs::write(vm.lock(), text).unwrap();
        let lock = File::open(vm.lock()).unwrap();
        lock.lock().unwrap();
        assert_eq!(ended(&mut child, &vm).unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ended(&mut child, &vm).unwrap().is_some());
    }
}
