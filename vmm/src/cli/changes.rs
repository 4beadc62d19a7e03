//! Changes of the host, made or shown.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use ppt_files::replace_file::DirectoryLock;

use super::{exit, slots};
use crate::host::reserve::Host;
use crate::host::reserve::carry_out::{self, Failed};
use crate::host::reserve::change::{self, Change};
use crate::host::reserve::plan::Plan;

/// Says something on stderr, in one line.
pub fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "slotpass: {what}");
}

/// Says what stands in the way.
pub fn refuse(refusals: &[impl Display]) -> ExitCode {
    refusals.iter().for_each(say);
    exit::FAILED
}

/// Keeps others from changing drivers at the same time; says why that cannot be.
pub fn lock(command: &str) -> Result<DirectoryLock, ExitCode> {
    // Who a process is, is who its directory belongs to.
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        say(format_args!(
            "{command} changes the drivers of functions, which takes root: sudo slotpass {command} …"
        ));
        return Err(exit::FAILED);
    }
    carry_out::lock().map_err(|error| refuse(&[error]))
}

/// Makes all of a plan's changes or none of them, or prints them.
pub fn make(host: &Host, plan: Plan, dry_run: bool) -> ExitCode {
    plan.notes.iter().for_each(|note| say(format_args!("note: {note}")));
    if dry_run {
        return show(&plan.changes);
    }
    // A file that cannot be edited is found before anything is changed.
    if let Err(error) =
        plan.changes.iter().try_for_each(|change| change::script(change, carry_out::bytes_of).map(drop))
    {
        return refuse(&[error]);
    }
    let mut count = 0;
    let made = carry_out::all_or_nothing(host, &plan.changes, &mut |line| {
        count += 1;
        let _ = slots::print(&(line + "\n"));
    });
    match made {
        Ok(()) => {
            if count == 0 {
                let _ = slots::print("nothing to change\n");
            }
            ExitCode::SUCCESS
        }
        Err(failed) => {
            say_failed(&failed);
            exit::FAILED
        }
    }
}

/// Prints changes as a script for a shell.
pub fn show(changes: &[Change]) -> ExitCode {
    let mut lines = Vec::new();
    for change in changes {
        match change::script(change, carry_out::bytes_of) {
            Ok(script) => lines.extend(script),
            Err(error) => return refuse(&[error]),
        }
    }
    if lines.is_empty() {
        lines.push("# nothing to change".to_owned());
    }
    match slots::print(&(lines.join("\n") + "\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&[format!("stdout: {error}")]),
    }
}

/// Says what failed, and what of it is left.
pub fn say_failed(Failed { error, left }: &Failed) {
    say(error);
    match left.is_empty() {
        true => say("nothing was changed: what was done before that was undone"),
        false => left.iter().for_each(|error| say(format_args!("could not be undone: {error}"))),
    }
}
