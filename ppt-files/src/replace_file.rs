//! Small files that are changed as a whole or not at all, whatever interrupts it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::file_error::{FileError, failed};

/// Permissions of a file that was not there.
const MODE: u32 = 0o644;
/// Of a program.
const PROGRAM: u32 = 0o755;
/// How long another process may hold a directory or a file. Nobody keeps it while waiting for a person; who changes drivers
/// keeps it until they have let go of their devices, which rarely takes as long.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A file that could not be changed. It is as it was, unless only its directory could not be written to the drive.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The host refuses.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process is changing files there, and does not end.
    #[error("{}: another slotpass has been changing files there for {} seconds; look for it with: pgrep -a slotpass", path.display(), PATIENCE.as_secs())]
    Locked {
        /// The directory or file.
        path: PathBuf,
    },
}

/// The right to change files in a directory, among the processes of this program, until it is dropped or they end. Whoever
/// writes what it makes of what it read takes it before reading.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "the lock goes when the file is closed")] File);

impl DirectoryLock {
    /// Waits for it, for some seconds.
    pub fn take(directory: &Path) -> Result<DirectoryLock, WriteError> {
        let file = File::open(directory).map_err(failed("open", directory))?;
        DirectoryLock::of(file, directory)
    }

    /// The same for a file that is there for this alone. Nobody else can open it, and keep it locked.
    pub fn take_file(path: &Path) -> Result<DirectoryLock, WriteError> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        DirectoryLock::of(file.map_err(failed("open", path))?, path)
    }

    fn of(file: File, directory: &Path) -> Result<DirectoryLock, WriteError> {
        let begin = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(DirectoryLock(file)),
                Err(TryLockError::WouldBlock) if begin.elapsed() < PATIENCE => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(WriteError::Locked { path: directory.to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(failed("lock", directory)(source).into()),
            }
        }
    }
}

/// Gives a file these contents. It keeps its owner and permissions; where it is a link, what it leads to is replaced. Readers
/// find the old contents or the new, also after a crash of the process or the host. The directory has to exist.
///
/// With [`DirectoryLock`] of the directory held.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), WriteError> {
    Ok(replace_as(path, contents, None)?)
}

/// The same for a program, which anybody may run from the moment that it is there.
pub fn replace_program(path: &Path, contents: &[u8]) -> Result<(), WriteError> {
    Ok(replace_as(path, contents, Some(PROGRAM))?)
}

fn replace_as(path: &Path, contents: &[u8], mode: Option<u32>) -> Result<(), FileError> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(source) if source.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(source) => return Err(failed("find", path)(source)),
    };
    let new = beside(&target);
    let written = write_new(&new, &target, contents, mode).and_then(|()| {
        fs::rename(&new, &target).map_err(failed("replace", &target))?;
        sync_directory(directory_of(&target))
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Removes a file for good. One that is not there is removed already.
pub fn remove(path: &Path) -> Result<(), WriteError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => {
            removed.map_err(failed("remove", path))?;
            Ok(sync_directory(directory_of(path))?)
        }
    }
}

/// Always the same name, so that what a crash leaves is overwritten by the next change.
fn beside(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".slotpass-new");
    target.with_file_name(name)
}

fn write_new(new: &Path, target: &Path, contents: &[u8], mode: Option<u32>) -> Result<(), FileError> {
    // Not what somebody else may have put there under this name.
    match fs::remove_file(new) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", new)(source));
        }
        _ => {}
    }
    let unwritten = failed("write", new);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(&unwritten)?;
    file.write_all(contents).map_err(&unwritten)?;
    let old_mode = match fs::metadata(target) {
        Ok(old) => {
            let own = file.metadata().map_err(&unwritten)?;
            // Only root can give files away; who is not keeps what is his.
            if old.uid() != own.uid() {
                fchown(&file, Some(old.uid()), Some(old.gid())).map_err(&unwritten)?;
            } else if old.gid() != own.gid() {
                match fchown(&file, None, Some(old.gid())) {
                    // A group that its owner is not in (any longer).
                    Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {}
                    set => set.map_err(&unwritten)?,
                }
            }
            old.mode() & 0o7777
        }
        Err(_) => MODE,
    };
    let mode = mode.unwrap_or(old_mode);
    match file.set_permissions(Permissions::from_mode(mode)) {
        // On a file system without permissions (FAT, as boot keys have it) a new file has what it is mounted with.
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied && !target.exists() => {}
        set => set.map_err(&unwritten)?,
    }
    file.sync_all().map_err(&unwritten)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes new and removed names in a directory outlive a power failure.
