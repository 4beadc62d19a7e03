//! The form of a physical path as illumos writes it: `/pci@0,0/pci8086,151@1/display@0`.
//!
//! Its readers compare paths as texts, so that another spelling of a function's path is no path of it: a node has one name and
//! one unit address, hexadecimal, in lower case, without leading zeros, and without a second number that is 0 but for the
//! root's. Which names nodes have is not checked: a driver may give them others than their ids.

use crate::file_text::quoted;
use crate::id_text::{self, IdFault};

/// The most digits of a number in a unit address.
const DIGITS: usize = 8;

/// Why a text that begins with `/` is no function's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathFault {
    /// `/sys/bus/pci/devices/0000:01:00.0`, `/dev/vfio/3`
    #[error(
        "a file's name is none of the device tree's, where paths are as /pci@0,0/pci8086,151@1/display@0"
    )]
    File,
    /// `/isa@1f`, `/pci@0/isa@1f`
    #[error("a path starts at a root bus, such as /pci@0,0, not at {}", quoted(part))]
    Root {
        /// What the path starts with.
        part: Vec<u8>,
    },
    /// `/pci@0,0`
    #[error("it is a bus, not a function")]
    Bus,
    /// `isa`, `@1f`, `isa@1f,`, and nothing between two slashes or after the last.
    #[error("{} is not NAME@DEVICE[,FUNCTION] with hexadecimal numbers", quoted(part))]
    Part {
        /// The part of the path.
        part: Vec<u8>,
    },
    /// `pciex8086,151@1`
    #[error("{}: nodes are named pci…, also those of PCI Express", quoted(part))]
    Express {
        /// The part of the path.
        part: Vec<u8>,
    },
    /// `pci8086,0151@1`
    #[error("{}: {fault}", quoted(id))]
    Id {
        /// The id in the name of a part.
        id: Vec<u8>,
        /// Why it is none.
        fault: IdFault,
    },
    /// `isa@1F`
    #[error("{}: paths are compared as text, with numbers in lower case", quoted(part))]
    UpperCase {
        /// The part of the path.
        part: Vec<u8>,
    },
    /// `isa@01f`
    #[error("{}: paths are compared as text, with numbers without leading zeros", quoted(part))]
    Padded {
        /// The part of the path.
        part: Vec<u8>,
    },
    /// `isa@1f,0`
    #[error("{}: paths are compared as text, and function 0 is left out", quoted(part))]
    FunctionZero {
        /// The part of the path.
        part: Vec<u8>,
    },
}

/// Why no function has this path, if so.
pub fn fault(path: &[u8]) -> Option<PathFault> {
    if [b"/dev/".as_slice(), b"/sys/", b"/proc/"].iter().any(|directory| path.starts_with(directory)) {
        return Some(PathFault::File);
    }
    let mut parts = path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/');
    let root = parts.next().unwrap_or_default();
    if let Some(fault) = root_fault(root) {
        return Some(fault);
    }
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return Some(PathFault::Bus);
    }
    parts.find_map(part_fault)
}

fn root_fault(part: &[u8]) -> Option<PathFault> {
    let owned = || part.to_owned();
    let Some(Part { name: b"pci", first, second: Some(second) }) = split(part) else {
        return Some(PathFault::Root { part: owned() });
    };
    [first, second].into_iter().find_map(|number| number_fault(part, number))
}

fn part_fault(part: &[u8]) -> Option<PathFault> {
    let owned = || part.to_owned();
    let Some(Part { name, first, second }) = split(part) else {
        return Some(PathFault::Part { part: owned() });
    };
    if name.starts_with(b"pciex") {
        return Some(PathFault::Express { part: owned() });
    }
    if let Some((id, fault)) = name.strip_prefix(b"pci").and_then(id_fault) {
        return Some(PathFault::Id { id: id.to_owned(), fault });
    }
    let numbers = [Some(first), second].into_iter().flatten();
    numbers.into_iter().find_map(|number| number_fault(part, number)).or_else(|| {
        let is_zero = second.is_some_and(|second| second == b"0");
        is_zero.then(|| PathFault::FunctionZero { part: owned() })
    })
}

/// Of `8086,151`. What is no two numbers is another name.
fn id_fault(ids: &[u8]) -> Option<(&[u8], IdFault)> {
    let (vendor, device) = halves(ids, b',')?;
    let faults = [vendor, device].map(|id| (id, id_text::fault(id)));
    if faults.iter().any(|(_, fault)| *fault == Some(IdFault::NotHexadecimal)) {
        return None;
    }
    faults.into_iter().find_map(|(id, fault)| Some((id, fault?)))
}

