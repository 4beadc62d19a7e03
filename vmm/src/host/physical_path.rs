//! Names of this host's functions as illumos has them: `/pci@0,0/pci8086,151@1/display@0`, a path from a root bus through
//! bridges to the function.
//!
//! Each part is a node's name, `@`, and its unit address. A root is `pci@BUS,0`. Below it the unit address is
//! `DEVICE[,FUNCTION]`, and the name `display` for VGA controllers, `isa` for ISA bridges, and otherwise `pci` with the ids of
//! the subsystem, or of the function where that has none or is a bridge. All numbers are hexadecimal, in lower case and
//! unpadded. Names never start with `pciex`, as on illumos on x86.
//!
//! Unit addresses alone tell functions apart. illumos has roots of PCI domain 0 only, and 0 is always their second number;
//! here it is the domain, so that a path is one function's in a host with several.

mod node;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use passthru::pci::HostAddress;

use node::{Node, UnitAddress};

/// Where Linux has sysfs.
const SYSFS: &str = "/sys";
/// Functions in sysfs.
const FUNCTIONS: &str = "bus/pci/devices";
/// Where illumos has its tree; what vmadm writes before a path and pptadm does not.
const DEVICES: &str = "/devices";
/// What such a path has at its end where it is the node of illumos' driver for guests.
const MINOR: &str = ":ppt";
/// What is named at most where a part of a path is not there.
const LISTED: usize = 16;

/// Why there is no path, or nothing at it.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// No such function.
    #[error("there is no PCI function {address} in this host; `lspci -D` lists those there are")]
    NoFunction {
        /// As asked for.
        address: HostAddress,
    },
    /// A host that has its functions elsewhere than below root buses.
    #[error("{address}: {} is not below a root bus (pciDOMAIN:BUS), so it has no physical path; name it by its address", .directory.display())]
    NoRoot {
        /// The function.
        address: HostAddress,
        /// Where it is.
        directory: PathBuf,
    },
    /// A file or directory of sysfs.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// A part that is no node.
    #[error(
        "{path}: '{component}' is not NAME@DEVICE[,FUNCTION] with hexadecimal numbers, as in \
         /pci@0,0/pci8086,151@1/display@0"
    )]
    Syntax {
        /// As given.
        path: String,
        /// The part.
        component: String,
    },
    /// Nothing has the unit address.
    #[error("{path}: there is no {component} {place}; there is {there}")]
    NotThere {
        /// As given.
        path: String,
        /// The first part that is not there.
        component: String,
        /// Where it is not.
        place: String,
        /// What is there.
        there: There,
    },
    /// Something else has the unit address.
    #[error("{path}: there is no {component} {place}; at that address is {there}")]
    OtherName {
        /// As given.
        path: String,
        /// The first part that is not there.
        component: String,
        /// Where it is not.
        place: String,
        /// The node there, as paths have it.
        there: String,
    },
    /// A root bus.
    #[error("{path}: that is a bus, not a function; on it is {there}")]
    Bus {
        /// As given.
        path: String,
        /// What is there.
        there: There,
    },
}

/// Nodes below one node, as paths have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct There {
    named: Vec<String>,
    /// How many there are beside those.
    more: usize,
}

impl fmt::Display for There {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.named.is_empty(), self.more) {
            (true, _) => f.write_str("nothing"),
            (false, 0) => f.write_str(&self.named.join(", ")),
            (false, more) => write!(f, "{} and {more} more", self.named.join(", ")),
        }
    }
}

/// A text is meant as a physical path.
pub fn is_physical(name: &str) -> bool {
    without_devices(name).starts_with("/pci@")
}

/// A path as pptadm writes it, without `/devices` in front and without the minor name of illumos' driver for guests at the end.
/// Other texts stay as they are.
pub fn without_devices(name: &str) -> &str {
    let path = name.strip_prefix(DEVICES).unwrap_or(name);
    if path.starts_with("/pci@") { path.strip_suffix(MINOR).unwrap_or(path) } else { name }
}

/// A physical path of any host as illumos writes it, which compares paths as texts: from one with `/devices` in front, a minor
/// name at the end, or other spellings of its numbers.
pub fn canonical(path: &str) -> Result<String, PathError> {
    let mut text = String::new();
    for (depth, step) in steps(path)?.iter().enumerate() {
        let UnitAddress(first, second) = step.unit;
        text.push_str(&format!("/{}@{first:x}", step.name));
        if depth == 0 || second != 0 {
            text.push_str(&format!(",{second:x}"));
        }
    }
    Ok(text)
}

