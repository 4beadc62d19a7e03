//! Files of bhyve_config(5): a variable a line, empty lines, and lines that begin with `#`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::description::{self, Described};
use super::error::{BhyveError, Fault, Origin};
use super::variables::Variables;

/// Bytes of a file at most. A VM's has a few thousand.
const LARGEST: u64 = 1 << 20;

/// What a file says of a VM.
pub fn read(path: &Path) -> Result<Described, BhyveError> {
    let mut variables = Variables::default();
    add_file(&mut variables, path)?;
    description::describe(&variables, Vec::new())
}

/// What a file's text says of a VM.
pub fn parse(path: &Path, text: &[u8]) -> Result<Described, BhyveError> {
    let mut variables = Variables::default();
    add(&mut variables, path, text)?;
    description::describe(&variables, Vec::new())
}

/// Adds a file's variables.
pub(super) fn add_file(variables: &mut Variables, path: &Path) -> Result<(), BhyveError> {
    let mut text = Vec::new();
    // One byte more than there may be tells that it is too large, whatever it is.
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text))
        .map_err(|source| BhyveError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > LARGEST {
        return Err(BhyveError::TooLarge { path: path.to_owned(), most: LARGEST });
    }
    add(variables, path, &text)
}

fn add(variables: &mut Variables, path: &Path, text: &[u8]) -> Result<(), BhyveError> {
    let file: Arc<Path> = path.into();
    for (line, text) in text.split(|byte| *byte == b'\n').enumerate() {
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let from = Origin::Line { file: file.clone(), line: line + 1 };
        let text = std::str::from_utf8(text).map_err(|_| Fault::NoText.at(&from))?;
        variables.assign(text, &from)?;
    }
    Ok(())
}
