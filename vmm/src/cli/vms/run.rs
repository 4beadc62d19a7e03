//! `slotpass start` and `stop`, and the process between them.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use log::Level;
use uuid::Uuid;

use super::Places;
use crate::cli::exit;
use crate::ppt::PptHost;
use crate::vms::launch::{self, LaunchError};
use crate::vms::process::{self, Options};
use crate::vms::stop::{self, PATIENCE, StopError};
use crate::vms::store::StoreError;

/// Starts a VM, in a process of its own, and returns when its guest runs
///
/// Until then warnings are shown, and at a terminal what takes long; Ctrl-C calls it off. What slotpass says later is in the
/// VM's log (`slotpass log`), which has that too.
#[derive(Debug, Args)]
pub struct Start {
    /// uuid or alias
    vm: String,
    /// Takes functions that a VM had that did not end in order, also if they cannot be reset
    #[arg(long)]
    accept_dirty: bool,
    #[command(flatten)]
    places: Places,
}

/// Stops a VM: presses its power button, and waits until its guest has switched itself off
#[derive(Debug, Args)]
pub struct Stop {
    /// uuid or alias
    vm: String,
    /// Ends it at once, without asking the guest
    #[arg(long)]
    force: bool,
    /// How long the guest has
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs(), conflicts_with = "force")]
    timeout: u64,
    #[command(flatten)]
    places: Places,
}

/// Runs a VM; only `slotpass start` does this
#[derive(Debug, Args)]
pub struct Process {
    vm: Uuid,
    #[arg(long)]
    accept_dirty: bool,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Stop(#[from] StopError),
}

pub fn start(Start { vm, accept_dirty, places }: Start, verbose: u8) -> Result<(), RunError> {
    let store = places.store();
    let uuid = store.uuid_of(&vm)?;
    let mut err = io::stderr();
    let is_terminal = err.is_terminal();
    let say = |level: Level, text: &str| {
        if is_shown(level, is_terminal, verbose) {
            let _ = writeln!(err, "slotpass: {}: {text}", level.as_str().to_lowercase());
        }
    };
    Ok(launch::launch(store.folders(), uuid, accept_dirty, verbose, say)?)
}

/// Progress is for who waits at a terminal, as with `run`; warnings are for everybody.
fn is_shown(level: Level, is_terminal: bool, verbose: u8) -> bool {
    level <= Level::Warn || is_terminal || verbose > 0
}

pub fn stop(Stop { vm, force, timeout, places }: Stop) -> Result<(), RunError> {
    let store = places.store();
    // However its description is: nothing of it is needed.
    let uuid = store.uuid_of(&vm)?;
    let (folders, name) = (store.folders().of_vm(uuid), store.name(uuid));
    if force {
        stop::force(&folders, uuid, &name)?;
    } else {
        // A day is as good as for ever.
        stop::stop(&folders, &name, Duration::from_secs(timeout.min(24 * 60 * 60)))?;
    }
    Ok(())
}

/// stdout is read by `start`, which is told of errors there.
pub fn process(
    Process { vm, accept_dirty, places }: Process,
    verbose: u8,
    ppt: Option<Arc<dyn PptHost>>,
) -> ExitCode {
    let options = Options { folders: places.folders(), vm, accept_dirty, verbose, ppt };
    match process::run(&options) {
        Ok(stop) => exit::code(&stop),
        Err(_) => exit::FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_at_a_terminal() {
        for (level, is_terminal, verbose, shown) in [
            (Level::Warn, false, 0, true),
            (Level::Error, false, 0, true),
            (Level::Info, false, 0, false),
            (Level::Info, true, 0, true),
            (Level::Info, false, 1, true),
        ] {
            assert_eq!(is_shown(level, is_terminal, verbose), shown, "{level} {is_terminal} {verbose}");
        }
    }
}
