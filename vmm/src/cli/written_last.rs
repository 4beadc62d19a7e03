//! A file that is written when all is done, and known to be one that can be before anything is begun.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ppt_files::replace_file::{self, DirectoryLock, WriteError};

/// What the file's name leads to.
#[derive(Debug)]
pub enum WrittenLast {
    /// A regular file, or nothing yet: it is replaced as a whole, and until then it is as it was.
    Replaced(PathBuf),
    /// A pipe, a terminal or the like.
    Open(PathBuf, File),
}

/// It cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WrittenLastError {
    /// Before anything is begun, or a pipe.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// A regular file.
    #[error(transparent)]
    Replace(#[from] WriteError),
}

impl WrittenLast {
    /// A file of this name, which is left as it is.
    pub fn new(path: &Path) -> Result<WrittenLast, WrittenLastError> {
        let failed = |source| WrittenLastError::File { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(path).map_err(failed)?;
                return Ok(WrittenLast::Open(path.to_owned(), file));
            }
            Ok(_) => drop(File::options().write(true).open(path).map_err(failed)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // The new one is written beside it: there must be leave for that.
        tempfile::tempfile_in(directory(path).map_err(failed)?).map_err(failed)?;
        Ok(WrittenLast::Replaced(path.to_owned()))
    }

    /// Writes it.
    pub fn write(self, contents: &[u8]) -> Result<(), WrittenLastError> {
        match self {
            WrittenLast::Open(path, mut file) => {
                file.write_all(contents).map_err(|source| WrittenLastError::File { path, source })
            }
            WrittenLast::Replaced(path) => {
                let failed = |source| WrittenLastError::File { path: path.clone(), source };
                let _lock = DirectoryLock::take(&directory(&path).map_err(failed)?)?;
                Ok(replace_file::replace(&path, contents)?)
            }
        }
    }
}

/// Where the file is that a link leads to.
fn directory(path: &Path) -> io::Result<PathBuf> {
    let target = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        target => target?,
    };
    Ok(match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_it_was_until_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        fs::write(&old, "before").unwrap();
        let [to_old, to_new] = [&old, &new].map(|path| WrittenLast::new(path).unwrap());
        assert_eq!((fs::read(&old).unwrap(), new.exists()), (b"before".to_vec(), false));
        for (path, last) in [(&old, to_old), (&new, to_new)] {
            last.write(b"after").unwrap();
            assert_eq!(fs::read(path).unwrap(), b"after");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn what_is_no_regular_file_is_written_and_not_replaced() {
        let null = Path::new("/dev/null");
        let last = WrittenLast::new(null).unwrap();
        assert!(matches!(last, WrittenLast::Open(..)), "{last:?}");
        last.write(b"page").unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        for path in ["/proc/version", "/", "/proc/slotpass/page.html", "/dev/null/page.html"] {
            assert!(WrittenLast::new(Path::new(path)).is_err(), "{path}");
        }
    }
}
