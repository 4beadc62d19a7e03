//! Files that a guest finds as a function's expansion ROM.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use passthru::pci::bar::ROM_SIZES;
use passthru::pci::rom::{RomError, RomImage};

/// Why a file is no ROM.
#[derive(Debug, thiserror::Error)]
pub enum RomFileError {
    /// It cannot be read.
    #[error("rom={path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("rom={path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RomError,
    },
}

/// Reads a file.
pub fn read(path: &Path) -> Result<RomImage, RomFileError> {
    let mut contents = Vec::new();
    // One byte more than there may be tells that it is too large, whatever it is.
    open(path)
        .and_then(|file| file.take(ROM_SIZES.end() + 1).read_to_end(&mut contents))
        .map_err(|source| RomFileError::Read { path: path.to_owned(), source })?;
    RomImage::new(contents).map_err(|source| RomFileError::Content { path: path.to_owned(), source })
}

/// Nothing but a file: a pipe would wait for a writer.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_that_are_none_say_why() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap();
        let path = file.as_path().to_owned();
        let reason = || read(&path).unwrap_err().to_string();
        assert!(reason().ends_with("it is empty"));
        file.as_file().write_all(&[0x55, 0xaa, 1]).unwrap();
        assert_eq!(read(&path).unwrap().bar_size(), 2048);
        file.as_file().set_len(ROM_SIZES.end() + 1).unwrap();
        assert!(reason().contains("16 MiB at most"));
        for other in ["/dev/zero", "/dev/tty", "/dev/null"] {
            let reason = read(Path::new(other)).unwrap_err().to_string();
            assert!(reason.starts_with(&format!("rom={other}: ")), "{reason}");
        }
        assert!(read(Path::new("/")).unwrap_err().to_string().starts_with("rom=/: "));
    }
}
