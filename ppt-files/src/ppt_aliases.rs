//! `/etc/ppt_aliases`: which functions are bound to the driver `ppt`.
//!
//! illumos' kernel reads it at boot, before `/etc/driver_aliases` and with the same grammar: `driver alias [alias …]` up to the
//! end of the line. An alias is a path in the device tree or one of the names in a function's `compatible` property. What
//! the kernel skips, or takes for something else than it seems to be, is among the [findings](PptAliases::findings).

mod edit;
mod fault;
mod tokens;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use crate::file_text::{self, ReadError, quoted};
use crate::id_text::IdFault;
use crate::path_form::PathFault;
pub use edit::EditError;
use tokens::{Token, Tokens};

/// Where it is.
pub const PATH: &str = "/etc/ppt_aliases";
/// The driver that gives functions to guests.
pub const DRIVER: &str = "ppt";

/// A file, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PptAliases {
    lines: Vec<Line>,
    findings: Vec<Finding>,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As it is in the file, without the newline.
    pub text: Vec<u8>,
    /// What the kernel makes of it: nothing of comments, empty lines and lines without an alias.
    pub entry: Option<Entry>,
}

/// A driver and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Any driver of the host; [`DRIVER`] in a line that is of use.
    pub driver: Vec<u8>,
    /// Names and paths, at least one.
    pub aliases: Vec<Vec<u8>>,
}

/// A line, or an alias of it, that has no effect, or not the one that it seems to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the line in the file, from 1.
    pub line: usize,
    /// What is the matter.
    pub reason: Reason,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// What is the matter with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A driver that gives nothing to guests. The kernel skips what follows one that it does not have.
    #[error(
        "names driver {}, not {DRIVER}; if the host has such a driver, it keeps the device",
        quoted(driver)
    )]
    OtherDriver {
        /// The driver.
        driver: Vec<u8>,
    },
    /// A driver and nothing else.
    #[error("ignored: no alias for {}", quoted(driver))]
    NoAlias {
        /// The driver.
        driver: Vec<u8>,
    },
    /// Text that is no name, such as a number or a path without quotes.
    #[error("{} is skipped: it is no name; put the whole alias in quotes", quoted(text))]
    Unexpected {
        /// What is skipped.
        text: Vec<u8>,
    },
    /// A name that a comma joins with nothing.
    #[error("{} is ignored: nothing that could follow its comma is there", quoted(text))]
    EndsWithComma {
        /// The name.
        text: Vec<u8>,
    },
    /// A quote that nothing closes.
    #[error("{} has no closing quote and is ignored", quoted(text))]
    OpenQuote {
        /// What follows the quote.
        text: Vec<u8>,
    },
    /// A name beyond what the kernel takes.
    #[error("{} is longer than a path can be; the rest of the line is not used", quoted(text))]
    TooLong {
        /// The name, as far as it is taken.
        text: Vec<u8>,
    },
    /// `ppt ""`
    #[error("an alias without characters binds nothing")]
    Empty,
    /// `"/devices/pci@0,0/…"`
    #[error("{} binds nothing: paths are given without /devices in front", quoted(alias))]
    DevicesPrefix {
        /// The alias.
        alias: Vec<u8>,
    },
    /// `"/pci@0,0/…:ppt"`
    #[error("{} binds nothing: paths are given without a minor name at the end", quoted(alias))]
    MinorName {
        /// The alias.
        alias: Vec<u8>,
    },
    /// `"/pci@0,0/isa@1F"`
    #[error("{} binds nothing: {fault}", quoted(alias))]
    Path {
        /// The alias.
        alias: Vec<u8>,
        /// Why it is no function's path.
        fault: PathFault,
    },
    /// An alias that no function has.
    #[error(
        "{} binds nothing: it is neither a path nor a name such as pciex8086,37d2, pci8086,37d2.15d9.1 or pciclass,030000",
        quoted(alias)
    )]
    NoName {
        /// The alias.
        alias: Vec<u8>,
    },
    /// An id that none is.
    #[error("{} binds nothing: {}: {fault}", quoted(alias), quoted(id))]
    Id {
        /// The alias.
        alias: Vec<u8>,
        /// The part of it.
        id: Vec<u8>,
        /// Why it is none.
        fault: IdFault,
    },
    /// `pci8086,1528.8086`
    #[error(
        "{} binds nothing: {} would be a revision, which has at most two digits",
        quoted(alias),
        quoted(id)
    )]
    Revision {
        /// The alias.
        alias: Vec<u8>,
        /// The last part of it.
        id: Vec<u8>,
    },
    /// `pciex8086,37d2,p`, `pci8086,37d2.15d9.37d2,s`
    #[error(
        "{} binds nothing: only names such as pci8086,37d2 have ,s or ,p at the end, and none of pciex",
        quoted(alias)
    )]
    Suffix {
        /// The alias.
        alias: Vec<u8>,
    },
    /// An alias that is there before, for the same driver or for `ppt`.
    #[error("{} is ignored: line {first} has it already", quoted(alias))]
    Duplicate {
        /// The alias.
        alias: Vec<u8>,
        /// The number of that line, which may be the same.
        first: usize,
    },
    /// An alias that is there before for another driver, which a host may not have.
    #[error(
        "{} is ignored if the host has driver {}: line {first} has it already",
        quoted(alias),
        quoted(driver)
    )]
    Overridden {
        /// The alias.
        alias: Vec<u8>,
        /// The number of that line, which may be the same.
        first: usize,
        /// The driver there.
        driver: Vec<u8>,
    },
}

