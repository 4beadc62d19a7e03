//! Which VM has which of this host's functions: a small file for each function, held locked by the VM's process.
//!
//! A file that nobody holds was left by a process that did not end in order, or whose reset of the function failed: the
//! function is as its guest left it, which is called dirty, until a reset of it succeeded. Files are made and locked before a
//! function is opened, and removed after it was reset and closed. A function that has no reset is as it is after an end in
//! order too, but is not called dirty then: nothing would ever change that.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use log::warn;
use parking_lot::Mutex;
use passthru::pci::{HostAddress, Slot};
use ppt_files::file_error::{FileError, failed};
use serde::{Deserialize, Serialize};

/// A record has far fewer bytes.
const LONGEST: u64 = 4096;
/// Who only looks holds a file for a moment.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// What a function's file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The VM.
    pub uuid: String,
    /// The function's slot in it.
    pub slot: String,
    /// The VM's process.
    pub pid: u32,
}

/// What is known of a function that has a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A VM that runs has it.
    Used(Record),
    /// A VM had it, and it was not reset after that although it should have been. Without a record the file cannot be understood.
    Left(Option<Record>),
}

/// Why functions cannot be a VM's.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another VM has it.
    #[error(
        "slot {slot}: {address} is in slot {} of VM {}, which runs (process {}); stop that VM first: slotpass stop {}",
        .by.slot, .by.uuid, .by.pid, .by.uuid
    )]
    Used {
        /// Where it was to be.
        slot: Slot,
        /// The function.
        address: HostAddress,
        /// Who has it.
        by: Record,
    },
    /// Somebody holds its file and does not say who.
    #[error("slot {slot}: {address}: another process holds {}", .path.display())]
    Held {
        /// Where it was to be.
        slot: Slot,
        /// The function.
        address: HostAddress,
        /// Its file.
        path: PathBuf,
    },
    /// The host refuses.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The functions of one VM, in a folder that all VMs share.
#[derive(Debug)]
pub struct DeviceRecords {
    folder: PathBuf,
    vm: String,
    accept_dirty: bool,
    held: Mutex<BTreeMap<HostAddress, Held>>,
}

/// A file that is held.
#[derive(Debug)]
struct Held {
    file: File,
    path: PathBuf,
    /// What it says now.
    record: Record,
    /// Who left the function as it is, until it was reset.
    dirty: Option<Record>,
}

impl DeviceRecords {
    /// For the VM `vm`, which has no function yet. With `accept_dirty` it takes dirty functions that cannot be reset.
    pub fn new(folder: &Path, vm: &str, accept_dirty: bool) -> DeviceRecords {
        let (folder, vm) = (folder.to_owned(), vm.to_owned());
        DeviceRecords { folder, vm, accept_dirty, held: Mutex::default() }
    }

