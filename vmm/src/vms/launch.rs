//! Starts a VM's process, and waits until its guest runs.

mod inherited;

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use uuid::Uuid;

use super::folders::Folders;
use super::process::RUNNING;

/// The command, hidden from help, by which this program becomes a VM's process.
pub const COMMAND: &str = "vm-process";

/// Bytes of errors at most that are listened to.
const MOST_SAID: u64 = 1 << 20;

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

/// Starts a VM. When this returns, its guest runs, or has run.
pub fn launch(folders: &Folders, vm: Uuid, accept_dirty: bool, verbose: u8) -> Result<(), LaunchError> {
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
    let mut said = String::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out.take(MOST_SAID)).lines()) {
        let line = line.map_err(LaunchError::Wait)?;
        if line == RUNNING {
            return Ok(());
        }
        said = said + &line + "\n";
    }
    let status = child.wait().map_err(LaunchError::Wait)?;
    match said.trim_end() {
        "" => Err(LaunchError::Silent { vm, status }),
        said => Err(LaunchError::Refused(said.to_owned())),
    }
}

/// This program, by its name where that still leads to it, so that `pgrep` finds it.
fn program() -> PathBuf {
    env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}
