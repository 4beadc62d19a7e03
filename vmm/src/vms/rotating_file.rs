//! A file that only grows to a limit: then it gets another name, in the place of the one that had it before.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a log, after which a new one is begun. One old log is kept.
pub const LIMIT: u64 = 1 << 20;

/// A log. Writing never fails and never ends who writes: what the disk does not take is left out.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    limit: u64,
    size: u64,
    file: Option<File>,
}

impl RotatingFile {
    /// Goes on with the file at `path`. That it cannot be opened is an error here, though not later.
    pub fn open(path: &Path, limit: u64) -> io::Result<RotatingFile> {
        let mut log = RotatingFile { path: path.to_owned(), limit, size: 0, file: None };
        log.reopen()?;
        Ok(log)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            self.file = None;
            fs::rename(&self.path, old(&self.path))?;
        }
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.put(bytes).is_err() {
            // Its size is asked for again, since some of the bytes may be there.
            self.file = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The name of the log before.
pub fn old(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".0");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_and_the_one_before_it_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = RotatingFile::open(&path, 10).unwrap();
        for line in ["first\n", "two\n", "third\n", "4\n", "a line that is longer than the log\n", "6\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "6\n");
        assert_eq!(read(&old(&path)), "a line that is longer than the log\n");
        drop(log);
        let mut log = RotatingFile::open(&path, 10).unwrap();
        log.write_all(b"7\n").unwrap();
        assert_eq!(read(&path), "6\n7\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_disk_that_takes_nothing_fails_nobody() {
        let mut log = RotatingFile::open(Path::new("/dev/full"), 10).unwrap();
        for _ in 0..10 {
            assert_eq!(log.write(b"lost\n").unwrap(), 5);
        }
        assert!(RotatingFile::open(Path::new("/no/such/folder/log"), 10).is_err());
    }
}
