//! `slotpass check`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::exit;
use super::slots::{self, Sources};
use crate::slot_map::Assignment;

/// Checks a slot map, given as with run or in bhyve's form, and shows it
///
/// Each function is a line as --slot takes it. No device is looked at, nor any file of a ROM: what is said is true of every
/// host. What of bhyve's form slotpass leaves out goes to stderr.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,
}

/// A name that nothing can have, as a JSON file may give it.
fn unusable(assignment: &Assignment) -> Option<String> {
    let rom = assignment.rom.as_ref().map(|rom| rom.to_string_lossy().into_owned());
    let names = [Some(assignment.device.to_string()), rom];
    names.into_iter().flatten().find(|name| name.is_empty() || name.contains(char::is_control))
}

/// Shows it on stdout.
pub fn check(arguments: Arguments) -> ExitCode {
    let slots = match arguments.sources.read() {
        Ok(slots) => slots,
        Err(error) => {
            slots::say_error(&error);
            return exit::FAILED;
        }
    };
    let mut text = String::new();
    for assignment in &slots.assignments {
        let line = assignment.to_string();
        if let Some(name) = unusable(assignment) {
            let _ = writeln!(
                io::stderr(),
                "slotpass: slot {}: {name:?} is no name of a device or file",
                assignment.slot
            );
            return exit::FAILED;
        }
        if line.parse().as_ref() != Ok(assignment) {
            let slot = assignment.slot;
            let _ = writeln!(
                io::stderr(),
                "slotpass: warn: slot {slot}: --slot cannot say this, for a comma in a name"
            );
        }
        text = text + &line + "\n";
    }
    match slots::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "slotpass: stdout: {error}");
            exit::FAILED
        }
    }
}
