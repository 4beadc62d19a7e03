//! Ends a VM: by its power button, or by force.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use uuid::Uuid;

use super::folders::VmFolders;
use super::launch::COMMAND;
use super::running::{self, VmState};
use crate::control_socket::client::{Client, ClientError};

/// How long a guest has to switch itself off, unless it is said.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process has to end in order before it is killed, and then to be gone. Functions are reset meanwhile.
const ORDERLY: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
/// When the button is pressed again: of a process that could not be asked, of a guest that does not listen yet, and of one
/// that does. A press that is latched before a guest's driver is there is lost: ACPICA clears it when the driver comes.
const RETRY: Duration = Duration::from_millis(100);
const DEAF: Duration = Duration::from_secs(2);
const HEARD: Duration = Duration::from_secs(10);
/// How long an answer may take, as far as there is time; and at least.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
const SHORTEST_ANSWER: Duration = Duration::from_millis(100);

/// Why a VM was not stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It does not run.
    #[error("VM {name} is not running")]
    Stopped {
        /// The VM.
        name: String,
    },
    /// The guest still runs.
    #[error(
        "VM {name}: its power button was pressed, but the guest has not switched itself off within {} seconds{}; \
         --force ends it at once",
        .limit.as_secs(),
        if *.heard { "" } else { ": it does not listen to its power button" }
    )]
    Late {
        /// The VM.
        name: String,
        /// How long was waited.
        limit: Duration,
        /// The guest had asked to be told.
        heard: bool,
    },
    /// Its process cannot be asked.
    #[error("VM {name}: {source}; --force ends it at once")]
    Ask {
        /// The VM.
        name: String,
        /// Why.
        source: ClientError,
    },
    /// The number beside its lock is another process'.
    #[error("VM {name}: process {pid}, which its lock names, is not this VM's; nothing was done; try again")]
    Foreign {
        /// The VM.
        name: String,
        /// The process.
        pid: u32,
    },
    /// Its process cannot be ended.
    #[error("VM {name}: process {pid} cannot be ended: {source}")]
    Signal {
        /// The VM.
        name: String,
        /// The process.
        pid: u32,
        /// errno.
        source: io::Error,
    },
}

