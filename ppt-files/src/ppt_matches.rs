//! `/etc/ppt_matches`: which functions could be given to a guest.
//!
//! Its only reader on illumos is libppt, for `pptadm list -a`; the file binds nothing. An entry a line: `pciexVVVV,DDDD` or
//! `pciVVVV,DDDD`, `pciexVVVV` or `pciVVVV` for all of a vendor, or a path in the device tree. `pci` and `pciex` mean the same.
//! libppt skips silently what it does not understand, and compares ids as text; each line that has no effect because of
//! that, or another than it seems to have, is among the [findings](PptMatches::findings).

mod edit;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::file_text::{self, ReadError, quoted};
use crate::id_text::{self, IdFault};
use crate::path_form::{self, PathFault};

/// Where it is looked for, in this order. The first that exists counts, even if it has no entries.
pub const LOOKUP: [&str; 2] = ["/system/boot/etc/ppt_matches", "/etc/ppt_matches"];
/// The longest path that libppt compares (MAXPATHLEN without the terminator).
const LONGEST_PATH: usize = 1023;
/// The most characters that libppt takes for an id.
const ID: usize = 4;

/// A file, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PptMatches {
    lines: Vec<Line>,
    findings: Vec<Finding>,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As it is in the file, without the newline.
    pub text: Vec<u8>,
    /// What libppt makes of it: nothing of comments, empty lines and what it does not understand.
    pub entry: Option<Entry>,
}

/// What a line matches, as libppt takes it: some entries match nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// All functions with these ids, or all of a vendor.
    Ids {
        /// Compared with the vendor id, as text.
        vendor: Vec<u8>,
        /// Compared with the device id, as text.
        device: Option<Vec<u8>>,
    },
    /// The function at this path.
    Path(Vec<u8>),
}

/// A line that has no effect, or not the one that it seems to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its number in the file, from 1.
    pub line: usize,
    /// The line, fit for a message.
    pub text: String,
    /// What is the matter with it.
    pub reason: Reason,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.text, self.reason)
    }
}

/// What is the matter with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Neither ids nor a path.
    #[error("ignored: it is neither pciVVVV,DDDD nor pciVVVV nor a path")]
    NoEntry,
    /// An entry with blanks in front.
    #[error("ignored: an entry starts at the beginning of the line")]
    LeadingBlank,
    /// `PCI10de,a65`
    #[error("ignored: pci and pciex are written in lower case")]
    UpperCasePrefix,
    /// `pciclass,0300`
    #[error("matches nothing: class codes cannot be matched")]
    Class,
    /// `pci11,46`
    #[error(
        "matches nothing: a vendor id of fewer than four digits takes no device id after it; give the path"
    )]
    ShortVendor,
    /// A vendor id that none is.
    #[error("matches nothing: vendor {}: {fault}", quoted(id))]
    Vendor {
        /// What is taken for it.
        id: Vec<u8>,
        /// Why it is none.
        fault: IdFault,
    },
    /// A device id that none is.
    #[error("matches nothing: device {}: {fault}", quoted(id))]
    Device {
        /// What is taken for it.
        id: Vec<u8>,
        /// Why it is none.
        fault: IdFault,
    },
    /// `pci8086.1528`, `pci8086,`
    #[error("matches every function of the vendor: {} after its id is ignored", quoted(rest))]
    WholeVendor {
        /// What is ignored.
        rest: Vec<u8>,
    },
    /// `pci8086,1528.8086.1`
    #[error("{} after the device id is ignored", quoted(rest))]
    Rest {
        /// What is ignored.
        rest: Vec<u8>,
    },
    /// A path of a line that ends as on Windows.
    #[error("matches nothing: the line ends with a carriage return, which is taken for a part of the path")]
    CarriageReturn,
    /// A comment or blanks after a path.
    #[error("matches nothing: blanks and what follows them are taken for a part of the path")]
    BlankInPath,
    /// `/devices/pci@0,0/…`
    #[error("matches nothing: paths are given without /devices in front")]
    DevicesPrefix,
    /// `/pci@0,0/…:ppt`
    #[error("matches nothing: paths are given without {} at the end", quoted(minor))]
    MinorName {
        /// The colon and what follows.
        minor: Vec<u8>,
    },
    /// `/pci@0,0/isa@1F`
    #[error("matches nothing: {0}")]
    Path(PathFault),
    /// A path beyond what is compared.
    #[error("matches nothing: a path has at most {LONGEST_PATH} bytes")]
    LongPath,
    /// A byte that ends a C string.
    #[error("the line has a NUL byte, at which it ends for pptadm")]
    Nul,
    /// The same as an earlier line.
    #[error("says the same as line {first}")]
    Duplicate {
        /// The number of that line.
        first: usize,
    },
}

