//! Carrying changes out, and undoing them.

mod drivers;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use passthru::host::vfio::sysfs;
use passthru::pci::HostAddress;
use ppt_files::file_error::failed;
use ppt_files::file_text::{self, ReadError};
use ppt_files::line_edit;
use ppt_files::replace_file::{self, DirectoryLock, WriteError};

use super::change::{Change, Edit, EditError, Edited, LinesChange, Switch, WholeFile};
use super::{Host, RUN};
pub use drivers::modules_for;

/// A change that failed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A file.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A file of sysfs.
    #[error("{address}: cannot write {}: {source}", path.display())]
    Sysfs {
        /// The function.
        address: HostAddress,
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// There is no such driver, and modprobe does not change that.
    #[error(
        "the kernel has no driver {}: {why}; a kernel with CONFIG_VFIO_PCI has it as a module of that name",
        sysfs::DRIVER
    )]
    NoDriver {
        /// What modprobe said.
        why: String,
    },
    /// The driver was asked, and another has it now, or none.
    #[error("{address}: {} did not take it: {} has it; the kernel's reason: dmesg | grep {address}", sysfs::DRIVER, now.as_deref().unwrap_or("no driver"))]
    NotTaken {
        /// The function.
        address: HostAddress,
        /// Who has it.
        now: Option<String>,
    },
    /// It was given back, and is not the host's.
    #[error(
        "{address}: {now} took it again, without an override; the kernel may say why: dmesg | grep {address}"
    )]
    TakenAgain {
        /// The function.
        address: HostAddress,
        /// The driver.
        now: String,
    },
    /// A function is with none of the two drivers now.
    #[error(
        "{source}; if its alias is in a file, that stays there: slotpass apply takes it to {}, slotpass release {address} \
         gives it back",
        sysfs::DRIVER
    )]
    Between {
        /// The function.
        address: HostAddress,
        /// What failed.
        source: Box<ChangeError>,
    },
    /// A file is as the command made it.
    #[error("{source}; {} is changed still: repeat the command, or slotpass release", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: Box<ChangeError>,
    },
}

impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> ChangeError {
        EditError::Read(error).into()
    }
}

impl From<WriteError> for ChangeError {
    fn from(error: WriteError) -> ChangeError {
        EditError::Write(error).into()
    }
}

/// What could not be undone, after what failed.
#[derive(Debug)]
pub struct Failed {
    /// Why it was given up.
    pub error: ChangeError,
    /// Changes that are still there.
    pub left: Vec<ChangeError>,
}

/// The right to change drivers, among the processes of this program.
pub fn lock() -> Result<DirectoryLock, WriteError> {
    let directory = Path::new(RUN);
    let made = fs::create_dir_all(directory);
    made.map_err(failed("make", directory))?;
    DirectoryLock::take_file(&directory.join("reserving"))
}

/// A file's bytes; nothing if it does not exist.
pub fn bytes_of(path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    match file_text::read(path) {
        Err(error) if error.is_absent() => Ok(None),
        read => read.map(Some),
    }
}

/// Carries all of them out, or none: what was done before one fails is undone. `report` gets a line for each thing done.
pub fn all_or_nothing(host: &Host, changes: &[Change], report: &mut dyn FnMut(String)) -> Result<(), Failed> {
    let mut done: Vec<Done<'_>> = Vec::new();
    for change in changes {
        let mut part = Vec::new();
        let result = one(host, change, &mut part, report);
        done.extend(part);
        if let Err(error) = result {
            return Err(Failed { error, left: undo(host, done) });
        }
    }
    Ok(())
}

/// What could not be undone. A function that is between two drivers keeps its alias, from which that is finished.
fn undo(host: &Host, done: Vec<Done<'_>>) -> Vec<ChangeError> {
    let mut left = Vec::new();
    let mut is_between = false;
    for done in done.into_iter().rev() {
        if is_between && done.is_of_aliases() {
            continue;
        }
        let is_switch = matches!(done, Done::Switched(_));
        if let Err(error) = done.undo(host) {
            is_between |= is_switch;
            left.push(error);
        }
    }
    left
}

/// Carries out changes that do not need each other, but for vfio-pci itself: without that, nothing is taken from its driver.
pub fn each(
    changes: &[Change],
    mut make: impl FnMut(&Change) -> Result<(), Failed>,
    mut failed: impl FnMut(Failed),
) {
    for change in changes {
        if let Err(error) = make(change) {
            failed(error);
            if matches!(change, Change::LoadDriver) {
                return;
            }
        }
    }
}

/// Carries one out; if that fails, it is undone as far as it goes.
pub fn single(host: &Host, change: &Change, report: &mut dyn FnMut(String)) -> Result<(), Failed> {
    all_or_nothing(host, std::slice::from_ref(change), report)
}