/// Presses the VM's power button, and waits until it has stopped. `name` is what messages call it.
pub fn stop(folders: &VmFolders, name: &str, limit: Duration) -> Result<(), StopError> {
    let name = || name.to_owned();
    let until = Instant::now() + limit;
    let Some(first) = running::state(folders).pid() else { return Err(StopError::Stopped { name: name() }) };
    let mut heard = None;
    let mut refusal = None;
    let mut next = Instant::now();
    // Another process is that of a later start.
    while running::state(folders).pid() == Some(first) {
        let now = Instant::now();
        let is_first = heard.is_none() && refusal.is_none();
        if now >= next && (is_first || now < until) {
            let left = until.saturating_duration_since(now).clamp(SHORTEST_ANSWER, LONGEST_ANSWER);
            let pause = match press(folders, first, left) {
                Ok(listens) => {
                    heard = Some(listens);
                    if listens { HEARD } else { DEAF }
                }
                // It gets ready, or ends.
                Err(error) => {
                    refusal = Some(error);
                    RETRY
                }
            };
            next = Instant::now() + pause;
            continue;
        }
        if now >= until {
            return Err(match (heard, refusal) {
                (None, Some(source)) => StopError::Ask { name: name(), source },
                (heard, _) => StopError::Late { name: name(), limit, heard: heard.unwrap_or_default() },
            });
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Presses the button of the VM that `process` runs. Whether its guest has asked to be told.
fn press(folders: &VmFolders, process: u32, limit: Duration) -> Result<bool, ClientError> {
    let mut client = Client::connect_within(&folders.control_socket(), limit)?;
    // A process that still holds the lock now is the one that has made this socket. That of a later start is not to stop.
    if running::state(folders).pid() != Some(process) {
        return Ok(false);
    }
    let answer = client.ask(&json!({ "command": "power-button" }), Duration::ZERO)?;
    Ok(answer.get("heard") == Some(&json!(true)))
}

/// Ends the VM's process: it gives everything back, without the guest being asked. One that does not is killed.
pub fn force(folders: &VmFolders, vm: Uuid, name: &str) -> Result<(), StopError> {
    let name = || name.to_owned();
    let Some(pid) = running::state(folders).pid() else {
        return Err(StopError::Stopped { name: name() });
    };
    let failed = |source| StopError::Signal { name: name(), pid, source };
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
    };
    // After the descriptor: what is at that number now is what the descriptor names, or that has ended.
    if !is_process_of(pid, vm) {
        return match running::state(folders).pid() {
            None => Ok(()),
            Some(_) => Err(StopError::Foreign { name: name(), pid }),
        };
    }
    for signal in [Signal::TERM, Signal::KILL] {
        if running::state(folders).pid() != Some(pid) {
            break;
        }
        match pidfd_send_signal(&process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let until = Instant::now() + ORDERLY;
        while running::state(folders).pid() == Some(pid) && Instant::now() < until {
            thread::sleep(PAUSE);
        }
    }
    match running::state(folders) {
        VmState::Stopped { crashed } => {
            if crashed && let Ok(_lock) = running::VmLock::take(folders) {
                running::clean(folders);
            }
            Ok(())
        }
        // Somebody has started it again.
        state if state.pid() != Some(pid) => Ok(()),
        _ => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// Whether a process runs this VM, by its command line. The number beside a lock may be that of a process that was killed
/// long ago.
fn is_process_of(pid: u32, vm: Uuid) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
    words.any(|word| word == COMMAND) && words.any(|word| Uuid::try_parse(word) == Ok(vm))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use super::super::Folders;
    use super::*;
    use crate::control_socket::protocol::VERSION;

    #[test]
    fn the_button_is_pressed_until_it_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { state: folder.path().join("s"), run: folder.path().join("r") };
        let vm = folders.of_vm(Uuid::new_v4());
        assert!(matches!(stop(&vm, "web", Duration::ZERO), Err(StopError::Stopped { .. })));
        let lock = running::VmLock::take(&vm).unwrap();
        lock.say_running().unwrap();
        // Nobody answers.
        assert!(matches!(stop(&vm, "web", Duration::ZERO), Err(StopError::Ask { .. })));

        let listener = UnixListener::bind(vm.control_socket()).unwrap();
        let server = thread::spawn(move || {
            for (stream, answer) in listener.incoming().zip([None, Some(false), Some(true)]) {
                let mut stream = stream.unwrap();
                let Some(heard) = answer else { continue };
                writeln!(stream, "{{\"protocol\":{VERSION}}}").unwrap();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
                writeln!(stream, "{{\"result\":{{\"heard\":{heard}}}}}").unwrap();
            }
            lock.say_ended().unwrap();
        });
        stop(&vm, "web", PATIENCE).unwrap();
        server.join().unwrap();
    }

    #[test]
    fn the_button_of_a_vm_that_was_started_again_meanwhile_is_not_pressed() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { state: folder.path().join("s"), run: folder.path().join("r") };
        let vm = folders.of_vm(Uuid::new_v4());
        let lock = running::VmLock::take(&vm).unwrap();
        lock.say_running().unwrap();
        let listener = UnixListener::bind(vm.control_socket()).unwrap();
        let path = vm.lock();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            fs::write(path, "1\nrunning\n").unwrap();
            writeln!(stream, "{{\"protocol\":{VERSION}}}").unwrap();
            let mut asked = String::new();
            BufReader::new(stream).read_line(&mut asked).unwrap();
            asked
        });
        stop(&vm, "web", PATIENCE).unwrap();
        assert_eq!(server.join().unwrap(), "");
        drop(lock);
    }

    #[test]
    fn what_the_guest_said_last_is_in_the_error() {
        let error = |heard| StopError::Late { name: "web".to_owned(), limit: PATIENCE, heard }.to_string();
        assert!(error(false).contains("does not listen") && !error(true).contains("does not listen"));
    }

    #[test]
    fn a_process_is_known_by_its_command_line() {
        assert!(!is_process_of(std::process::id(), Uuid::new_v4()));
    }
}
