//! IOMMU units, as `/sys/class/iommu` has them, and what they translate.

use std::fs;
use std::ops::Range;
use std::path::Path;

use passthru::host::vfio::sysfs::{self, GROUPS};
use passthru::pci::HostAddress;
use serde::Serialize;

/// Where Linux lists IOMMU units.
const UNITS: &str = "/sys/class/iommu";

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// `dmar0`, `ivhd0`.
    pub name: String,
    /// Whose it is.
    pub kind: Kind,
    /// Its registers that sysfs shows, by their names there.
    pub registers: Vec<(String, String)>,
}

/// Whose a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Intel VT-d.
    Intel,
    /// AMD-Vi.
    Amd,
    /// Another.
    Other,
}

/// All units of the host.
pub fn units() -> Vec<Unit> {
    let mut units: Vec<Unit> = fs::read_dir(UNITS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| read(&entry.path(), entry.file_name().to_str()?))
        .collect();
    units.sort_by(|a, b| a.name.cmp(&b.name));
    units
}

fn read(directory: &Path, name: &str) -> Option<Unit> {
    let kinds = [("intel-iommu", Kind::Intel), ("amd-iommu", Kind::Amd)];
    let found = kinds.into_iter().find(|(folder, _)| directory.join(folder).is_dir());
    let registers = found.map(|(folder, _)| {
        let entries = fs::read_dir(directory.join(folder)).into_iter().flatten().flatten();
        let mut registers: Vec<(String, String)> = entries
            .filter_map(|entry| {
                let text = fs::read_to_string(entry.path()).ok()?;
                Some((entry.file_name().into_string().ok()?, text.trim().to_owned()))
            })
            .collect();
        registers.sort();
        registers
    });
    let kind = found.map_or(Kind::Other, |(_, kind)| kind);
    Some(Unit { name: name.to_owned(), kind, registers: registers.unwrap_or_default() })
}

impl Unit {
    fn register(&self, name: &str) -> Option<u64> {
        let (_, text) = self.registers.iter().find(|(register, _)| register == name)?;
        u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    }

    /// How many bits of an I/O address it translates, where that is known: of VT-d the lesser of what it accepts and what
    /// the deepest page table that it walks has (VT-d 4.1 §11.4.2: MGAW in bits 21:16, SAGAW in bits 12:8).
    pub fn address_bits(&self) -> Option<u32> {
        if self.kind != Kind::Intel {
            return None;
        }
        let capability = self.register("cap")?;
        let accepted = (capability >> 16 & 0x3f) as u32 + 1;
        // Bit 1 is 39 bits, each further one nine more.
        let walked = (1..5).rev().find(|bit| capability >> (8 + bit) & 1 != 0).map(|bit| 30 + 9 * bit)?;
        Some(accepted.min(walked))
    }
}

/// How many groups there are behind an IOMMU, and how many that VFIO made of functions behind none.
pub fn groups() -> (usize, usize) {
    groups_in(Path::new(GROUPS))
}

fn groups_in(directory: &Path) -> (usize, usize) {
    let groups = fs::read_dir(directory).into_iter().flatten().flatten();
    let (made_up, real): (Vec<_>, Vec<_>) = groups.partition(|group| sysfs::is_without_iommu(&group.path()));
    (real.len(), made_up.len())
}

/// The group of a function that is behind an IOMMU.
pub fn group(address: HostAddress) -> Option<u32> {
    let group = Path::new(sysfs::DEVICES).join(address.to_string()).join("iommu_group");
    let number = sysfs::link_name(&group)?.parse().ok()?;
    (!sysfs::is_without_iommu(&group)).then_some(number)
}

/// A range of I/O addresses that a group cannot use as others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reserved {
    /// Of I/O addresses.
    pub range: Range<u64>,
    /// `reserved`, `msi`, `direct`, `direct-relaxable` (`Documentation/ABI/testing/sysfs-kernel-iommu_groups`).
    pub kind: String,
}

impl Reserved {
    /// No memory of a guest can be there. VFIO takes addresses that only firmware used (`vfio_iommu_resv_exclude`).
    pub fn excludes(&self) -> bool {
        self.kind != "direct-relaxable"
    }
}

/// The reserved ranges of a group.
pub fn reserved(group: u32) -> Vec<Reserved> {
    reserved_in(&fs::read_to_string(format!("{GROUPS}/{group}/reserved_regions")).unwrap_or_default())
}

/// Lines of first and last address in hexadecimal, and the kind.
fn reserved_in(text: &str) -> Vec<Reserved> {
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (first, last) = (number(words.next()?)?, number(words.next()?)?);
        Some(Reserved { range: first..last.saturating_add(1), kind: words.next()?.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intel(cap: &str) -> Unit {
        let registers = vec![("cap".to_owned(), cap.to_owned())];
        Unit { name: "dmar0".to_owned(), kind: Kind::Intel, registers }
    }

    #[test]
    fn width_is_the_lesser_of_two() {
        for (cap, bits) in [
            // QEMU's with 39 and 48 bits, and two of real processors.
            ("d2008c22260206", Some(39)),
            ("d2008c222f0606", Some(48)),
            ("1c0000c40660462", Some(39)),
            ("d2078c106f0466", Some(48)),
            ("0", None),
            ("garbage", None),
        ] {
            assert_eq!(intel(cap).address_bits(), bits, "{cap}");
        }
        assert_eq!(Unit { kind: Kind::Amd, ..intel("d2008c22260206") }.address_bits(), None);
    }

    #[test]
    fn groups_that_vfio_made_up_are_behind_no_iommu() {
        let directory = tempfile::tempdir().unwrap();
        for (group, name) in [("0", None), ("1", Some("vfio-noiommu\n")), ("2", Some("other\n"))] {
            fs::create_dir(directory.path().join(group)).unwrap();
            if let Some(name) = name {
                fs::write(directory.path().join(group).join("name"), name).unwrap();
            }
        }
        assert_eq!(groups_in(directory.path()), (2, 1));
        assert_eq!(groups_in(&directory.path().join("none")), (0, 0));
    }

    #[test]
    fn reserved_ranges_and_their_kinds() {
        let text = "0x00000000bdf6f000 0x00000000bdf7efff direct\n\
                    0x00000000fee00000 0x00000000feefffff msi\n\
                    0xfd00000000 0xffffffffff reserved\n\
                    0x0 0x0 direct-relaxable\n\
                    nonsense\n";
        let found = reserved_in(text);
        assert_eq!(found.len(), 4);
        assert_eq!(found[1], Reserved { range: 0xfee0_0000..0xfef0_0000, kind: "msi".to_owned() });
        assert_eq!(found.iter().map(Reserved::excludes).collect::<Vec<_>>(), [true, true, true, false]);
    }
}
