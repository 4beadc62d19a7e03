//! What of a host depends on which of its functions.

mod blocks;
mod consoles;
mod network;
mod open_nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use passthru::host::vfio::sysfs;
use passthru::pci::HostAddress;

use super::Host;
use super::inventory::Function;
use crate::host::holders::Holder;

/// The most mounts that are named; containers make many of one file system.
const MOUNTS: usize = 4;

/// Something that needs a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A mounted file system.
    Mounted {
        /// Where it is mounted.
        at: String,
        /// What it is on.
        source: String,
    },
    /// More of them than a message has room for.
    MountedToo {
        /// How many.
        count: usize,
    },
    /// An active swap area.
    Swap {
        /// What it is on.
        source: String,
    },
    /// A drive that the kernel has open: a part of a pool, an array or a volume group.
    Claimed {
        /// Name of the block device.
        device: String,
    },
    /// The way to everywhere else.
    DefaultRoute {
        /// The interface of the route.
        interface: String,
    },
    /// The screen that the firmware started on.
    BootDisplay,
    /// A text console is shown there.
    Console {
        /// Its name.
        name: String,
    },
    /// Virtual functions, which go when its driver does.
    VirtualFunctions {
        /// How many.
        count: u32,
    },
    /// A process has a file of it open.
    Open {
        /// The file.
        file: String,
        /// By number.
        pid: u32,
        /// The process' name.
        name: String,
    },
    /// It may be in use: the host does not say.
    Unknown {
        /// What is the question.
        whether: String,
        /// What the host says instead.
        errno: i32,
    },
}

impl Use {
    /// A screen.
    pub fn is_display(&self) -> bool {
        matches!(self, Use::BootDisplay) || matches!(self, Use::Console { name } if name.starts_with("fb"))
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted { at, source } => write!(f, "the file system mounted at {at} is on it ({source})"),
            Use::MountedToo { count } => write!(f, "{count} more file systems that are mounted are on it"),
            Use::Swap { source } => write!(f, "the host swaps to it ({source})"),
            Use::Claimed { device } => {
                write!(
                    f,
                    "{device} is on it, which the kernel has open (a pool, an array, a volume group or a mount)"
                )
            }
            Use::DefaultRoute { interface } => write!(f, "the default route goes through it ({interface})"),
            Use::BootDisplay => f.write_str("it is the display that the host started on (boot_vga)"),
            Use::Console { name } => write!(f, "the console {name} is on it"),
            Use::VirtualFunctions { count } => {
                write!(f, "its virtual functions (there: {count}) go with its driver")
            }
            Use::Open { file, pid, name } => {
                let holder = Holder { pid: *pid, name: name.clone() };
                write!(f, "{holder} has {file} open")
            }
            Use::Unknown { whether, errno } => {
                let error = io::Error::from_raw_os_error(*errno);
                match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "whether {whether} cannot be told without root ({error}): run with sudo")
                    }
                    _ => write!(f, "whether {whether} cannot be told: {error}"),
                }
            }
        }
    }
}

/// Uses by function.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    of: BTreeMap<HostAddress, BTreeSet<Use>>,
}

impl Uses {
    /// All that the host has of them.
    pub fn read(host: &Host) -> Uses {
        let mut uses = Uses::default();
        blocks::read(host, &mut uses);
        network::read(host, &mut uses);
        consoles::read(host, &mut uses);
        uses
    }

    /// Those of one function, with what can be told only by looking at it alone.
    pub fn of(&self, host: &Host, function: &Function) -> Vec<Use> {
        let mut uses = self.of.get(&function.address()).cloned().unwrap_or_default();
        let is_mount = |found: &Use| matches!(found, Use::Mounted { .. });
        let surplus: Vec<Use> = uses.iter().filter(|found| is_mount(found)).skip(MOUNTS).cloned().collect();
        uses.retain(|found| !surplus.contains(found));
        if !surplus.is_empty() {
            uses.insert(Use::MountedToo { count: surplus.len() });
        }
        if function.is_vfio() {
            return uses.into_iter().collect();
        }
        let count = function.virtual_functions();
        if count > 0 {
            uses.insert(Use::VirtualFunctions { count });
        }
        if !uses.iter().any(|found| matches!(found, Use::Mounted { .. } | Use::Swap { .. })) {
            uses.extend(blocks::claimed(host, function));
        }
        uses.extend(open_nodes::read(host, function));
        uses.into_iter().collect()
    }

    /// Whoever uses what is at `directory` of sysfs uses the function that it is a part of, and if that is a virtual one,
    /// the physical one too.
    fn add(&mut self, directory: &Path, found: &Use) {
        let Some((address, directory)) = function_above(directory) else { return };
        self.of.entry(address).or_default().insert(found.clone());
        if let Some(physical) = sysfs::link_name(&directory.join("physfn")).and_then(|name| name.parse().ok())
        {
            self.of.entry(physical).or_default().insert(found.clone());
        }
    }
}

/// The function that a directory of sysfs is in: the innermost one of its path.
fn function_above(directory: &Path) -> Option<(HostAddress, &Path)> {
    directory.ancestors().find_map(|ancestor| {
        let name = ancestor.file_name()?.to_str()?;
        // sysfs has all four digits of a domain, so that nothing else looks like an address.
        name.parse().ok().filter(|address: &HostAddress| address.to_string() == name).map(|a| (a, ancestor))
    })
}

/// A file's text without the blanks around it. Names of other files in it (mount points) may have any bytes.
fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).trim().to_owned()
}

/// The names in a directory; none if it does not exist.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests;