pub fn sync_directory(directory: &Path) -> Result<(), FileError> {
    let synced = File::open(directory).and_then(|file| file.sync_all());
    match synced.map_err(|source| (source.raw_os_error(), source)) {
        // Not every file system can do that to a directory; the name is changed all the same.
        Err((Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS), _)) => Ok(()),
        synced => synced.map_err(|(_, source)| failed("write", directory)(source)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn contents_change_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ppt_aliases");
        replace(&file, b"one\n").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, MODE);
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        // What a crash left.
        fs::write(directory.path().join(".ppt_aliases.slotpass-new"), "half").unwrap();
        let link = directory.path().join("link");
        symlink(&file, &link).unwrap();
        replace(&link, b"two\n").unwrap();
        assert!(link.is_symlink());
        assert_eq!(
            (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().mode() & 0o777),
            (b"two\n".to_vec(), 0o640)
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
        remove(&file).unwrap();
        remove(&file).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_link_that_stands_where_the_new_file_is_written_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (directory.path().join("a"), directory.path().join("other"));
        fs::write(&other, "other").unwrap();
        symlink(&other, directory.path().join(".a.slotpass-new")).unwrap();
        replace(&file, b"a").unwrap();
        assert_eq!((fs::read(&file).unwrap(), fs::read(&other).unwrap()), (b"a".to_vec(), b"other".to_vec()));
    }

    #[test]
    fn a_program_is_one_from_the_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hook");
        for mode in [None, Some(0o644)] {
            if let Some(mode) = mode {
                fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            }
            replace_program(&file, b"#!/bin/sh\n").unwrap();
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, PROGRAM, "{mode:?}");
        }
    }

    #[test]
    fn a_file_keeps_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        replace(&file, b"a").unwrap();
        // Who may not do this has no file of another group.
        if std::os::unix::fs::chown(&file, None, Some(12_345)).is_ok() {
            replace(&file, b"b").unwrap();
            assert_eq!(fs::metadata(&file).unwrap().gid(), 12_345);
        }
    }

    #[test]
    fn directories_that_cannot_be_synchronized_are_no_error() {
        // /proc is such a file system.
        assert!(File::open("/proc/self").unwrap().sync_all().is_err());
        sync_directory(Path::new("/proc/self")).unwrap();
        assert!(sync_directory(Path::new("/no/such/directory")).is_err());
    }

    #[test]
    fn a_file_that_is_locked_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("reserving");
        let lock = DirectoryLock::take_file(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(File::open(&file).unwrap().try_lock(), Err(TryLockError::WouldBlock)));
        drop(lock);
        File::open(&file).unwrap().try_lock().unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_said_and_stays() {
        let error = replace(Path::new("/no/such/directory/file"), b"").unwrap_err().to_string();
        assert!(error.starts_with("cannot write /no/such/directory/.file.slotpass-new: "), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("is-a-directory");
        fs::create_dir(&file).unwrap();
        assert!(replace(&file, b"x").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_at_a_time_changes_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let counter = directory.path().join("counter");
        replace(&counter, b"0").unwrap();
        let add = || {
            for _ in 0..20 {
                let _lock = DirectoryLock::take(directory.path()).unwrap();
                let value: u32 = fs::read_to_string(&counter).unwrap().parse().unwrap();
                replace(&counter, (value + 1).to_string().as_bytes()).unwrap();
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(add))));
        assert_eq!(fs::read_to_string(&counter).unwrap(), "80");
    }
}
