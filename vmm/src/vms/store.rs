//! The VMs that are kept, a folder for each.

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ppt_files::file_error::{FileError, failed};
use ppt_files::replace_file::{self, DirectoryLock, WriteError};
use uuid::Uuid;

use super::changes;
use super::description::{FieldError, Fields, Listed, Reason, VmDescription};
use super::folders::Folders;
use super::running::{self, LockError, VmLock, VmState};
use super::slots::{self, ThisHost, Warning};

/// Bytes of a description at most.
const LONGEST: u64 = 1 << 20;
/// Begins the names of folders that are not VMs yet, or no longer. A crash may leave them; they are removed later.
const UNFINISHED: &str = ".slotpass-";

/// Why a VM cannot be read, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The host refuses.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file cannot be changed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file that slotpass did not write so.
    #[error("{}: {source}; mend the file, or remove the VM's folder", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FieldError,
    },
    /// A folder with another VM's description.
    #[error("{}: this describes VM {found}; a VM's folder has the name of its uuid", .path.display())]
    OtherVm {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Uuid,
    },
    /// Something else in the folder of VMs.
    #[error("{}: this is no VM's folder", .path.display())]
    Foreign {
        /// What it is.
        path: PathBuf,
    },
    /// No such VM.
    #[error("there is no VM {name:?} in {}; there is: {there}{}", .folder.display(), cannot_be_read(.unread))]
    NoSuchVm {
        /// As given.
        name: String,
        /// Where VMs are kept.
        folder: PathBuf,
        /// Uuids and aliases.
        there: Listed,
        /// VMs whose description cannot be read, of which one may be meant.
        unread: Vec<String>,
    },
    /// It went while this was about to change or to start it.
    #[error("VM {uuid} was deleted meanwhile")]
    Deleted {
        /// The VM.
        uuid: Uuid,
    },
    /// Descriptions that were edited by hand.
    #[error("more than one VM has the alias {alias:?}: {vms}; name the one that is meant by its uuid")]
    Ambiguous {
        /// As given.
        alias: String,
        /// Their uuids.
        vms: Listed,
    },
    /// More than is read.
    #[error("the description has {length} bytes; it can have {LONGEST}")]
    TooLong {
        /// How many.
        length: usize,
    },
    /// What is asked for is no VM.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Fields(Vec<FieldError>),
    /// It has to be stopped first.
    #[error("VM {name}: {source}{}", stop_first(.source, .uuid))]
    Lock {
        /// The VM with its alias.
        name: String,
        /// The VM.
        uuid: Uuid,
        /// Why it cannot be had.
        source: LockError,
    },
}

fn cannot_be_read(unread: &[String]) -> String {
    match unread {
        [] => String::new(),
        unread => format!("; the descriptions of these cannot be read: {}", unread.join(", ")),
    }
}

fn stop_first(source: &LockError, uuid: &Uuid) -> String {
    match source {
        LockError::Runs(_) => format!("; stop it first: slotpass stop {uuid}"),
        _ => String::new(),
    }
}

/// The name of a folder, and the VM in it.
type Entry = (String, Result<VmDescription, StoreError>);

/// All VMs of a user.
#[derive(Clone, Debug)]
pub struct Store {
    folders: Folders,
}

impl Store {
    /// In these folders, which need not exist.
    pub fn new(folders: Folders) -> Store {
        Store { folders }
    }

    /// Where they are.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// What a VM does now.
    pub fn state(&self, vm: Uuid) -> VmState {
        running::state(&self.folders.of_vm(vm))
    }

    /// All VMs by uuid, and an error for each that cannot be read.
    pub fn list(&self) -> Result<Vec<Result<VmDescription, StoreError>>, StoreError> {
        Ok(self.entries()?.into_iter().map(|(_, vm)| vm).collect())
    }

