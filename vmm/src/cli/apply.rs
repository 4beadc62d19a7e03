//! `slotpass apply`.

use std::process::ExitCode;

use clap::Args;

use super::{changes, exit, slots};
use crate::host::reserve::change::Change;
use crate::host::reserve::{Host, carry_out, plan};

/// Binds what is reserved to vfio-pci, as at boot
///
/// What that is, is in /etc/ppt_aliases, and in /run/slotpass/ppt_aliases until the host is switched off. What is bound already
/// stays as it is, and nothing is said of it. What a host needs is left to it. Finishes what an interrupted `reserve` began.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Prints each change, as shell commands, and makes none
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
pub fn apply(arguments: &Arguments) -> ExitCode {
    let host = Host::default();
    let _lock = match arguments.dry_run {
        true => None,
        false => match changes::lock("apply") {
            Ok(lock) => Some(lock),
            Err(code) => return code,
        },
    };
    let applied = match plan::apply(&host) {
        Ok(applied) => applied,
        Err(refusal) => return changes::refuse(&[refusal]),
    };
    applied.warnings.iter().for_each(|warning| changes::say(format_args!("warn: {warning}")));
    if arguments.dry_run {
        return changes::show(&applied.changes);
    }
    let mut code = ExitCode::SUCCESS;
    let report = &mut |line: String| drop(slots::print(&(line + "\n")));
    let make = |change: &Change| carry_out::single(&host, change, report);
    carry_out::each(&applied.changes, make, |failed| {
        changes::say_failed(&failed);
        code = exit::FAILED;
    });
    code
}