impl PptMatches {
    /// The first file of `lookup` that exists, and its path. As upstream, only a file that does not exist makes it look on.
    pub fn find<P: AsRef<Path>>(lookup: &[P]) -> Result<Option<(PathBuf, PptMatches)>, ReadError> {
        for path in lookup {
            match PptMatches::read(path.as_ref()) {
                Ok(matches) => return Ok(Some((path.as_ref().to_owned(), matches))),
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<PptMatches, ReadError> {
        file_text::read(path).map(|bytes| PptMatches::parse(&bytes))
    }

    /// From the bytes of a file.
    pub fn parse(bytes: &[u8]) -> PptMatches {
        let mut matches = PptMatches::default();
        let mut seen = HashMap::new();
        for (number, text) in (1..).zip(file_text::lines(bytes)) {
            let mut report = |reason| {
                matches.findings.push(Finding { line: number, text: quoted(text), reason });
            };
            let until_nul = text.split(|byte| *byte == 0).next().unwrap_or_default();
            if until_nul.len() < text.len() {
                report(Reason::Nul);
            }
            let entry = entry(until_nul);
            match fault(until_nul, entry.as_ref()) {
                Some(reason) => report(reason),
                None => {
                    if let Some(first) = entry.clone().and_then(|entry| {
                        let first = *seen.entry(entry).or_insert(number);
                        (first < number).then_some(first)
                    }) {
                        report(Reason::Duplicate { first });
                    }
                }
            }
            matches.lines.push(Line { text: text.to_owned(), entry });
        }
        matches
    }

    /// All lines in order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What the lines match.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lines.iter().filter_map(|line| line.entry.as_ref())
    }

    /// The lines that have no effect, or another than it seems; in order.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether a function with these ids at this path is matched, as libppt decides it.
    pub fn matches(&self, path: Option<&str>, vendor: u16, device: u16) -> bool {
        let (vendor_text, device_text) = (format!("{vendor:x}"), format!("{device:x}"));
        self.entries().any(|entry| match entry {
            Entry::Path(entry) => path.is_some_and(|path| path.as_bytes() == entry),
            Entry::Ids { vendor, device } => {
                vendor == vendor_text.as_bytes()
                    && device.as_ref().is_none_or(|device| device == device_text.as_bytes())
            }
        })
    }
}

/// As `isspace` of the C locale has it, which knows the vertical tab.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    text.get(blanks..).unwrap_or_default()
}

/// As scanf's `%4s` takes it: blanks are skipped, then at most four other characters are taken, commas too.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = trim_start(text);
    let length = text.iter().take(ID).take_while(|byte| !is_blank(**byte)).count();
    if length == 0 { None } else { text.split_at_checked(length) }
}

struct Ids<'a> {
    vendor: &'a [u8],
    device: Option<&'a [u8]>,
    rest: &'a [u8],
}

fn both<'a>(text: &'a [u8], prefix: &[u8]) -> Option<Ids<'a>> {
    let (vendor, rest) = word(text.strip_prefix(prefix)?)?;
    let (device, rest) = word(rest.strip_prefix(b",")?)?;
    Some(Ids { vendor, device: Some(device), rest })
}