impl Entry {
    /// The driver with each alias.
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.aliases.iter().map(|alias| (&self.driver[..], &alias[..]))
    }
}

/// Where an alias is first: for the driver of guests, which the host has, and for another one.
#[derive(Default)]
struct Earlier {
    guests: Option<usize>,
    other: Option<(usize, Vec<u8>)>,
}

impl Earlier {
    fn add(&mut self, driver: &[u8], line: usize) {
        if driver == DRIVER.as_bytes() {
            self.guests.get_or_insert(line);
        } else if self.guests.is_none() {
            self.other.get_or_insert_with(|| (line, driver.to_owned()));
        }
    }

    fn duplicate(&self, driver: &[u8], alias: &[u8]) -> Option<Reason> {
        let alias = alias.to_owned();
        match (self.guests, &self.other) {
            (Some(first), _) => Some(Reason::Duplicate { alias, first }),
            (None, Some((first, other))) if other == driver => {
                Some(Reason::Duplicate { alias, first: *first })
            }
            (None, Some((first, other))) => {
                Some(Reason::Overridden { alias, first: *first, driver: other.clone() })
            }
            (None, None) => None,
        }
    }
}

impl PptAliases {
    /// From a file.
    pub fn read(path: &Path) -> Result<PptAliases, ReadError> {
        file_text::read(path).map(|bytes| PptAliases::parse(&bytes))
    }

    /// From the bytes of a file.
    pub fn parse(bytes: &[u8]) -> PptAliases {
        let mut aliases = PptAliases::default();
        let mut seen: HashMap<Vec<u8>, Earlier> = HashMap::new();
        for (number, text) in (1..).zip(file_text::lines(bytes)) {
            let mut reasons = Vec::new();
            let entry = line(text, &mut reasons);
            for (driver, alias) in entry.iter().flat_map(Entry::pairs) {
                let earlier = seen.entry(alias.to_owned()).or_default();
                let duplicate = earlier.duplicate(driver, alias);
                earlier.add(driver, number);
                reasons.extend(fault::of(alias).or(duplicate));
            }
            aliases.findings.extend(reasons.into_iter().map(|reason| Finding { line: number, reason }));
            aliases.lines.push(Line { text: text.to_owned(), entry });
        }
        aliases
    }

    /// All lines in order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What is bound to what.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lines.iter().filter_map(|line| line.entry.as_ref())
    }

    /// What has no effect, or another than it seems; in order of the lines.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

/// A name of a line, and where its text is there.
struct Word {
    name: Vec<u8>,
    place: Range<usize>,
}

/// The names of a line as the kernel's `parse_aliases` takes it: those that commas join are one.
fn words(text: &[u8], reasons: &mut Vec<Reason>) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut joined = false;
    let mut tokens = Tokens::of(text);
    loop {
        tokens.skip_blanks();
        let start = text.len() - tokens.left();
        let Some(token) = tokens.next() else { break };
        let end = text.len() - tokens.left();
        match token {
            Token::Name(name) => match words.last_mut() {
                Some(last) if joined => {
                    last.name.extend(name);
                    last.place.end = end;
                }
                _ => words.push(Word { name, place: start..end }),
            },
            Token::Comma => match words.last_mut() {
                Some(last) => {
                    if joined {
                        reasons.push(Reason::Unexpected { text: b",".to_vec() });
                    }
                    last.name.push(b',');
                    last.place.end = end;
                    joined = true;
                    continue;
                }
                None => reasons.push(Reason::Unexpected { text: b",".to_vec() }),
            },
            Token::Unexpected(text) => {
                reasons.push(Reason::Unexpected { text });
                continue;
            }
            Token::OpenQuote(text) => reasons.push(Reason::OpenQuote { text }),
            Token::TooLong(text) => reasons.push(Reason::TooLong { text }),
        }
        joined = false;
    }
    if joined {
        reasons.extend(words.pop().map(|word| Reason::EndsWithComma { text: word.name }));
    }
    words
}

fn line(text: &[u8], reasons: &mut Vec<Reason>) -> Option<Entry> {
    let mut names = words(text, reasons).into_iter().map(|word| word.name);
    let driver = names.next()?;
    let aliases: Vec<Vec<u8>> = names.collect();
    if aliases.is_empty() {
        reasons.push(Reason::NoAlias { driver });
        return None;
    }
    if driver != DRIVER.as_bytes() {
        reasons.push(Reason::OtherDriver { driver: driver.clone() });
    }
    Some(Entry { driver, aliases })
}

#[cfg(test)]
mod tests;
