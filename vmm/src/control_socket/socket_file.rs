//! The socket's file: made as a whole with its permissions, and gone with the machine.

use std::fs::{self, Metadata, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use log::debug;
use vmm_sys_util::tempdir::TempDir;

use super::path::Folder;

/// How long somebody else may hold the folder's lock, in steps of [`STEP`].
const STEPS: u32 = 200;
const STEP: Duration = Duration::from_millis(10);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another program listens there.
    #[error("socket {path}: another slotpass listens there; choose another path, or end that one")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else has that name.
    #[error("socket {path}: something that is no socket has this name; choose another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("socket {path}: {what}: {source}")]
    Make {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// errno.
        source: io::Error,
    },
}

/// A socket that is listened to. Its file goes when this is dropped, unless somebody has replaced it.
pub struct SocketFile {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of its file.
    identity: (u64, u64),
}

impl SocketFile {
    /// Makes a socket that only this user can connect to, in the place of one that nobody listens to any more. Whoever
    /// finds the file can connect.
    pub fn make(path: &Path) -> Result<SocketFile, SocketError> {
        let failed = |what| move |source| SocketError::Make { path: path.to_owned(), what, source };
        let (folder, name) = Folder::of(path).map_err(failed("open of its folder"))?;
        // Of several that want the same path, one at a time finds out whether it is taken.
        lock(&folder).map_err(failed("lock of its folder"))?;
        let place = folder.path(&name);
        match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("stat")(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NoSocket { path: path.to_owned() });
            }
            Ok(_) => match UnixStream::connect(&place) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(_) => return Err(SocketError::InUse { path: path.to_owned() }),
                Err(error) => return Err(failed("connect to the one that is there")(error)),
            },
        }
        // In a folder of its own, which nobody else can enter, until it listens and has its permissions. Its name is a new
        // one each time (mkdtemp), so one that somebody who was killed has left is in nobody's way.
        let inside = TempDir::new_with_prefix(folder.path(".slotpass-"))
            .map_err(|error| failed("making a folder beside it")(error.into()))?;
        let made = listen(&inside.as_path().join("control"), &place);
        drop(inside);
        let (listener, metadata) = made.map_err(failed("listen"))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(SocketFile { path, listener, identity: identity(&metadata) })
    }

    /// For connections; does not block.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

fn lock(folder: &Folder) -> io::Result<()> {
    for _ in 0..STEPS {
        match folder.file().try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(STEP),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn listen(inside: &Path, place: &Path) -> io::Result<(UnixListener, Metadata)> {
    let listener = UnixListener::bind(inside)?;
    let set_up = || -> io::Result<Metadata> {
        listener.set_nonblocking(true)?;
        fs::set_permissions(inside, Permissions::from_mode(0o600))?;
        let metadata = fs::symlink_metadata(inside)?;
        fs::rename(inside, place)?;
        Ok(metadata)
    };
    let metadata = set_up().inspect_err(|_| drop(fs::remove_file(inside)))?;
    Ok((listener, metadata))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path).ok().map(|metadata| identity(&metadata));
        if there == Some(self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            debug!("socket {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_private_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let socket = SocketFile::make(&path).unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let first = SocketFile::make(&path).unwrap();
        assert!(matches!(SocketFile::make(&path), Err(SocketError::InUse { .. })));
        // As one that was killed leaves it.
        fs::rename(&path, folder.path().join("kept")).unwrap();
        drop(first);
        fs::rename(folder.path().join("kept"), &path).unwrap();
        let second = SocketFile::make(&path).unwrap();
        UnixStream::connect(&path).unwrap();

        // What took its place is not its own to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(second);
        assert!(matches!(SocketFile::make(&path), Err(SocketError::NoSocket { .. })));
        assert!(path.exists());
    }

    #[test]
    fn what_a_killed_one_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        // The same process id comes again.
        let left = folder.path().join(format!(".slotpass-{}", std::process::id()));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("control"), "").unwrap();
        let path = folder.path().join("c");
        let socket = SocketFile::make(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what was left, and nothing else");
    }

    #[test]
    fn paths_may_be_longer_than_a_sockets_address() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(200));
        fs::create_dir(&deep).unwrap();
        let socket = SocketFile::make(&deep.join("c")).unwrap();
        let (short, name) = Folder::of(&deep.join("c")).unwrap();
        UnixStream::connect(short.path(name)).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
        for path in ["/", "no/such/folder/c", "/proc/c"] {
            assert!(matches!(SocketFile::make(Path::new(path)), Err(SocketError::Make { .. })), "{path}");
        }
    }
}
