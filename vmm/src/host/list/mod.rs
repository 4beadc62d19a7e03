//! What `slotpass list` lists: functions that a VFIO driver holds, and functions that `/etc/ppt_matches` matches.
//!
//! The selection and its output are those of illumos' `pptadm list`, where DEV is the node of the driver `ppt`. On Linux
//! it is the function's own device file, `/dev/vfio/devices/vfioN`, or its group's, `/dev/vfio/N`, where the kernel has no
//! such files.

pub mod fields;
mod function;
pub mod json;
mod remark;
pub mod table;
pub mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use passthru::host::vfio::sysfs::SysfsFunction;
use passthru::pci::HostAddress;
use ppt_files::ppt_matches::PptMatches;

use crate::show::names;
use fields::Field;
use function::Candidate;
pub use remark::{Remark, of_aliases};

/// A function in the list: the texts of its fields, where they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its device node, if a VFIO driver holds it.
    pub dev: Option<String>,
    /// Where illumos has it in its device tree.
    pub path: Option<String>,
    /// Hexadecimal, unpadded and in lower case, as the others are.
    pub vendor: String,
    /// Device id.
    pub device: String,
    /// Vendor of the subsystem, where the function says so.
    pub subvendor: Option<String>,
    /// The subsystem.
    pub subdevice: Option<String>,
    /// Revision id.
    pub revision: String,
    /// Vendor and device as the PCI ID project has them, if it knows both.
    pub label: Option<String>,
    /// What VMs by name make of it, if that was asked for.
    pub state: Option<String>,
}

impl Listed {
    /// What a column has.
    pub fn field(&self, field: Field) -> Option<&str> {
        match field {
            Field::Dev => self.dev.as_deref(),
            Field::Vendor => Some(&self.vendor),
            Field::Device => Some(&self.device),
            Field::Subvendor => self.subvendor.as_deref(),
            Field::Subdevice => self.subdevice.as_deref(),
            Field::Rev => Some(&self.revision),
            Field::Path => self.path.as_deref(),
            Field::Label => self.label.as_deref(),
            Field::State => self.state.as_deref(),
        }
    }
}

/// Which functions are listed.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Those that a VFIO driver holds.
    Bound,
    /// Those, and the ones that a file matches.
    All {
        /// The file that was read, if there is one.
        matches: Option<(PathBuf, PptMatches)>,
        /// Where it was looked for.
        lookup: Vec<PathBuf>,
    },
}

/// The list, and what is to be said about it.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order in which pptadm has them: by DEV as a text, or all in the order of the device tree.
    pub functions: Vec<Listed>,
    /// Why it is empty, and what else a user would wonder about.
    pub remarks: Vec<Remark>,
}

impl Listing {
    /// Lists the functions in `devices`, a directory such as `/sys/bus/pci/devices`.
    pub fn of<E: fmt::Display>(
        devices: &Path,
        selection: &Selection,
        path_of: impl Fn(HostAddress) -> Result<String, E>,
        state_of: impl Fn(&SysfsFunction) -> Option<String>,
    ) -> io::Result<Listing> {
        let all = Candidate::all(devices)?;
        let mut listing = Listing::default();
        let mut found = Vec::new();
        for candidate in &all {
            let path = path_of(candidate.function.address);
            let listed = candidate.listed(path.as_ref().ok().cloned());
            let matched = || match selection {
                Selection::All { matches: Some((_, matches)), .. } => {
                    matches.matches(listed.path.as_deref(), candidate.vendor(), candidate.device())
                }
                _ => false,
            };
            if !candidate.is_bound() && !matched() {
                continue;
            }
            if let Err(why) = path {
                listing
                    .remarks
                    .push(Remark::NoPath { address: candidate.function.address, why: why.to_string() });
            }
            let state = state_of(&candidate.function);
            found.push((candidate, Listed { state, ..listed }));
        }
        match selection {
            Selection::Bound => found.sort_by(|(a, listed_a), (b, listed_b)| {
                (&listed_a.dev, a.function.address).cmp(&(&listed_b.dev, b.function.address))
            }),
            // Directories are nested as the tree is, so that what is behind a bridge follows it.
            Selection::All { .. } => found.sort_by(|(a, _), (b, _)| a.directory.cmp(&b.directory)),
        }
        listing.functions = found.into_iter().map(|(_, listed)| listed).collect();
        if let Selection::All { matches: Some((path, matches)), .. } = selection {
            listing.remarks.extend(remark::findings(path, matches));
        }
        if listing.functions.is_empty() {
            listing.remarks.extend(remark::why_empty(devices, &all, selection));
        }
        Ok(listing)
    }
}

/// Vendor and device in words.
fn label(vendor: u16, device: u16) -> Option<String> {
    Some(format!("{} {}", names::vendor(vendor)?, names::device(vendor, device)?))
}

#[cfg(test)]
mod tests;
