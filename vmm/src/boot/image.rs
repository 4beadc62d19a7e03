//! A file (or bytes of this program) that goes into guest memory, once at start and again at each guest reset.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::error::{Defect, Error};
use crate::memory::GuestMemory;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Kernel,
    Initrd,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Kernel => "kernel",
            Role::Initrd => "initrd",
        })
    }
}

#[derive(Debug)]
enum Source {
    /// Open from the first load on, so that a file put in its place later changes nothing.
    File(File),
    Embedded(&'static [u8]),
}

#[derive(Debug)]
pub(super) struct Image {
    role: Role,
    path: PathBuf,
    source: Source,
    /// Bytes in the file when it was opened.
    length: u64,
}

impl Image {
    pub fn open(role: Role, path: &Path) -> Result<Self, Error> {
        let failed = |operation| move |source| Error::File { role, path: path.to_owned(), operation, source };
        // Looked at before it is opened: to open a pipe waits for a writer, to open a device may set it off.
        let metadata = std::fs::metadata(path).map_err(failed("open"))?;
        if !metadata.is_file() {
            return Err(Error::NotRegular { role, path: path.to_owned() });
        }
        let file = File::open(path).map_err(failed("open"))?;
        let length = file.metadata().map_err(failed("examine"))?.len();
        Ok(Image { role, path: path.to_owned(), source: Source::File(file), length })
    }

    pub fn embedded(role: Role, name: &str, bytes: &'static [u8]) -> Self {
        let length = bytes.len() as u64;
        Image { role, path: name.into(), source: Source::Embedded(bytes), length }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// The first `length` bytes, or as many as there are.
    pub fn head(&self, length: u64) -> Result<Vec<u8>, Error> {
        self.read(0, length.min(self.length))
    }

    /// `length` bytes at `offset`, which the file must have.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        // Checked against the file before memory is taken, for headers may announce any length.
        self.check(offset, length)?;
        let mut bytes = vec![0; length as usize];
        let source = match &self.source {
            Source::File(file) => file.read_exact_at(&mut bytes, offset),
            Source::Embedded(all) => all.get(offset as usize..).unwrap_or_default().read_exact(&mut bytes),
        };
        let path = || self.path.clone();
        source.map_err(|source| Error::File { role: self.role, path: path(), operation: "read", source })?;
        Ok(bytes)
    }

    /// Fails unless the file has `length` bytes at `offset`.
    pub fn check(&self, offset: u64, length: u64) -> Result<(), Error> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(self.defective(Defect::Truncated)),
        }
    }

    /// Copies `length` bytes at `offset` to guest address `address`.
    ///
    /// Takes `&mut self` because the file's one position is moved.
    pub fn copy(
        &mut self,
        offset: u64,
        length: u64,
        memory: &GuestMemory,
        address: u64,
    ) -> Result<(), Error> {
        self.check(offset, length)?;
        let address = GuestAddress(address);
        let result = match &mut self.source {
            Source::File(file) => file
                .seek(SeekFrom::Start(offset))
                .map_err(GuestMemoryError::IOError)
                .and_then(|_| memory.read_exact_volatile_from(address, file, length as usize)),
            Source::Embedded(all) => {
                let mut part = all.get(offset as usize..).unwrap_or_default();
                memory.read_exact_volatile_from(address, &mut part, length as usize)
            }
        };
        result.map_err(|source| Error::Copy { role: self.role, path: self.path.clone(), source })
    }

    pub fn defective(&self, defect: Defect) -> Error {
        Error::Defective { path: self.path.clone(), defect }
    }
}