    /// The same, with the names of their folders.
    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let folder = &self.folders.state;
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("read", folder))?,
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        let read = |name: std::ffi::OsString| {
            let text = name.to_string_lossy().into_owned();
            if text.starts_with('.') {
                return None;
            }
            let vm = match uuid_of(&text) {
                Some(uuid) => self.read(uuid),
                None => Err(StoreError::Foreign { path: folder.join(&name) }),
            };
            Some((text, vm))
        };
        Ok(names.into_iter().filter_map(read).collect())
    }

    /// A VM by its uuid.
    pub fn read(&self, uuid: Uuid) -> Result<VmDescription, StoreError> {
        let path = self.folders.of_vm(uuid).description();
        let text = read_text(&path).map_err(failed("read", &path))?;
        let vm = VmDescription::parse(&text)
            .map_err(|source| StoreError::Damaged { path: path.clone(), source })?;
        if vm.uuid == uuid { Ok(vm) } else { Err(StoreError::OtherVm { path, found: vm.uuid }) }
    }

    /// A VM by its uuid or alias.
    pub fn find(&self, name: &str) -> Result<VmDescription, StoreError> {
        let uuid = self.uuid_of(name)?;
        self.read(uuid)
    }

    /// The uuid of the VM with this uuid or alias, also if its description cannot be read.
    pub fn uuid_of(&self, name: &str) -> Result<Uuid, StoreError> {
        if let Ok(uuid) = Uuid::try_parse(name)
            && self.folders.of_vm(uuid).state.is_dir()
        {
            return Ok(uuid);
        }
        let (mut all, mut unread) = (Vec::new(), Vec::new());
        for (name, vm) in self.entries()? {
            match vm {
                Ok(vm) => all.push(vm),
                Err(StoreError::Foreign { .. }) => {}
                Err(_) => unread.push(name),
            }
        }
        let named: Vec<Uuid> =
            all.iter().filter(|vm| vm.alias.as_deref() == Some(name)).map(|vm| vm.uuid).collect();
        let listed = |uuids: &[Uuid]| Listed(uuids.iter().map(Uuid::to_string).collect());
        match named.as_slice() {
            [] => {
                let there = Listed(all.iter().map(VmDescription::name).collect());
                let folder = self.folders.state.clone();
                Err(StoreError::NoSuchVm { name: name.to_owned(), folder, there, unread })
            }
            [uuid] => Ok(*uuid),
            several => Err(StoreError::Ambiguous { alias: name.to_owned(), vms: listed(several) }),
        }
    }

    /// What messages call a VM: its uuid, with its alias where its description can be read.
    pub fn name(&self, uuid: Uuid) -> String {
        self.read(uuid).map_or_else(|_| uuid.to_string(), |vm| vm.name())
    }

    /// Keeps a new VM.
    pub fn create(&self, fields: Fields) -> Result<(VmDescription, Vec<Warning>), StoreError> {
        let root = &self.folders.state;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
        made.map_err(failed("make", root))?;
        let _lock = DirectoryLock::take(root)?;
        self.remove_unfinished();
        let vm = changes::create(fields, &ThisHost).map_err(StoreError::Fields)?;
        let others = self.check_names(&vm)?;
        let place = self.folders.of_vm(vm.uuid).state;
        if fs::symlink_metadata(&place).is_ok() {
            return Err(StoreError::Fields(vec![FieldError::invalid("uuid", Reason::UuidTaken)]));
        }
        // Elsewhere first: a folder with a VM's name has a description.
        let new = root.join(format!("{UNFINISHED}{}", vm.uuid));
        DirBuilder::new().mode(0o700).create(&new).map_err(failed("make", &new))?;
        write(&new.join("vm.json"), &vm).inspect_err(|_| drop(fs::remove_dir_all(&new)))?;
        fs::rename(&new, &place).map_err(failed("make", &place))?;
        replace_file::sync_directory(root)?;
        let warnings = slots::warnings(&vm, &others, &ThisHost);
        Ok((vm, warnings))
    }

    /// Changes a VM.
    pub fn update(&self, name: &str, change: Fields) -> Result<Vec<Warning>, StoreError> {
        let uuid = self.uuid_of(name)?;
        let folders = self.folders.of_vm(uuid);
        let _names = DirectoryLock::take(&self.folders.state)?;
        // Its process takes this before it reads the description, and is seen to run from then on.
        let _vm = self.lock_description(uuid)?;
        let old = self.read(uuid)?;
        let new =
            changes::update(&old, change, running::state(&folders), &ThisHost).map_err(StoreError::Fields)?;
        let others = self.check_names(&new)?;
        write(&folders.description(), &new)?;
        Ok(slots::warnings(&new, &others, &ThisHost))
    }

    /// Removes a VM that does not run, with its logs.
    pub fn delete(&self, uuid: Uuid) -> Result<(), StoreError> {
        let root = &self.folders.state;
        let folders = self.folders.of_vm(uuid);
        let _names = DirectoryLock::take(root)?;
        // A start that has read the description has the VM's lock as well when it gives this one up.
        let _vm = self.lock_description(uuid)?;
        let lock = self.lock(uuid)?;
        let gone = root.join(format!("{UNFINISHED}{uuid}"));
        let _ = fs::remove_dir_all(&gone);
        fs::rename(&folders.state, &gone).map_err(failed("remove", &folders.state))?;
        replace_file::sync_directory(root)?;
        fs::remove_dir_all(&gone).map_err(failed("remove", &gone))?;
        // The lock's file last, and while it is held.
        running::clean(&folders);
        fs::remove_dir_all(&folders.run).map_err(failed("remove", &folders.run))?;
        drop(lock);
        Ok(())
    }

    /// Keeps a VM from being started.
    pub fn lock(&self, uuid: Uuid) -> Result<VmLock, StoreError> {
        VmLock::take(&self.folders.of_vm(uuid)).map_err(|source| StoreError::Lock {
            name: self.name(uuid),
            uuid,
            source,
        })
    }

    /// Holds off changes to a VM's description, and gives it.
    pub fn read_locked(&self, uuid: Uuid) -> Result<(VmDescription, DirectoryLock), StoreError> {
        let lock = self.lock_description(uuid)?;
        Ok((self.read(uuid)?, lock))
    }

    fn lock_description(&self, uuid: Uuid) -> Result<DirectoryLock, StoreError> {
        let folder = self.folders.of_vm(uuid).state;
        let lock = DirectoryLock::take(&folder);
        // Whoever has waited for a `delete` has the lock of a folder without a name.
        if matches!(fs::symlink_metadata(&folder), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return Err(StoreError::Deleted { uuid });
        }
        Ok(lock?)
    }

    /// An alias names one VM. Gives the other VMs.
    fn check_names(&self, vm: &VmDescription) -> Result<Vec<VmDescription>, StoreError> {
        let all = self.list()?.into_iter().flatten();
        let others: Vec<VmDescription> = all.filter(|other| other.uuid != vm.uuid).collect();
        match others.iter().find(|other| other.alias.is_some() && other.alias == vm.alias) {
            Some(other) => {
                let taken = FieldError::invalid("alias", Reason::AliasTaken(other.uuid));
                Err(StoreError::Fields(vec![taken]))
            }
            None => Ok(others),
        }
    }

    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.folders.state).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// As folders have it: no other form of a uuid names one.
fn uuid_of(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|uuid| uuid.to_string() == text)
}

fn write(path: &Path, vm: &VmDescription) -> Result<(), StoreError> {
    let mut text = format!("{:#}", vm.to_json());
    text.push('\n');
    if text.len() as u64 > LONGEST {
        return Err(StoreError::TooLong { length: text.len() });
    }
    Ok(replace_file::replace(path, text.as_bytes())?)
}

/// Nothing but a file, and not without end.
fn read_text(path: &Path) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}
