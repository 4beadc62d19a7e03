//! Carrying changes out, and undoing them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use passthru::host::vfio::sysfs;
use passthru::pci::HostAddress;
use ppt_files::file_error::failed;
use ppt_files::file_text::{self, ReadError};
use ppt_files::line_edit;
use ppt_files::replace_file::{self, DirectoryLock, WriteError};

use super::change::{Change, Edit, EditError, Edited, LinesChange, Switch, WholeFile};
use super::inventory;
use super::{Host, RUN};

/// Where modprobe is if `PATH` does not say so: a user who became root may not have these in it.
const SUPERUSER: &str = "/usr/sbin:/sbin";

/// More ids of one device a driver is not told.
const MOST_IDS: usize = 64;

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
        Change::LoadDriver => load_driver(host),
        Change::ToVfio(switch) => {
            done.push(Done::Switched(switch));
            to_vfio(host, switch)?;
            report(format!("{}: reserved for guests (was with {switch})", switch.address));
            Ok(())
        }
        Change::ToHost(switch) => {
            done.push(Done::Switched(switch));
            let now = to_host(host, switch, report)?;
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
                let (address, restored) = (switch.address, restore(host, switch));
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

fn modprobe(arguments: &[&str]) -> io::Result<std::process::Output> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("modprobe");
    command.args(arguments).env("PATH", format!("{path}:{SUPERUSER}")).stdin(Stdio::null()).output()
}

/// The modules that modprobe would load for a device, by name.
pub fn modules_for(modalias: &str) -> Vec<String> {
    let Ok(output) = modprobe(&["-q", "-R", modalias]) else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn load_driver(host: &Host) -> Result<(), ChangeError> {
    let is_there = || host.sysfs.join("bus/pci/drivers").join(sysfs::DRIVER).is_dir();
    if is_there() {
        return Ok(());
    }
    let why = match modprobe(&[sysfs::DRIVER]) {
        Ok(_) if is_there() => return Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            if said.is_empty() { format!("modprobe ended with {}", output.status) } else { said }
        }
        Err(error) => format!("cannot run modprobe: {error}"),
    };
    Err(ChangeError::NoDriver { why })
}

fn write(address: HostAddress, path: &Path, text: &str) -> Result<(), ChangeError> {
    let written =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| ChangeError::Sysfs { address, path: path.to_owned(), source })
}

fn directory(host: &Host, address: HostAddress) -> PathBuf {
    host.functions().join(address.to_string())
}

fn driver(host: &Host, address: HostAddress) -> Option<String> {
    sysfs::link_name(&directory(host, address).join("driver"))
}

fn set_override(host: &Host, address: HostAddress, driver: Option<&str>) -> Result<(), ChangeError> {
    let text = format!("{}\n", driver.unwrap_or_default());
    write(address, &directory(host, address).join("driver_override"), &text)
}

/// Takes it from whoever has it.
fn unbind(host: &Host, address: HostAddress) -> Result<(), ChangeError> {
    match write(address, &directory(host, address).join("driver/unbind"), &address.to_string()) {
        // Nobody has it, or it was just taken.
        Err(_) if driver(host, address).is_none() => Ok(()),
        written => written,
    }
}

/// Offers it to those drivers that may take it. That none did is no error of this.
fn probe(host: &Host, address: HostAddress) -> Result<(), ChangeError> {
    match write(address, &host.sysfs.join("bus/pci/drivers_probe"), &address.to_string()) {
        Err(_) if driver(host, address).is_some() => Ok(()),
        written => written,
    }
}

/// The override comes first, so that no driver of the host takes the function in between, and stays, so that none does when
/// modules are loaded later.
fn to_vfio(host: &Host, switch: &Switch) -> Result<(), ChangeError> {
    let address = switch.address;
    if switch.new_override() {
        set_override(host, address, Some(sysfs::DRIVER))?;
    }
    if !switch.is_vfio() {
        if switch.driver.is_some() {
            unbind(host, address)?;
        }
        probe(host, address)?;
    }
    match driver(host, address) {
        Some(now) if sysfs::is_vfio(&now) => Ok(()),
        now => Err(ChangeError::NotTaken { address, now }),
    }
}

/// Who has it then.
fn to_host(
    host: &Host,
    switch: &Switch,
    report: &mut dyn FnMut(String),
) -> Result<Option<String>, ChangeError> {
    let address = switch.address;
    if switch.clear_override() {
        set_override(host, address, None)?;
    }
    if switch.is_vfio() {
        unbind(host, address)?;
    }
    if driver(host, address).is_none() {
        // A host that was booted with the function reserved may not have loaded its driver. There may be none.
        if let Some(modalias) = &switch.modalias {
            let _ = modprobe(&["-q", modalias]);
        }
        probe(host, address)?;
    }
    if driver(host, address).as_deref() == Some(sysfs::DRIVER) && forget_ids(host, address)? {
        report(format!(
            "{address}: {} was told its ids, and forgot them until the next boot; for who says them then: \
             grep -r vfio-pci /etc/modprobe.d /proc/cmdline",
            sysfs::DRIVER
        ));
        unbind(host, address)?;
        probe(host, address)?;
    }
    match driver(host, address) {
        Some(now) if sysfs::is_vfio(&now) => Err(ChangeError::TakenAgain { address, now }),
        now => Ok(now),
    }
}

/// Has vfio-pci forget ids that it was told (its parameter `ids`, its file `new_id`), because of which it takes a function
/// that has no override. Whether it knew them.
fn forget_ids(host: &Host, address: HostAddress) -> Result<bool, ChangeError> {
    let id = |file| fs::read_to_string(directory(host, address).join(file)).unwrap_or_default();
    let number = |file| id(file).trim().trim_start_matches("0x").to_owned();
    let path = host.sysfs.join("bus/pci/drivers").join(sysfs::DRIVER).join("remove_id");
    let ids = format!("{} {}", number("vendor"), number("device"));
    let mut knew = false;
    // Each time it forgets one of those that are like these, with whatever subsystem.
    for _ in 0..MOST_IDS {
        match write(address, &path, &ids) {
            Err(ChangeError::Sysfs { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => break,
            written => written?,
        }
        knew = true;
    }
    Ok(knew)
}

/// Gives a function back to whom it was with.
fn restore(host: &Host, switch: &Switch) -> Result<(), ChangeError> {
    let address = switch.address;
    if inventory::driver_override(&directory(host, address)) != switch.driver_override {
        set_override(host, address, switch.driver_override.as_deref())?;
    }
    let now = driver(host, address);
    if now == switch.driver {
        return Ok(());
    }
    if now.is_some() {
        unbind(host, address)?;
    }
    let Some(old) = &switch.driver else { return Ok(()) };
    let bind = host.sysfs.join("bus/pci/drivers").join(old).join("bind");
    write(address, &bind, &address.to_string())
}

#[cfg(test)]
mod tests;
