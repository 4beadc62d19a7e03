//! Reading of small files that a person writes, and quoting from them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most bytes of a file that are read. A line for each function of the largest host is far below.
const MOST: u64 = 1 << 20;
/// The most characters of a line that a message quotes.
const QUOTED: usize = 80;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// It has more bytes than such a file can sensibly have.
    #[error("{}: has more than {MOST} bytes, which no such file needs", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

impl ReadError {
    /// The file does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, ReadError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// All of a file, which may have any bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let error = |source| ReadError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(error)?.take(MOST + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > MOST {
        return Err(ReadError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

/// The lines of a file, without their newlines. What follows the last newline is a line if it is not empty.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    whole.split(|byte| *byte == b'\n').take(if bytes.is_empty() { 0 } else { usize::MAX })
}

/// Bytes as a message can show them: without control characters, and shortened.
pub fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.chars().take(QUOTED).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED).is_some() {
        shown.push('…');
    }
    format!("'{shown}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_getline_gives() {
        for (text, expected) in [
            ("", &[][..]),
            ("\n", &[""]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\n\nb", &["a", "", "b"]),
            ("a\n\n", &["a", ""]),
        ] {
            assert_eq!(
                lines(text.as_bytes()).collect::<Vec<_>>(),
                expected.iter().map(|l| l.as_bytes()).collect::<Vec<_>>(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn files_are_read_up_to_a_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MOST).unwrap();
        assert_eq!(read(file.path()).unwrap().len() as u64, MOST);
        file.as_file().set_len(MOST + 1).unwrap();
        assert!(matches!(read(file.path()), Err(ReadError::TooLong { .. })));
        assert!(matches!(read(Path::new("/dev/zero")), Err(ReadError::TooLong { .. })));
        let absent = read(Path::new("/no/such/file")).unwrap_err();
        assert!(absent.is_absent() && absent.to_string().starts_with("/no/such/file: "), "{absent}");
        assert!(!read(Path::new("/")).unwrap_err().is_absent());
    }

    #[test]
    fn what_is_quoted_cannot_hurt_a_terminal() {
        assert_eq!(quoted(b"a\x1b[2J\r\xff"), "'a\\u{1b}[2J\\r\u{fffd}'");
        assert_eq!(quoted(&[b'a'; 200]).chars().count(), QUOTED + 3);
    }
}
