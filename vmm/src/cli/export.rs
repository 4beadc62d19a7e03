//! `slotpass export`.

use std::io;
use std::process::ExitCode;

use clap::Args;

use super::exit;
use super::slots::{self, Slots, SlotsError, Sources};
use crate::bhyve::export::{ExportError, Exported};

/// Writes a slot map in the form of another VMM
///
/// It is written as variables of bhyve_config(5), to be read with bhyve -k, or with --args as options of bhyve(8). Functions of
/// /dev/pptN are for illumos, those with an address for FreeBSD. The bridges of bhyve's machine and its other devices are
/// to be added there.
#[derive(Debug, Args)]
pub struct Arguments {
    /// In bhyve's form
    #[arg(long, required = true)]
    bhyve: bool,
    /// As options, not as variables
    #[arg(long)]
    args: bool,
    #[command(flatten)]
    sources: Sources,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Slots(#[from] SlotsError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Export(Vec<ExportError>),
    #[error("stdout: {0}")]
    Output(#[from] io::Error),
}

/// Writes it to stdout.
pub fn export(Arguments { bhyve: _, args, sources }: Arguments) -> ExitCode {
    match write(args, sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            slots::say_error(&error);
            exit::FAILED
        }
    }
}

fn write(args: bool, sources: Sources) -> Result<(), Error> {
    let Slots { assignments, empty_ports, memory, cpus } = sources.read()?;
    let exported = Exported { assignments: &assignments, empty_ports: &empty_ports, memory, cpus };
    let text = if args { exported.arguments() } else { exported.variables() };
    let text = text.map_err(Error::Export)?;
    Ok(slots::print(&text)?)
}
