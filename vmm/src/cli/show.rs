//! `slotpass show`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::exit;
use crate::show::{ShowError, Shown, Stands};
use crate::slot_map::DeviceName;
use crate::slot_map::msix_page::MsixPage;

/// Shows what a guest would see of a function, beside what the host has
///
/// Reads sysfs only: the function may be in use, and need not be bound to vfio-pci. As root, since others can read no more
/// than the first 64 bytes of configuration space.
#[derive(Debug, Args)]
pub struct Arguments {
    /// An address (0000:01:00.0), a path in sysfs, a physical path (/pci@0,0/pci8086,151@1/display@0), or sim:NAME
    #[arg(value_name = "DEVICE")]
    device: String,
    /// As a guest sees it behind a root port (--slot 1:0:0=DEVICE,port), not on a root bus
    #[arg(long)]
    port: bool,
    /// As a guest sees it with this option of its slot (--slot 0:8:0=DEVICE,msix-page=trap): trap, or read-only
    #[arg(long, value_name = "HOW", default_value_t, hide_default_value = true)]
    msix_page: MsixPage,
    /// Only the capabilities and registers that differ, and why
    #[arg(long)]
    diff: bool,
    /// As JSON: everything, whether it differs or not
    #[arg(long, conflicts_with = "diff")]
    json: bool,
}

/// Shows it on stdout.
pub fn show(arguments: &Arguments) -> ExitCode {
    let stands = if arguments.port { Stands::BehindPort } else { Stands::RootBus };
    let shown = match Shown::of(&DeviceName::from(arguments.device.as_str()), stands, arguments.msix_page) {
        Ok(shown) => shown,
        Err(error) => return failed(&error),
    };
    let mut out = io::stdout().lock();
    let written = if arguments.json {
        let json = serde_json::to_string_pretty(&shown).map_err(io::Error::from);
        json.and_then(|json| writeln!(out, "{json}"))
    } else {
        write!(out, "{}", shown.text(arguments.diff))
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "slotpass: stdout: {error}");
            exit::FAILED
        }
    }
}

fn failed(error: &ShowError) -> ExitCode {
    let _ = writeln!(io::stderr(), "slotpass: {error}");
    exit::FAILED
}
