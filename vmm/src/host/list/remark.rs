//! What is said beside a list, which pptadm leaves its user to find out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use passthru::pci::HostAddress;
use ppt_files::ppt_aliases::PptAliases;
use ppt_files::ppt_matches::{Finding, PptMatches};

use super::Selection;
use super::function::Candidate;
use crate::host::reserve::meaning::AliasFile;

/// The most lines of a file that are named.
const MOST_FINDINGS: usize = 20;

/// A sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum Remark {
    /// No function at all.
    #[error("the list is empty: {} has no PCI functions", devices.display())]
    NoFunctions {
        /// Where they would be.
        devices: PathBuf,
    },
    /// No function has a group.
    #[error(
        "no IOMMU groups: the host's IOMMU is off, and without it nothing can be passed through; turn VT-d or AMD-Vi on in the \
         firmware, and for Intel add intel_iommu=on to the kernel's command line"
    )]
    NoGroups,
    /// No function is bound.
    #[error(
        "the list is empty: of {functions} PCI functions none is bound to a VFIO driver such as vfio-pci"
    )]
    NothingBound {
        /// How many there are.
        functions: usize,
    },
    /// Nothing says what matches.
    #[error("nothing says which functions could be bound: {} not there", absent(lookup))]
    NoMatchesFile {
        /// Where it was looked for.
        lookup: Vec<PathBuf>,
    },
    /// What is there to match does not.
    #[error("{}: none of its {entries} entries matches a function of this host", path.display())]
    NothingMatches {
        /// The file that was read.
        path: PathBuf,
        /// How many lines are entries.
        entries: usize,
    },
    /// A line of the file.
    #[error("{}: {finding}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line and what is the matter.
        finding: Finding,
    },
    /// A line of a file of aliases, or how many more there are.
    #[error("{0}")]
    Alias(String),
    /// Functions that were to be bound.
    #[error(
        "{}: {count} alias{} reserved: slotpass apply binds the functions that {}, or says why not",
        path.display(), if *count == 1 { " is" } else { "es are" }, if *count == 1 { "it means" } else { "they mean" }
    )]
    Reserved {
        /// The file.
        path: PathBuf,
        /// How many aliases are for the driver of guests.
        count: usize,
    },
    /// More lines than are named.
    #[error("{}: {more} more lines like these", path.display())]
    MoreLines {
        /// The file.
        path: PathBuf,
        /// How many.
        more: usize,
    },
    /// A function in the list has no path.
    #[error("{address} is listed without a path: {why}")]
    NoPath {
        /// The function.
        address: HostAddress,
        /// What is the matter.
        why: String,
    },
}

fn absent(lookup: &[PathBuf]) -> String {
    let mut text = String::new();
    for (at, path) in lookup.iter().enumerate() {
        let _ = write!(text, "{}{}", if at == 0 { "" } else { " and " }, path.display());
    }
    text.push_str(if lookup.len() == 1 { " is" } else { " are" });
    text
}

/// The lines of a file that do not what they seem to.
pub fn findings(path: &Path, matches: &PptMatches) -> Vec<Remark> {
    let all = matches.findings();
    let line = |finding: &Finding| Remark::Line { path: path.to_owned(), finding: finding.clone() };
    let mut remarks: Vec<Remark> = all.iter().take(MOST_FINDINGS).map(line).collect();
    if all.len() > MOST_FINDINGS {
        remarks.push(Remark::MoreLines { path: path.to_owned(), more: all.len() - MOST_FINDINGS });
    }
    remarks
}

/// What is to be said of a file of aliases where no function is bound.
pub fn of_aliases(file: &AliasFile) -> Vec<Remark> {
    let mut remarks: Vec<Remark> = file.remarks().into_iter().map(Remark::Alias).collect();
    let count = file.places().filter(|place| is_alias(&place.alias)).count();
    if count > 0 {
        remarks.push(Remark::Reserved { path: file.path.clone(), count });
    }
    remarks
}

/// A function could have it.
fn is_alias(alias: &[u8]) -> bool {
    PptAliases::default().add(alias).is_ok()
}

/// Why nothing is listed.
pub fn why_empty(devices: &Path, functions: &[Candidate], selection: &Selection) -> Vec<Remark> {
    if functions.is_empty() {
        return vec![Remark::NoFunctions { devices: devices.to_owned() }];
    }
    let mut why = vec![Remark::NothingBound { functions: functions.len() }];
    if functions.iter().all(|candidate| candidate.function.group.is_none()) {
        why.push(Remark::NoGroups);
    }
    match selection {
        Selection::Bound => {}
        Selection::All { matches: None, lookup } => {
            why.push(Remark::NoMatchesFile { lookup: lookup.clone() })
        }
        Selection::All { matches: Some((path, matches)), .. } => {
            why.push(Remark::NothingMatches { path: path.clone(), entries: matches.entries().count() })
        }
    }
    why
}