    /// Takes functions for the VM before they are opened: all of them or none.
    pub fn claim(&self, functions: &[(Slot, HostAddress)]) -> Result<(), RecordError> {
        if functions.is_empty() {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(failed("make", &self.folder))?;
        let mut claimed = Vec::new();
        // In one order for all: of two VMs that want the same functions at the same time, one gets them.
        let mut functions = functions.to_vec();
        functions.sort_by_key(|(_, address)| *address);
        for (slot, address) in &functions {
            match self.hold(*slot, *address) {
                Ok(held) => claimed.push((*address, held)),
                Err(error) => {
                    claimed.into_iter().for_each(|(_, held)| held.let_go());
                    return Err(error);
                }
            }
        }
        self.held.lock().extend(claimed);
        Ok(())
    }

    fn hold(&self, slot: Slot, address: HostAddress) -> Result<Held, RecordError> {
        let path = self.folder.join(address.to_string());
        let file = self.lock(slot, address, &path)?;
        let mut text = Vec::new();
        (&file).take(LONGEST).read_to_end(&mut text).map_err(failed("read", &path))?;
        let unknown = || Record { uuid: "unknown".to_owned(), slot: "unknown".to_owned(), pid: 0 };
        let dirty = (!text.is_empty()).then(|| parse(&text).unwrap_or_else(unknown));
        let record = Record { uuid: self.vm.clone(), slot: slot.to_string(), pid: std::process::id() };
        let held = Held { file, path, record, dirty };
        if let Err(error) = held.write(&held.record) {
            let error = failed("write", &held.path)(error);
            held.let_go();
            return Err(error.into());
        }
        Ok(held)
    }

    /// The function's file, locked and still there under its name.
    fn lock(&self, slot: Slot, address: HostAddress, path: &Path) -> Result<File, RecordError> {
        let open =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        for _ in 0..TRIES {
            let file = open().map_err(failed("open", path))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => return Ok(file),
                Ok(()) | Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(source)) => return Err(failed("lock", path)(source).into()),
            }
        }
        Err(match look(path) {
            Some(Recorded::Used(by)) => RecordError::Used { slot, address, by },
            _ => RecordError::Held { slot, address, path: path.to_owned() },
        })
    }

    /// Who left a function as it is, if somebody did and it matters. `name` is what the host calls it.
    pub fn dirty(&self, name: &str) -> Option<String> {
        let held = self.held.lock();
        let record = held.get(&name.parse().ok()?)?.dirty.as_ref()?;
        (!self.accept_dirty).then(|| record.uuid.clone())
    }

    /// A function was reset, or was accepted as it is: who had it before matters no longer.
    pub fn forget_last_user(&self, name: &str) {
        if let Ok(address) = name.parse()
            && let Some(held) = self.held.lock().get_mut(&address)
        {
            held.dirty = None;
        }
    }

    /// The guest has left a function, and its reset failed: it is dirty when it is let go.
    pub fn was_not_reset(&self, name: &str) {
        if let Ok(address) = name.parse()
            && let Some(held) = self.held.lock().get_mut(&address)
        {
            held.dirty = Some(held.record.clone());
        }
    }

    /// The VM no longer has a function, and it is closed.
    pub fn let_go(&self, name: &str) {
        if let Some(held) = name.parse().ok().and_then(|address| self.held.lock().remove(&address)) {
            held.let_go();
        }
    }

    /// The VM no longer has any function.
    pub fn let_go_all(&self) {
        std::mem::take(&mut *self.held.lock()).into_values().for_each(Held::let_go);
    }
}

impl Held {
    /// In place, so that the lock stays what it is.
    fn write(&self, record: &Record) -> io::Result<()> {
        let mut text = serde_json::to_vec(record)?;
        text.push(b'\n');
        self.file.write_all_at(&text, 0)?;
        self.file.set_len(text.len() as u64)
    }

    /// A function that was dirty and was not reset still is.
    fn let_go(self) {
        let done = match &self.dirty {
            Some(record) => self.write(record),
            None => fs::remove_file(&self.path),
        };
        if let Err(error) = done {
            warn!("{}: {error}", self.path.display());
        }
    }
}

fn parse(text: &[u8]) -> Option<Record> {
    serde_json::from_slice(text.split(|byte| *byte == b'\n').next()?).ok()
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (there, own) = (fs::symlink_metadata(path).map(identity), file.metadata().map(identity));
    matches!((there, own), (Ok(there), Ok(own)) if there == own)
}

/// What a function's file says, if there is one.
fn look(path: &Path) -> Option<Recorded> {
    for _ in 0..TRIES {
        let file = File::open(path).ok()?;
        let is_held = match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(_)) => return None,
        };
        let mut text = Vec::new();
        let read = (&file).take(LONGEST).read_to_end(&mut text);
        match (is_held, read.ok().and_then(|_| parse(&text))) {
            (true, Some(record)) => return Some(Recorded::Used(record)),
            // Its holder is about to write it, or to remove it.
            (true, None) => thread::sleep(PAUSE),
            // Whoever made it ended before the function was opened.
            (false, None) if text.is_empty() => return None,
            (false, record) if is_at(&file, path) => return Some(Recorded::Left(record)),
            (false, _) => return None,
        }
    }
    None
}

/// What is recorded of one function; nothing if no VM has it or left it.
pub fn of(folder: &Path, address: HostAddress) -> Option<Recorded> {
    look(&folder.join(address.to_string()))
}

/// What is recorded of all functions. Empty without the folder; other errors are those of reading it.
pub fn all(folder: &Path) -> io::Result<BTreeMap<HostAddress, Recorded>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let address = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<HostAddress>().ok();
    let addresses = entries.flatten().filter_map(address);
    Ok(addresses.filter_map(|address| Some((address, of(folder, address)?))).collect())
}
