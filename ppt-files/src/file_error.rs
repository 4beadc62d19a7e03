//! What the host says when something cannot be done to a file.

use std::io;
use std::path::{Path, PathBuf};

/// An operation that the host refuses.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried, as a verb: `open`.
    pub operation: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// errno.
    pub source: io::Error,
}

/// Makes it of what the host says.
pub fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FileError + 'a {
    move |source| FileError { operation, path: path.to_owned(), source }
}
