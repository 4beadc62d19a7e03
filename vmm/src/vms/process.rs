//! The process that runs one VM: the same program, in a session of its own, with its log instead of a terminal.

mod platform_log;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{error, info, warn};
use ppt_files::file_error::{FileError, failed};
use uuid::Uuid;

use super::console_server::ConsoleServer;
use super::folders::{Folders, VmFolders};
use super::rotating_file::{self, RotatingFile};
use super::running::{self, LockError, VmLock};
use super::start_pipe::StartPipe;
use super::store::{Store, StoreError};
use crate::config::IncompleteError;
use crate::control::Stop;
use crate::control_socket::{SocketError, SocketFile};
use crate::host::device_records::DeviceRecords;
use crate::machine::{self, Description, MachineError, Ready};
use crate::ppt::PptHost;
use crate::signals;

/// How a VM is run.
#[derive(Debug)]
pub struct Options {
    /// Where VMs are.
    pub folders: Folders,
    /// Which one.
    pub vm: Uuid,
    /// Takes dirty functions that cannot be reset.
    pub accept_dirty: bool,
    /// Says more in the log.
    pub verbose: u8,
    /// Where functions named `/dev/pptN` are.
    pub ppt: Option<Arc<dyn PptHost>>,
}

/// Why a VM does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Its description.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It runs already.
    #[error("VM {name}: {source}")]
    Lock {
        /// The VM.
        name: String,
        /// Why.
        source: LockError,
    },
    /// It describes nothing that can run.
    #[error(transparent)]
    Incomplete(#[from] IncompleteError),
    /// One of its sockets.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Something of this process.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Runs a VM to its end. Whoever waits at stdout for the guest to run is told of an error by that; the log has it as well.
pub fn run(options: &Options) -> Result<Stop, ProcessError> {
    let start = Arc::new(StartPipe::of_stdout().map_err(failed("use", Path::new("stdout")))?);
    run_for(options, &start).inspect_err(|error| start.say_failed(error))
}

fn run_for(options: &Options, start: &Arc<StartPipe>) -> Result<Stop, ProcessError> {
    // A signal of the terminal that this was started from ends nothing.
    let _ = rustix::process::setsid();
    // Others are taken when there is a machine to end.
    signals::prepare().map_err(failed("prepare signals for", Path::new("this process")))?;
    std::env::set_current_dir("/").map_err(failed("change to", Path::new("/")))?;
    let store = Store::new(options.folders.clone());
    let folders = options.folders.of_vm(options.vm);
    // Nobody changes the description from here on to when this is seen to run.
    let (vm, changes) = store.read_locked(options.vm)?;
    let lock = VmLock::take(&folders).map_err(|source| ProcessError::Lock { name: vm.name(), source })?;
    lock.say_starting().map_err(failed("write", &folders.lock()))?;
    drop(changes);
    let lock = Arc::new(lock);
    let ran = Arc::new(AtomicBool::new(false));
    let log = folders.platform_log();
    let logs = platform_log::begin(&log, options.verbose, start.clone()).map_err(failed("open", &log));
    let stop = logs.map_err(ProcessError::from).and_then(|()| {
        let pid = std::process::id();
        info!("start: slotpass {}, process {pid}: {}", env!("CARGO_PKG_VERSION"), vm.to_json());
        let starter = Starter { pipe: start.clone(), lock: lock.clone(), ran: ran.clone() };
        run_locked(options, &folders, starter, vm.file.description())
    });
    match &stop {
        Ok(stop) => info!("end: {}", said(stop)),
        Err(error) => {
            // Before the log has it, whose errors are passed on as well.
            start.say_failed(error);
            error.to_string().lines().for_each(|line| error!("{line}"));
            let ran = ran.load(Ordering::Relaxed);
            info!(
                "end: {}",
                if ran { "the VM broke down while its guest ran" } else { "the VM did not run" }
            );
        }
    }
    if let Err(error) = lock.say_ended() {
        warn!("{}: {error}", folders.lock().display());
    }
    stop
}

/// Why it ended, in words.
fn said(stop: &Stop) -> String {
    match stop {
        Stop::PowerOff => "the guest switched itself off".to_owned(),
        Stop::Reset => "the guest asked for a reset (no_reboot)".to_owned(),
        Stop::Exit(status) => format!("the guest ended with exit code {status}"),
        Stop::TripleFault { vcpu } => format!("vCPU {vcpu}: triple fault"),
        Stop::Kvm { vcpu, what } => format!("vCPU {vcpu}: {what}"),
        Stop::Device { what } => what.clone(),
        Stop::Asked(by) => format!("ended by {by}"),
        Stop::Broken(what) => format!("internal error: {what}"),
    }
}

fn run_locked(
    options: &Options,
    folders: &VmFolders,
    starter: Starter,
    description: Result<Description, IncompleteError>,
) -> Result<Stop, ProcessError> {
    // Sockets of a process that did not end in order.
    running::clean(folders);
    let console_log = folders.console_log();
    let log = RotatingFile::open(&console_log, rotating_file::LIMIT).map_err(failed("open", &console_log))?;
    let socket = SocketFile::make(&folders.console_socket())?;
    let (console, port) =
        ConsoleServer::start(socket, log).map_err(failed("serve", &folders.console_socket()))?;
    let devices = options.folders.devices();
    let records = Arc::new(DeviceRecords::new(&devices, &options.vm.to_string(), options.accept_dirty));
    let outcome = description.map_err(ProcessError::from).and_then(|description| {
        Ok(machine::run(&Description {
            control: Some(folders.control_socket()),
            console: Some(Arc::new(port)),
            records: Some(records.clone()),
            running: Some(Arc::new(starter)),
            ppt: options.ppt.clone(),
            ..description
        })?)
    });
    // Every function is closed by now.
    records.let_go_all();
    console.end();
    Ok(outcome?.stop)
}

/// Whoever waits for the guest to run.
#[derive(Debug)]
struct Starter {
    pipe: Arc<StartPipe>,
    lock: Arc<VmLock>,
    /// The guest has run.
    ran: Arc<AtomicBool>,
}

impl Ready for Starter {
    fn running(&self) -> bool {
        if let Err(error) = self.lock.say_running() {
            warn!("the VM's lock: {error}");
        }
        match self.pipe.say_running() {
            Ok(()) => {
                self.ran.store(true, Ordering::Relaxed);
                info!("the guest runs");
                true
            }
            Err(error) => {
                warn!("nobody waits any more for the guest to run ({error}): it was to be started no longer");
                false
            }
        }
    }
}
