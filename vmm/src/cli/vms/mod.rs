//! VMs by name: `slotpass create`, `update`, `get`, `vms`, `start`, `stop`, `delete`, `console`, `log`.

mod change;
mod run;
mod show;
mod watch;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::exit;
use crate::ppt::PptHost;
use crate::vms::Folders;
use crate::vms::store::Store;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Create(change::Create),
    Update(change::Update),
    Delete(change::Delete),
    Get(show::Get),
    Vms(show::Vms),
    Start(run::Start),
    Stop(run::Stop),
    Console(watch::Console),
    Log(watch::Log),
    #[command(name = crate::vms::launch::COMMAND, hide = true)]
    Process(run::Process),
}

/// Where VMs are.
#[derive(Debug, Args)]
pub struct Places {
    /// Folder of the VMs' descriptions and logs [default: $SLOTPASS_STATE_DIR, or /var/lib/slotpass; below ~/.local/state
    /// for others than root]
    #[arg(long, value_name = "FOLDER", global = true)]
    state_dir: Option<PathBuf>,
    /// Folder of the running VMs' sockets and of the records of functions [default: $SLOTPASS_RUN_DIR, or /run/slotpass;
    /// below $XDG_RUNTIME_DIR for others than root]
    #[arg(long, value_name = "FOLDER", global = true)]
    run_dir: Option<PathBuf>,
}

impl Places {
    /// The folders that were given: of descriptions, and of running VMs.
    pub fn given(&self) -> (Option<PathBuf>, Option<PathBuf>) {
        (self.state_dir.clone(), self.run_dir.clone())
    }

    pub fn folders(self) -> Folders {
        Folders::choose(self.state_dir, self.run_dir)
    }

    pub fn store(self) -> Store {
        Store::new(self.folders())
    }
}

/// Does what a command says.
pub fn vms(command: Command, verbose: u8, ppt: Option<Arc<dyn PptHost>>) -> ExitCode {
    match command {
        Command::Create(arguments) => ended(change::create(arguments)),
        Command::Update(arguments) => ended(change::update(arguments)),
        Command::Delete(arguments) => ended(change::delete(arguments)),
        Command::Get(arguments) => ended(show::get(arguments)),
        Command::Vms(arguments) => show::vms(arguments),
        Command::Start(arguments) => ended(run::start(arguments, verbose)),
        Command::Stop(arguments) => ended(run::stop(arguments)),
        Command::Console(arguments) => ended(watch::console(arguments)),
        Command::Log(arguments) => ended(watch::log(arguments)),
        Command::Process(arguments) => run::process(arguments, verbose, ppt),
    }
}

fn ended<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error);
            exit::FAILED
        }
    }
}

/// An error to stderr, each of its lines.
fn say_error(error: &impl Display) {
    for line in error.to_string().lines() {
        let _ = writeln!(io::stderr(), "slotpass: {line}");
    }
}

/// What is worth knowing, to stderr.
fn warn(warnings: &[impl Display]) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "slotpass: warn: {warning}");
    }
}