/// The name of a device of this host with the function's address instead of a physical path. Other names stay as they are.
pub fn resolve(name: &str) -> Result<Cow<'_, str>, PathError> {
    if !is_physical(name) {
        return Ok(name.into());
    }
    Ok(find_in(Path::new(SYSFS), name)?.to_string().into())
}

/// The physical path of a function of this host, without `/devices`.
pub fn of(address: HostAddress) -> Result<String, PathError> {
    of_in(Path::new(SYSFS), address)
}

/// As [`of`], with sysfs at `sysfs`.
pub fn of_in(sysfs: &Path, address: HostAddress) -> Result<String, PathError> {
    let components: Vec<String> =
        chain(sysfs, address)?.iter().map(Node::component).collect::<Result<_, _>>()?;
    Ok(format!("/{}", components.join("/")))
}

/// The function at a physical path, with or without `/devices` in front, with sysfs at `sysfs`.
pub fn find_in(sysfs: &Path, path: &str) -> Result<HostAddress, PathError> {
    let steps = steps(path)?;
    let mut candidates: Vec<(HostAddress, Vec<Node>)> = functions(sysfs)?
        .into_iter()
        // What is just being unplugged is at no path, nor is what has no root above it.
        .filter_map(|address| Some((address, chain(sysfs, address).ok()?)))
        .collect();
    for (depth, step) in steps.iter().enumerate() {
        let place = || match steps.get(..depth) {
            None | Some([]) => "in this host".to_owned(),
            Some(above) => {
                format!("at {}", above.iter().map(|step| format!("/{}", step.text)).collect::<String>())
            }
        };
        let component = step.text.to_owned();
        let is_it = |nodes: &[Node]| nodes.get(depth).is_some_and(|node| node.unit() == step.unit);
        let Some(node) =
            candidates.iter().find(|(_, nodes)| is_it(nodes)).and_then(|(_, nodes)| nodes.get(depth))
        else {
            let (path, place) = (path.to_owned(), place());
            return Err(PathError::NotThere { path, component, place, there: at(depth, &candidates) });
        };
        if node.name()? != step.name {
            let (path, place, there) = (path.to_owned(), place(), node.component()?);
            return Err(PathError::OtherName { path, component, place, there });
        }
        candidates.retain(|(_, nodes)| is_it(nodes));
    }
    let found = candidates.iter().find(|(_, nodes)| nodes.len() == steps.len());
    found
        .map(|(address, _)| *address)
        .ok_or_else(|| PathError::Bus { path: path.to_owned(), there: at(steps.len(), &candidates) })
}

struct Step<'a> {
    text: &'a str,
    name: &'a str,
    unit: UnitAddress,
}

fn steps(path: &str) -> Result<Vec<Step<'_>>, PathError> {
    let syntax = |text: &str| PathError::Syntax { path: path.to_owned(), component: text.to_owned() };
    let parts = without_devices(path).strip_prefix('/').ok_or_else(|| syntax(path))?.split('/');
    parts
        .map(|text| {
            let (name, unit) = text.split_once('@').ok_or_else(|| syntax(text))?;
            Ok(Step { text, name, unit: UnitAddress::parse(unit).ok_or_else(|| syntax(text))? })
        })
        .collect()
}

/// The nodes `depth` levels below the roots.
fn at(depth: usize, candidates: &[(HostAddress, Vec<Node>)]) -> There {
    let nodes: BTreeMap<UnitAddress, &Node> =
        candidates.iter().filter_map(|(_, nodes)| nodes.get(depth)).map(|node| (node.unit(), node)).collect();
    let named = nodes.values().filter_map(|node| node.component().ok()).take(LISTED).collect();
    There { named, more: nodes.len().saturating_sub(LISTED) }
}

fn functions(sysfs: &Path) -> Result<Vec<HostAddress>, PathError> {
    let path = sysfs.join(FUNCTIONS);
    match fs::read_dir(&path) {
        Ok(entries) => Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()),
        // A kernel without PCI, or nothing found by it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(PathError::Read { path, source }),
    }
}

fn chain(sysfs: &Path, address: HostAddress) -> Result<Vec<Node>, PathError> {
    let path = sysfs.join(FUNCTIONS).join(address.to_string());
    let directory = fs::canonicalize(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PathError::NoFunction { address },
        _ => PathError::Read { path, source },
    })?;
    node::chain(&directory).ok_or(PathError::NoRoot { address, directory })
}