fn number_fault(part: &[u8], number: &[u8]) -> Option<PathFault> {
    let part = || part.to_owned();
    if !(1..=DIGITS).contains(&number.len()) || !number.iter().all(u8::is_ascii_hexdigit) {
        Some(PathFault::Part { part: part() })
    } else if number.iter().any(u8::is_ascii_uppercase) {
        Some(PathFault::UpperCase { part: part() })
    } else if number.len() > 1 && number.starts_with(b"0") {
        Some(PathFault::Padded { part: part() })
    } else {
        None
    }
}

/// Of a path.
struct Part<'a> {
    name: &'a [u8],
    first: &'a [u8],
    second: Option<&'a [u8]>,
}

/// The characters of a name are those of IEEE 1275 §3.2.1.1.
fn split(part: &[u8]) -> Option<Part<'_>> {
    let (name, unit) = halves(part, b'@')?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b",._+-".contains(byte);
    if name.is_empty() || !name.iter().all(is_name) {
        return None;
    }
    Some(match halves(unit, b',') {
        Some((first, second)) => Part { name, first, second: Some(second) },
        None => Part { name, first: unit, second: None },
    })
}

fn halves(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let mut halves = text.splitn(2, |byte| *byte == at);
    halves.next().zip(halves.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_illumos_writes_them_have_no_fault() {
        for path in [
            "/pci@0,0/pci8086,151@1/display@0",
            "/pci@79,0/pci8086,6f08@3/pci1077,2a8@0,1",
            "/pci@0,0/isa@1f",
            "/pci@0,0/pci-ide@1f,1",
            "/pci@0,0/pciclass,030000@2",
            "/pci@0,0/pcie11,46@a,7",
            "/pci@0,0/SUNW,storage_1.0+x@1f,2",
            // The domain of a Linux host, and functions without a device number.
            "/pci@e0,10000/pci8086,151@6/pci15d9,1528@0,100",
        ] {
            assert_eq!(fault(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn other_spellings_are_told_from_what_is_no_path() {
        let part = |part: &str| part.as_bytes().to_owned();
        let id = |id: &str, fault| PathFault::Id { id: part(id), fault };
        for (path, expected) in [
            ("/sys/bus/pci/devices/0000:01:00.0", PathFault::File),
            ("/dev/vfio/3", PathFault::File),
            ("/", PathFault::Root { part: part("") }),
            ("/a", PathFault::Root { part: part("a") }),
            ("/devices", PathFault::Root { part: part("devices") }),
            ("/isa@1f", PathFault::Root { part: part("isa@1f") }),
            ("/pci@0/isa@1f", PathFault::Root { part: part("pci@0") }),
            ("//pci@0,0/isa@1f", PathFault::Root { part: part("") }),
            ("/pci@00,0/isa@1f", PathFault::Padded { part: part("pci@00,0") }),
            ("/pci@7F,0/isa@1f", PathFault::UpperCase { part: part("pci@7F,0") }),
            ("/pci@0,g/isa@1f", PathFault::Part { part: part("pci@0,g") }),
            ("/pci@0,0", PathFault::Bus),
            ("/pci@0,0/", PathFault::Part { part: part("") }),
            ("/pci@0,0/isa@1f/", PathFault::Part { part: part("") }),
            ("/pci@0,0//isa@1f", PathFault::Part { part: part("") }),
            ("/pci@0,0/isa", PathFault::Part { part: part("isa") }),
            ("/pci@0,0/@1f", PathFault::Part { part: part("@1f") }),
            ("/pci@0,0/isa@", PathFault::Part { part: part("isa@") }),
            ("/pci@0,0/isa@1f,", PathFault::Part { part: part("isa@1f,") }),
            ("/pci@0,0/isa@1f,0,0", PathFault::Part { part: part("isa@1f,0,0") }),
            ("/pci@0,0/isa@+1f", PathFault::Part { part: part("isa@+1f") }),
            ("/pci@0,0/isa@100000000", PathFault::Part { part: part("isa@100000000") }),
            ("/pci@0,0/i sa@1f", PathFault::Part { part: part("i sa@1f") }),
            ("/pci@0,0/isa@1F", PathFault::UpperCase { part: part("isa@1F") }),
            ("/pci@0,0/isa@01f", PathFault::Padded { part: part("isa@01f") }),
            ("/pci@0,0/isa@1f,03", PathFault::Padded { part: part("isa@1f,03") }),
            ("/pci@0,0/isa@1f,0", PathFault::FunctionZero { part: part("isa@1f,0") }),
            ("/pci@0,0/pciex8086,151@1", PathFault::Express { part: part("pciex8086,151@1") }),
            ("/pci@0,0/pci8086,0151@1", id("0151", IdFault::Padded)),
            ("/pci@0,0/pci10DE,a65@1", id("10DE", IdFault::UpperCase)),
        ] {
            assert_eq!(fault(path.as_bytes()), Some(expected), "{path}");
        }
    }
}
