//! A node of the tree that physical paths lead through: how illumos on x86 names it and what its unit address is
//! (illumos `usr/src/uts/common/io/pciex/pci_props.c`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use passthru::pci::HostAddress;

use super::PathError;
use crate::host::header;

/// Base class, subclass and programming interface of what illumos names `display`: VGA from before there were classes, VGA,
/// and 8514 (PCI Code and ID Assignment 1.15 §1.1, §1.4). Other displays are named by their ids.
const DISPLAYS: [u32; 3] = [0x00_0100, 0x03_0000, 0x03_0001];
/// Base class and subclass of ISA bridges.
const ISA: u32 = 0x0601;

/// Two numbers that tell the nodes below one node apart: bus and domain of a root, device and function of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitAddress(pub u32, pub u32);

impl UnitAddress {
    /// `1f,3`, hexadecimal. What is left out behind the comma is 0.
    pub fn parse(text: &str) -> Option<UnitAddress> {
        let (first, second) = text.split_once(',').unwrap_or((text, "0"));
        Some(UnitAddress(hex(first)?, hex(second)?))
    }

    /// Where a function is below its bridge or root. With ARI there is no device number, and the function's number has eight
    /// bits (PCIe 6.0 §6.13). A virtual function may be on a later bus than the physical one that it belongs to, without a
    /// bridge to that bus: its number goes on counting from the first bus.
    fn of(directory: &Path, address: HostAddress) -> UnitAddress {
        let slot = address.slot();
        let physical = fs::read_link(directory.join("physfn")).ok().and_then(|link| function(&link));
        let first_bus = physical.unwrap_or(address).slot().bus();
        let number = slot.requester_id().wrapping_sub(u16::from(first_bus) << 8);
        let ari = fs::read_to_string(directory.join("ari_enabled")).is_ok_and(|text| text.trim() == "1");
        if ari || number > 0xff {
            UnitAddress(0, number.into())
        } else {
            UnitAddress(slot.device().into(), slot.function().into())
        }
    }
}

/// A root of the host's PCI topology, or a function.
#[derive(Clone, Debug)]
pub enum Node {
    /// A root bus.
    Root(UnitAddress),
    /// A function and its directory in sysfs.
    Function(UnitAddress, PathBuf),
}

impl Node {
    /// Where it is below its parent.
    pub fn unit(&self) -> UnitAddress {
        match self {
            Node::Root(unit) | Node::Function(unit, _) => *unit,
        }
    }

    /// What is before its `@`.
    pub fn name(&self) -> Result<String, PathError> {
        match self {
            Node::Root(_) => Ok("pci".to_owned()),
            Node::Function(_, directory) => name(directory),
        }
    }

    /// Its part of a path: `pci@0,0`, `display@0`, `pci8086,1528@0,1`.
    pub fn component(&self) -> Result<String, PathError> {
        let UnitAddress(first, second) = self.unit();
        let name = self.name()?;
        Ok(match self {
            Node::Function(..) if second == 0 => format!("{name}@{first:x}"),
            _ => format!("{name}@{first:x},{second:x}"),
        })
    }
}

/// The nodes that lead to a function, the root first and the function last. sysfs has a function's directory inside its
/// bridge's, and the outermost bridge inside its root's, `pci0000:00`.
pub fn chain(directory: &Path) -> Option<Vec<Node>> {
    let mut nodes = Vec::new();
    for directory in directory.ancestors() {
        if let Some(address) = function(directory) {
            nodes.push(Node::Function(UnitAddress::of(directory, address), directory.to_owned()));
            continue;
        }
        nodes.push(Node::Root(root(directory)?));
        nodes.reverse();
        return Some(nodes);
    }
    None
}

/// The function that a directory is called after.
fn function(directory: &Path) -> Option<HostAddress> {
    let name = directory.file_name()?.to_str()?;
    name.parse::<HostAddress>().ok().filter(|address| address.to_string() == name)
}

/// The root that a directory `pciDOMAIN:BUS` is called after.
fn root(directory: &Path) -> Option<UnitAddress> {
    let (domain, bus) = directory.file_name()?.to_str()?.strip_prefix("pci")?.split_once(':')?;
    Some(UnitAddress(hex(bus)?, hex(domain)?))
}

/// illumos does not take a bridge's subsystem for its name on x86, for bridges had none when names were made up; Linux has
/// it from the capability in the same files.
fn name(directory: &Path) -> Result<String, PathError> {
    let id = |file| number(&directory.join(file));
    let class = id("class")?;
    if DISPLAYS.contains(&class) {
        return Ok("display".to_owned());
    }
    if class >> 8 == ISA {
        return Ok("isa".to_owned());
    }
    let (vendor, device) = match id("subsystem_vendor")? {
        0 => (id("vendor")?, id("device")?),
        _ if header::of(directory) == header::BRIDGE => (id("vendor")?, id("device")?),
        vendor => (vendor, id("subsystem_device")?),
    };
    Ok(format!("pci{vendor:x},{device:x}"))
}

/// A file with a number as sysfs writes it, `0x8086`.
fn number(path: &Path) -> Result<u32, PathError> {
    let read = |source| PathError::Read { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(read)?;
    text.trim().strip_prefix("0x").and_then(hex).ok_or_else(|| read(io::ErrorKind::InvalidData.into()))
}

/// Up to eight digits; `from_str_radix` alone would take a sign.
fn hex(digits: &str) -> Option<u32> {
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
