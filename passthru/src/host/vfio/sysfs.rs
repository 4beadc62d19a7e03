//! What Linux says of a PCI function in sysfs, before anything is opened.

use std::fs;
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::host::BARS;
use crate::pci::HostAddress;
use crate::pci::bar::{self, Bar, BarKind};

/// Where Linux lists PCI functions.
pub const DEVICES: &str = "/sys/bus/pci/devices";
/// The driver that gives functions to VFIO.
pub const DRIVER: &str = "vfio-pci";

/// A function as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysfsFunction {
    /// Where it is in the host.
    pub address: HostAddress,
    /// The driver that holds it.
    pub driver: Option<String>,
    /// Its IOMMU group; nothing without an IOMMU.
    pub group: Option<u32>,
    /// Sizes of its BARs and their kinds, by index; size 0 where there is none.
    pub resources: [(u64, BarKind); BARS],
    /// Vendor id in bits 15:0, device id in bits 31:16.
    pub ids: u32,
}

impl SysfsFunction {
    /// Its BARs, as far as they make sense.
    pub fn bars(&self) -> Vec<Bar> {
        let mut registers = [0; BARS];
        for (register, (_, kind)) in registers.iter_mut().zip(self.resources) {
            *register = kind.type_bits();
        }
        bar::decode(registers, self.resources.map(|(size, _)| size)).0
    }
}

/// Finds the function that a user means by `name`: an address (`0000:01:00.0`, `01:00.0`) or a path to its directory
/// in sysfs.
pub fn find(name: &str) -> Result<SysfsFunction, OpenError> {
    find_in(Path::new(DEVICES), name)
}

pub(super) fn find_in(devices: &Path, name: &str) -> Result<SysfsFunction, OpenError> {
    let unknown = || OpenError::UnknownDevice { name: name.to_owned() };
    let address: HostAddress = if name.contains('/') {
        let path = fs::canonicalize(name).map_err(|_| unknown())?;
        path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()).ok_or_else(unknown)?
    } else {
        name.parse().map_err(|_| unknown())?
    };
    read(devices, address).ok_or_else(unknown)
}

fn read(devices: &Path, address: HostAddress) -> Option<SysfsFunction> {
    let directory = devices.join(address.to_string());
    if !directory.is_dir() {
        return None;
    }
    let id = |file| {
        let text = fs::read_to_string(directory.join(file)).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    Some(SysfsFunction {
        address,
        driver: link_name(&directory.join("driver")),
        group: link_name(&directory.join("iommu_group")).and_then(|name| name.parse().ok()),
        resources: resources(&fs::read_to_string(directory.join("resource")).unwrap_or_default()),
        ids: id("vendor").unwrap_or(0xffff) | id("device").unwrap_or(0xffff) << 16,
    })
}

fn link_name(path: &Path) -> Option<String> {
    let target: PathBuf = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// `linux/ioport.h`
const IORESOURCE_IO: u64 = 0x100;
const IORESOURCE_PREFETCH: u64 = 0x2000;
const IORESOURCE_MEM_64: u64 = 0x10_0000;

/// A line of `resource` is start, end and flags in hexadecimal; the first six are the BARs.
fn resources(text: &str) -> [(u64, BarKind); BARS] {
    let mut bars = [(0, BarKind::Memory32 { prefetchable: false }); BARS];
    for (bar, line) in bars.iter_mut().zip(text.lines()) {
        let mut words = line.split_whitespace().map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16));
        let (Some(Ok(start)), Some(Ok(end)), Some(Ok(flags))) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let prefetchable = flags & IORESOURCE_PREFETCH != 0;
        if flags == 0 || end < start {
            continue;
        }
        let kind = match (flags & IORESOURCE_IO != 0, flags & IORESOURCE_MEM_64 != 0) {
            (true, _) => BarKind::Io,
            (_, true) => BarKind::Memory64 { prefetchable },
            _ => BarKind::Memory32 { prefetchable },
        };
        *bar = ((end - start).saturating_add(1), kind);
    }
    bars
}

/// A member of a group and the driver that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is in the host.
    pub address: HostAddress,
    /// The driver that holds it.
    pub driver: Option<String>,
}

/// The functions of a group that are in VFIO's way: bound to drivers of the host. Bridges and functions without a
/// driver are not (`vfio_dev_viable` in `drivers/vfio/group.c`).
pub fn offenders(address: HostAddress) -> Vec<Member> {
    offenders_in(Path::new(DEVICES), address)
}

fn offenders_in(devices: &Path, address: HostAddress) -> Vec<Member> {
    let members = devices.join(address.to_string()).join("iommu_group/devices");
    let Ok(entries) = fs::read_dir(members) else { return Vec::new() };
    let mut found: Vec<Member> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(|address: HostAddress| Member {
            address,
            driver: link_name(&devices.join(address.to_string()).join("driver")),
        })
        .filter(|member| match member.driver.as_deref() {
            None | Some("pcieport" | "pci-stub") => false,
            Some(driver) => !driver.starts_with("vfio"),
        })
        .collect();
    found.sort_by_key(|member| member.address);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_files_give_sizes_and_kinds() {
        let text = "0x00000000febd0000 0x00000000febd3fff 0x0000000000140204\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x000000000000c040 0x000000000000c05f 0x0000000000040101\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x00000000fe000000 0x00000000fe003fff 0x0000000000042208\n\
                    garbage\n\
                    0x1 0x2 0x3\n";
        let bars = resources(text);
        assert_eq!(bars[0], (0x4000, BarKind::Memory64 { prefetchable: false }));
        assert_eq!(bars[1].0, 0);
        assert_eq!(bars[2], (0x20, BarKind::Io));
        assert_eq!(bars[4], (0x4000, BarKind::Memory32 { prefetchable: true }));
        assert_eq!(bars[5].0, 0);
    }

    #[test]
    fn names_that_mean_no_function() {
        for name in ["", "0000:ff:1f.7", "nonsense", "/sys", "/nowhere/0000:00:00.0", "../0000:00:01.0"] {
            assert!(matches!(find(name), Err(OpenError::UnknownDevice { .. })), "{name}");
        }
    }
}
