//! Names of sockets that may be longer than a socket's address can be.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A folder that is open.
pub struct Folder(File);

impl Folder {
    /// Opens the folder of `path`, and gives its last part with it.
    pub fn of(path: &Path) -> io::Result<(Folder, PathBuf)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((Folder(File::open(folder)?), name.into()))
    }

    /// The folder itself.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// A short path to a name in it, while this is there. A socket's address has 108 bytes.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string()).join(name)
    }
}
