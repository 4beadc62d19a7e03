//! Whether a VM runs: its process holds a lock for as long as it lives, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ppt_files::file_error::{FileError, failed};

use super::folders::VmFolders;

/// Bytes of a lock file at most.
const LONGEST: u64 = 64;
/// Who only looks holds the lock for a moment.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);
/// What follows the process id once the guest runs.
const RUNS: &str = "running";
/// What stands there instead of the process id of one that did not end in order.
const CRASHED: &str = "crashed";

/// What a VM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmState {
    /// It has no process.
    Stopped {
        /// Its last one did not end in order.
        crashed: bool,
    },
    /// Its process gets ready.
    Starting {
        /// The process.
        pid: u32,
    },
    /// Its guest runs.
    Running {
        /// The process.
        pid: u32,
    },
}

impl VmState {
    /// In vmadm's words.
    pub fn name(self) -> &'static str {
        match self {
            VmState::Stopped { .. } => "stopped",
            VmState::Starting { .. } => "starting",
            VmState::Running { .. } => "running",
        }
    }

    /// Its process.
    pub fn pid(self) -> Option<u32> {
        match self {
            VmState::Stopped { .. } => None,
            VmState::Starting { pid } | VmState::Running { pid } => Some(pid),
        }
    }

    /// Its last process did not end in order.
    pub fn is_crashed(self) -> bool {
        self == VmState::Stopped { crashed: true }
    }
}

/// Why a VM's lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Its process has it.
    #[error("it is {} already{}", .0.name(), .0.pid().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Runs(VmState),
    /// Somebody has it who does not run the VM.
    #[error("another command holds {}; try again", .path.display())]
    Held {
        /// The lock.
        path: PathBuf,
    },
    /// The host refuses.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The right to run a VM, or to change what nobody may change while it runs.
#[derive(Debug)]
pub struct VmLock {
    file: File,
}

impl VmLock {
    /// Takes it, in the VM's run-time folder, which is made.
    pub fn take(folders: &VmFolders) -> Result<VmLock, LockError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folders.run);
        made.map_err(failed("make", &folders.run))?;
        let path = folders.lock();
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed("open", &path))?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => {
                    let lock = VmLock { file };
                    // Its last holder's number must not look like this one's.
                    if let Said::Process { .. } = read(&lock.file) {
                        lock.say(&format!("{CRASHED}\n")).map_err(failed("write", &path))?;
                    }
                    return Ok(lock);
                }
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source).into()),
            }
        }
        Err(match state(folders) {
            VmState::Stopped { .. } => LockError::Held { path },
            state => LockError::Runs(state),
        })
    }

    /// This process is about to run the VM.
    pub fn say_starting(&self) -> io::Result<()> {
        self.say(&format!("{}\n", std::process::id()))
    }

    /// The guest runs.
    pub fn say_running(&self) -> io::Result<()> {
        self.say(&format!("{}\n{RUNS}\n", std::process::id()))
    }

    /// The process ends in order.
    pub fn say_ended(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    fn say(&self, text: &str) -> io::Result<()> {
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }
}

/// What a VM does now.
pub fn state(folders: &VmFolders) -> VmState {
    let Ok(file) = File::open(folders.lock()) else { return VmState::Stopped { crashed: false } };
    let mut said = Said::Nothing;
    for _ in 0..TRIES {
        let is_held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        said = read(&file);
        match said {
            Said::Process { pid, runs: true } if is_held => return VmState::Running { pid },
            Said::Process { pid, .. } if is_held => return VmState::Starting { pid },
            // Its holder is about to say who it is, or to end; or somebody changes the VM's description.
            _ if is_held => thread::sleep(PAUSE),
            _ => break,
        }
    }
    VmState::Stopped { crashed: said != Said::Nothing }
}

/// What is in a lock's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Crashed,
    Process { pid: u32, runs: bool },
}

fn read(file: &File) -> Said {
    let mut bytes = [0; LONGEST as usize];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    let text = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let mut lines = text.lines();
    match lines.next() {
        Some(CRASHED) => Said::Crashed,
        Some(pid) => {
            pid.parse().map_or(Said::Nothing, |pid| Said::Process { pid, runs: lines.next() == Some(RUNS) })
        }
        None => Said::Nothing,
    }
}

/// Removes what a process left that did not end in order: everything but the lock.
pub fn clean(folders: &VmFolders) {
    for entry in fs::read_dir(&folders.run).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == folders.lock() {
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            log::warn!("{}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vms::Folders;

    #[test]
    fn a_lock_says_what_its_holder_does() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { state: folder.path().join("s"), run: folder.path().join("r") };
        let vm = folders.of_vm(uuid::Uuid::new_v4());
        assert_eq!(state(&vm), VmState::Stopped { crashed: false });
        let pid = std::process::id();
        let lock = VmLock::take(&vm).unwrap();
        lock.say_starting().unwrap();
        assert_eq!(state(&vm), VmState::Starting { pid });
        lock.say_running().unwrap();
        assert_eq!(state(&vm), VmState::Running { pid });
        let error = VmLock::take(&vm).unwrap_err().to_string();
        assert_eq!(error, format!("it is running already (process {pid})"));
        drop(lock);
        assert_eq!(state(&vm), VmState::Stopped { crashed: true });

        // Who holds it for a moment is not the one that crashed, and does not make that forgotten.
        let lock = VmLock::take(&vm).unwrap();
        assert_eq!(state(&vm), VmState::Stopped { crashed: true });
        let error = VmLock::take(&vm).unwrap_err().to_string();
        assert!(error.starts_with("another command holds "), "{error}");
        drop(lock);
        assert_eq!(state(&vm), VmState::Stopped { crashed: true });

        let lock = VmLock::take(&vm).unwrap();
        lock.say_running().unwrap();
        lock.say_ended().unwrap();
        drop(lock);
        assert_eq!(state(&vm), VmState::Stopped { crashed: false });
        fs::create_dir(vm.run.join(".slotpass-x")).unwrap();
        fs::write(vm.console_socket(), "").unwrap();
        clean(&vm);
        assert_eq!(fs::read_dir(&vm.run).unwrap().count(), 1);
    }
}