/// What was done, or begun, and how it was before.
enum Done<'a> {
    Edited { path: &'a Path, edited: Vec<Edited> },
    Whole(&'a WholeFile),
    Switched(&'a Switch),
}

fn one<'a>(
    host: &Host,
    change: &'a Change,
    done: &mut Vec<Done<'a>>,
    report: &mut dyn FnMut(String),
) -> Result<(), ChangeError> {
    match change {
        Change::Lines(lines) => {
            let edited = edit(lines)?;
            for Edited { before, lines: changed, .. } in &edited {
                for line in line_edit::difference(before, changed) {
                    report(format!("{}: {line}", lines.path.display()));
                }
            }
            done.push(Done::Edited { path: &lines.path, edited });
            Ok(())
        }
        Change::Whole(file) => {
            write_whole(file, file.contents.as_deref())?;
            let verb = if file.contents.is_some() { "written" } else { "removed" };
            report(format!("{}: {verb}", file.path.display()));
            done.push(Done::Whole(file));
            Ok(())
        }
        Change::LoadDriver => drivers::load_vfio_pci(host),
        Change::ToVfio(switch) => {
            done.push(Done::Switched(switch));
            drivers::to_vfio(host, switch)?;
            report(format!("{}: reserved for guests (was with {switch})", switch.address));
            Ok(())
        }
        Change::ToHost(switch) => {
            done.push(Done::Switched(switch));
            let now = drivers::to_host(host, switch, report)?;
            let now = now.unwrap_or_else(|| "no driver; none of the host's wants it".to_owned());
            report(format!("{}: released to {now} (was with {switch})", switch.address));
            Ok(())
        }
    }
}

impl Done<'_> {
    fn undo(self, host: &Host) -> Result<(), ChangeError> {
        match self {
            Done::Edited { path, edited } => {
                let undone = undo_edits(path, edited);
                undone.map_err(|source| ChangeError::Changed { path: path.to_owned(), source: source.into() })
            }
            Done::Whole(file) => {
                let undone = write_whole(file, file.before.as_deref());
                undone
                    .map_err(|source| ChangeError::Changed { path: file.path.clone(), source: source.into() })
            }
            Done::Switched(switch) => {
                let (address, restored) = (switch.address, drivers::restore(host, switch));
                restored.map_err(|source| ChangeError::Between { address, source: source.into() })
            }
        }
    }

    fn is_of_aliases(&self) -> bool {
        let Done::Edited { edited, .. } = self else { return false };
        edited.iter().any(|edited| matches!(edited.edit, Edit::AddAlias(_) | Edit::RemoveAlias(_)))
    }
}

/// Reads, changes and replaces a file, with its directory locked from before the reading.
fn edit(change: &LinesChange) -> Result<Vec<Edited>, ChangeError> {
    let directory = change.path.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        // Nothing is removed from what does not exist.
        if change.carried_out_on(&[])?.is_empty() {
            return Ok(Vec::new());
        }
        fs::create_dir_all(directory).map_err(failed("make", directory)).map_err(WriteError::from)?;
    }
    let _lock = DirectoryLock::take(directory)?;
    let bytes = bytes_of(&change.path)?.unwrap_or_default();
    let edited = change.carried_out_on(&bytes)?;
    if let Some(last) = edited.last() {
        put(&change.path, &last.after)?;
    }
    Ok(edited)
}

/// With the lock of its directory held.
fn put(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    // What a link leads to has been there before this program.
    match bytes.is_empty() && !path.is_symlink() {
        true => replace_file::remove(path),
        false => replace_file::replace(path, bytes),
    }
}

/// Gives a file the bytes that it had. If somebody has changed it since, that stays, and only the edits are taken back.
fn undo_edits(path: &Path, edited: Vec<Edited>) -> Result<(), ChangeError> {
    let (Some(first), Some(last)) = (edited.first(), edited.last()) else { return Ok(()) };
    if let Some(directory) = path.parent().filter(|directory| directory.is_dir()) {
        let _lock = DirectoryLock::take(directory)?;
        if bytes_of(path)?.unwrap_or_default() == last.after {
            return Ok(put(path, &first.before)?);
        }
    }
    let edits = edited.into_iter().rev().map(|edited| edited.edit.inverse()).collect();
    edit(&LinesChange { path: path.to_owned(), edits }).map(drop)
}

fn write_whole(file: &WholeFile, contents: Option<&[u8]>) -> Result<(), ChangeError> {
    let directory = file.path.parent().unwrap_or(Path::new("/"));
    let _lock = DirectoryLock::take(directory)?;
    match contents {
        None => replace_file::remove(&file.path)?,
        Some(contents) if file.executable => replace_file::replace_program(&file.path, contents)?,
        Some(contents) => replace_file::replace(&file.path, contents)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
