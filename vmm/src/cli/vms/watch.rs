//! `slotpass console` and `log`.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::Places;
use crate::vms::console_client::{self, ConsoleError, Left};
use crate::vms::log_reader::LogReader;
use crate::vms::running::VmState;
use crate::vms::store::StoreError;

/// How long a VM may take to its end after it has hung up.
const ENDING: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Connects this terminal with a VM's serial port
///
/// Shows its last lines of output first. Ctrl-A x leaves it; the VM goes on. Several can be connected at a time: all see what
/// the guest says, and all can type.
#[derive(Debug, Args)]
pub struct Console {
    /// uuid or alias
    vm: String,
    #[command(flatten)]
    places: Places,
}

/// Prints what slotpass noted about a VM
#[derive(Debug, Args)]
pub struct Log {
    /// uuid or alias
    vm: String,
    /// Goes on with what comes, also when the VM is started again
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the lines that are there
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<usize>,
    /// What the VM's serial port said instead
    #[arg(long)]
    console: bool,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "VM {name} is not running, so it has no console; slotpass start {vm} starts it, slotpass log --console {vm} shows \
         what it said"
    )]
    NotRunning { vm: String, name: String },
    #[error("VM {0} is starting and has no console yet; try again")]
    Starting(String),
    #[error("the console was closed, but VM {name} still runs; slotpass console {vm} connects again")]
    Closed { vm: String, name: String },
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error("log: {0}")]
    Log(#[from] io::Error),
}

pub fn console(Console { vm, places }: Console) -> Result<(), WatchError> {
    let store = places.store();
    let uuid = store.uuid_of(&vm)?;
    let state = store.state(uuid);
    let Some(pid) = state.pid() else {
        return Err(WatchError::NotRunning { vm, name: store.name(uuid) });
    };
    let left = match console_client::attach(&store.folders().of_vm(uuid).console_socket()) {
        Err(ConsoleError::Connect { .. }) if matches!(state, VmState::Starting { .. }) => {
            return Err(WatchError::Starting(store.name(uuid)));
        }
        left => left?,
    };
    // Who ends hangs up a little before that.
    let until = Instant::now() + ENDING;
    while left == Left::Vm && store.state(uuid).pid() == Some(pid) {
        if Instant::now() >= until {
            return Err(WatchError::Closed { vm, name: store.name(uuid) });
        }
        thread::sleep(PAUSE);
    }
    let message = match left {
        Left::User => "the console is left; the VM goes on",
        Left::Vm => "the VM has ended",
        // Who sent it knows; and who reads stderr may be who no longer reads stdout.
        Left::Signal => return Ok(()),
    };
    let _ = writeln!(io::stderr(), "\nslotpass: {message}");
    Ok(())
}

pub fn log(Log { vm, follow, lines, console, places }: Log) -> Result<(), WatchError> {
    let store = places.store();
    let folders = store.folders().of_vm(store.uuid_of(&vm)?);
    let path = if console { folders.console_log() } else { folders.platform_log() };
    let mut out = io::stdout().lock();
    let mut show = || {
        let mut reader = LogReader::begin(&path, lines, &mut out)?;
        out.flush()?;
        if follow { reader.follow(&mut out) } else { Ok(()) }
    };
    match show() {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => Ok(shown?),
    }
}
