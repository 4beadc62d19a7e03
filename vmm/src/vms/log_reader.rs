//! Reads a VM's log, the old file before the new one, and goes on with what is written to it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::rotating_file;

/// How often a log is looked at.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A log that is read on.
pub struct LogReader {
    path: PathBuf,
    file: Option<File>,
}

impl LogReader {
    /// Writes the last `lines` lines, or all of them, and gives what comes after. There may be no log yet.
    pub fn begin(path: &Path, lines: Option<usize>, out: &mut impl Write) -> io::Result<LogReader> {
        // In this order nothing is left out by a new file that is begun meanwhile, though it may come twice.
        let mut all = open(path)?;
        let old = open(&rotating_file::old(path))?;
        match lines {
            None => {
                for file in [old.as_ref(), all.as_ref()].into_iter().flatten() {
                    copy(file, out)?;
                }
            }
            Some(lines) => {
                let mut last = VecDeque::new();
                for file in [old, all.as_ref().map(File::try_clone).transpose()?].into_iter().flatten() {
                    keep_last(file, lines, &mut last)?;
                }
                last.iter().try_for_each(|line| out.write_all(line))?;
            }
        }
        Ok(LogReader { path: path.to_owned(), file: all.take() })
    }

    /// Writes what has come since.
    pub fn read_on(&mut self, out: &mut impl Write) -> io::Result<()> {
        let Some(file) = &self.file else {
            self.file = open(&self.path)?;
            return self.file.as_ref().map_or(Ok(()), |file| copy(file, out));
        };
        // Asked first: a file that has another name by now gets no more after that.
        let is_old = match (fs::metadata(&self.path), file.metadata()) {
            (Ok(there), Ok(own)) => (there.dev(), there.ino()) != (own.dev(), own.ino()),
            _ => true,
        };
        copy(file, out)?;
        if is_old {
            self.file = open(&self.path)?;
            self.file.as_ref().map_or(Ok(()), |file| copy(file, out))?;
        }
        Ok(())
    }

    /// Writes what comes, until nobody takes it or the log's folder is gone.
    pub fn follow(&mut self, out: &mut (impl Write + AsFd)) -> io::Result<()> {
        loop {
            self.read_on(out)?;
            out.flush()?;
            if self.path.parent().is_some_and(|folder| !folder.exists()) {
                return Ok(());
            }
            // Told without being asked for: the other end is closed.
            let mut fds = [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::empty())];
            match poll(&mut fds, Some(&PAUSE)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn copy(file: &File, out: &mut impl Write) -> io::Result<()> {
    // Not without end where it is written faster than it is read.
    io::copy(&mut file.take(2 * rotating_file::LIMIT), out).map(drop)
}

fn keep_last(file: File, lines: usize, last: &mut VecDeque<Vec<u8>>) -> io::Result<()> {
    let mut file = BufReader::new(file.take(2 * rotating_file::LIMIT));
    loop {
        let mut line = Vec::new();
        if file.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        last.push_back(line);
        if last.len() > lines {
            last.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rotating_file::RotatingFile;
    use super::*;

    #[test]
    fn a_log_is_followed_into_the_next_file_and_before_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("platform.log");
        let mut seen = Vec::new();
        let mut reader = LogReader::begin(&path, None, &mut seen).unwrap();
        reader.read_on(&mut seen).unwrap();
        let mut log = RotatingFile::open(&path, 12).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n"] {
            log.write_all(line.as_bytes()).unwrap();
            reader.read_on(&mut seen).unwrap();
        }
        assert_eq!(String::from_utf8(seen).unwrap(), "one\ntwo\nthree\nfour\nfive\nsix\n");

        for (lines, expected) in [
            (None, "three\nfour\nfive\nsix\n"),
            (Some(3), "four\nfive\nsix\n"),
            (Some(0), ""),
            (Some(9), "three\nfour\nfive\nsix\n"),
        ] {
            let mut seen = Vec::new();
            let mut reader = LogReader::begin(&path, lines, &mut seen).unwrap();
            assert_eq!(String::from_utf8(seen.clone()).unwrap(), expected);
            seen.clear();
            reader.read_on(&mut seen).unwrap();
            assert!(seen.is_empty());
        }
    }
}
