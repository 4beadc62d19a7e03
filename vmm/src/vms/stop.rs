//! Ends a VM: by its power button, or by force.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;

use super::description::VmDescription;
use super::folders::Folders;
use super::running::{self, VmState};
use crate::control_socket::client::{Client, ClientError};

/// How long a guest has to switch itself off, unless it is said.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process has to end in order before it is killed, and then to be gone. Functions are reset meanwhile.
const ORDERLY: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

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

/// Presses the VM's power button, and waits until it has stopped.
pub fn stop(folders: &Folders, vm: &VmDescription, limit: Duration) -> Result<(), StopError> {
    let of_vm = folders.of_vm(vm.uuid);
    let name = || vm.name();
    let until = Instant::now() + limit;
    if running::state(&of_vm).pid().is_none() {
        return Err(StopError::Stopped { name: name() });
    }
    let mut heard = None;
    loop {
        if running::state(&of_vm).pid().is_none() {
            return Ok(());
        }
        if heard.is_none() {
            let asked = Client::connect(&of_vm.control_socket())
                .and_then(|mut client| client.ask(&json!({ "command": "power-button" }), Duration::ZERO));
            match asked {
                Ok(answer) => heard = Some(answer.get("heard") == Some(&json!(true))),
                // It gets ready, or ends.
                Err(ClientError::Connect { .. } | ClientError::Ended { .. } | ClientError::Refused(_))
                    if Instant::now() < until => {}
                Err(source) if running::state(&of_vm).pid().is_some() => {
                    return Err(StopError::Ask { name: name(), source });
                }
                Err(_) => {}
            }
        }
        if Instant::now() >= until {
            return Err(StopError::Late { name: name(), limit, heard: heard.unwrap_or_default() });
        }
        thread::sleep(PAUSE);
    }
}

/// Ends the VM's process: it gives everything back, without the guest being asked. One that does not is killed.
pub fn force(folders: &Folders, vm: &VmDescription) -> Result<(), StopError> {
    let of_vm = folders.of_vm(vm.uuid);
    let Some(pid) = running::state(&of_vm).pid() else {
        return Err(StopError::Stopped { name: vm.name() });
    };
    let failed = |source| StopError::Signal { name: vm.name(), pid, source };
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
    };
    for signal in [Signal::TERM, Signal::KILL] {
        // The number is not another process' as long as this one holds the lock: it was opened before.
        if running::state(&of_vm).pid() != Some(pid) {
            break;
        }
        match pidfd_send_signal(&process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let until = Instant::now() + ORDERLY;
        while running::state(&of_vm).pid() == Some(pid) && Instant::now() < until {
            thread::sleep(PAUSE);
        }
    }
    match running::state(&of_vm) {
        VmState::Stopped { crashed } => {
            if crashed && let Ok(_lock) = running::VmLock::take(&of_vm) {
                running::clean(&of_vm);
            }
            Ok(())
        }
        _ => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}