fn vendor_only<'a>(text: &'a [u8], prefix: &[u8]) -> Option<Ids<'a>> {
    let (vendor, rest) = word(text.strip_prefix(prefix)?)?;
    Some(Ids { vendor, device: None, rest })
}

/// libppt's four attempts, in its order. The second reads `pciex11,46` as vendor `ex11`.
fn ids(text: &[u8]) -> Option<Ids<'_>> {
    both(text, b"pciex")
        .or_else(|| both(text, b"pci"))
        .or_else(|| vendor_only(text, b"pciex"))
        .or_else(|| vendor_only(text, b"pci"))
}

fn entry(text: &[u8]) -> Option<Entry> {
    if let Some(Ids { vendor, device, .. }) = ids(text) {
        return Some(Entry::Ids { vendor: vendor.to_owned(), device: device.map(<[u8]>::to_owned) });
    }
    let path = text.strip_prefix(b"/").map(|_| text)?;
    Some(Entry::Path(path.get(..LONGEST_PATH).unwrap_or(path).to_owned()))
}

fn fault(text: &[u8], entry: Option<&Entry>) -> Option<Reason> {
    match (entry, ids(text)) {
        (Some(Entry::Ids { .. }), Some(ids)) => ids_fault(text, &ids),
        (Some(_), _) => path_fault(text),
        (None, _) => no_entry_fault(text),
    }
}

fn no_entry_fault(text: &[u8]) -> Option<Reason> {
    let trimmed = trim_start(text);
    let has_prefix = |text: &[u8]| text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"pci"));
    match trimmed.first() {
        // Comments work because they are not understood.
        None | Some(b'#') => None,
        Some(_) if trimmed.len() < text.len() && entry(trimmed).is_some() => Some(Reason::LeadingBlank),
        Some(_) if has_prefix(trimmed) && !trimmed.starts_with(b"pci") => Some(Reason::UpperCasePrefix),
        Some(_) => Some(Reason::NoEntry),
    }
}

fn ids_fault(text: &[u8], ids: &Ids<'_>) -> Option<Reason> {
    let after = text.strip_prefix(b"pciex").or_else(|| text.strip_prefix(b"pci")).unwrap_or(text);
    if after.starts_with(b"class") {
        return Some(Reason::Class);
    }
    let comma = after.iter().take_while(|byte| !is_blank(**byte)).position(|byte| *byte == b',');
    if comma.is_some_and(|at| (1..ID).contains(&at)) {
        return Some(Reason::ShortVendor);
    }
    if let Some(fault) = id_text::fault(ids.vendor) {
        return Some(Reason::Vendor { id: ids.vendor.to_owned(), fault });
    }
    let rest = ids.rest.to_owned();
    let Some(device) = ids.device else {
        // What stands apart is a comment, unless it looks as if it were an id.
        let goes_on =
            rest.first().is_some_and(|byte| !is_blank(*byte)) || trim_start(&rest).starts_with(b",");
        return goes_on.then_some(Reason::WholeVendor { rest });
    };
    if let Some(fault) = id_text::fault(device) {
        return Some(Reason::Device { id: device.to_owned(), fault });
    }
    rest.first().is_some_and(|byte| !is_blank(*byte)).then_some(Reason::Rest { rest })
}

fn path_fault(text: &[u8]) -> Option<Reason> {
    let last = text.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if text.len() > LONGEST_PATH {
        Some(Reason::LongPath)
    } else if text.ends_with(b"\r") {
        Some(Reason::CarriageReturn)
    } else if text.iter().any(|byte| is_blank(*byte)) {
        Some(Reason::BlankInPath)
    } else if text.starts_with(b"/devices/") {
        Some(Reason::DevicesPrefix)
    } else {
        match path_form::fault(text)? {
            PathFault::Part { part } if part == last && last.contains(&b':') => {
                let minor = last.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default();
                Some(Reason::MinorName { minor: [b":", minor].concat() })
            }
            fault => Some(Reason::Path(fault)),
        }
    }
}

#[cfg(test)]
mod tests;
