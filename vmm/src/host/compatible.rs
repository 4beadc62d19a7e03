//! The names by which illumos' drivers ask for a function: the `compatible` property of its node
//! (illumos `usr/src/uts/common/io/pciex/pci_props.c`, after the PCI bus binding to IEEE 1275).

use std::fs;
use std::path::Path;

use super::header;

/// Displays of this vendor have no names by their subsystems, which others have as ids.
const NVIDIA: u16 = 0x10de;
/// Class codes that illumos takes for VGA.
const DISPLAYS: [u32; 3] = [0x00_0100, 0x03_0000, 0x03_0001];

/// What a function says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Vendor and id of the subsystem.
    pub subsystem: Option<(u16, u16)>,
    /// Revision id.
    pub revision: u8,
    /// Base class in bits 23:16, subclass in 15:8, programming interface in 7:0.
    pub class: u32,
    /// Header type: 0 for functions that are no bridges.
    pub header: u8,
    /// It has the capability of PCI Express.
    pub express: bool,
}

impl Identity {
    /// From the function's directory in sysfs, without configuration space. Nothing for what is going away.
    pub fn read(directory: &Path) -> Option<Identity> {
        let number = |file| {
            let text = fs::read_to_string(directory.join(file)).ok()?;
            u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
        };
        let id = |file| number(file).map(|id| id as u16);
        let subsystem = id("subsystem_vendor").filter(|vendor| *vendor != 0).zip(id("subsystem_device"));
        Some(Identity {
            vendor: id("vendor").filter(|vendor| *vendor != 0xffff)?,
            device: id("device")?,
            subsystem,
            revision: number("revision")? as u8,
            class: number("class")?,
            header: header::of(directory),
            express: header::is_express(directory),
        })
    }

    /// The ids as `--by-id` writes them: `pciex8086,37d2`, or `pci8086,1` for conventional PCI.
    pub fn id_alias(&self) -> String {
        format!("{}{:x},{:x}", if self.express { "pciex" } else { "pci" }, self.vendor, self.device)
    }

    /// All names, the most exact first. A PCI Express function has those of conventional PCI as well, after its own.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.express {
            self.add_names("pciex", false, &mut names);
        }
        self.add_names("pci", true, &mut names);
        names
    }

    fn add_names(&self, prefix: &str, conventional: bool, names: &mut Vec<String>) {
        let Identity { vendor, device, revision, class, .. } = *self;
        let ids = format!("{prefix}{vendor:x},{device:x}");
        if let Some((subvendor, subdevice)) = self.subsystem {
            names.push(format!("{ids}.{subvendor:x}.{subdevice:x}.{revision:x}"));
            names.push(format!("{ids}.{subvendor:x}.{subdevice:x}"));
            if conventional && !self.hides_subsystem() {
                names.push(format!("{prefix}{subvendor:x},{subdevice:x},s"));
                if self.header != header::BRIDGE {
                    names.push(format!("{prefix}{subvendor:x},{subdevice:x}"));
                }
            }
        }
        names.push(format!("{ids}.{revision:x}"));
        if conventional {
            names.push(format!("{ids},p"));
        }
        names.extend([
            ids,
            format!("{prefix}class,{class:06x}"),
            format!("{prefix}class,{:04x}", class >> 8),
        ]);
    }

    /// Ids of their subsystems are also ids of other devices.
    fn hides_subsystem(&self) -> bool {
        let ivy_bridge =
            (self.vendor, self.device, self.subsystem) == (0x8086, 0x166, Some((0x8086, 0x2044)));
        ivy_bridge || (self.vendor == NVIDIA && DISPLAYS.contains(&self.class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X722: Identity = Identity {
        vendor: 0x8086,
        device: 0x37d2,
        subsystem: Some((0x15d9, 0x37d2)),
        revision: 4,
        class: 0x02_0000,
        header: 0,
        express: true,
    };

    #[test]
    fn names_are_those_of_illumos_in_its_order() {
        assert_eq!(
            X722.names(),
            [
                "pciex8086,37d2.15d9.37d2.4",
                "pciex8086,37d2.15d9.37d2",
                "pciex8086,37d2.4",
                "pciex8086,37d2",
                "pciexclass,020000",
                "pciexclass,0200",
                "pci8086,37d2.15d9.37d2.4",
                "pci8086,37d2.15d9.37d2",
                "pci15d9,37d2,s",
                "pci15d9,37d2",
                "pci8086,37d2.4",
                "pci8086,37d2,p",
                "pci8086,37d2",
                "pciclass,020000",
                "pciclass,0200",
            ]
        );
        let conventional = Identity { express: false, subsystem: None, vendor: 0x11, device: 0x46, ..X722 };
        assert_eq!(
            conventional.names(),
            ["pci11,46.4", "pci11,46,p", "pci11,46", "pciclass,020000", "pciclass,0200"]
        );
        assert_eq!((X722.id_alias(), conventional.id_alias()), ("pciex8086,37d2".into(), "pci11,46".into()));
    }

    #[test]
    fn subsystems_that_are_ids_of_others_are_no_names() {
        let has = |identity: Identity, name: &str| identity.names().iter().any(|found| found == name);
        let nvidia = Identity { vendor: NVIDIA, class: 0x03_0000, ..X722 };
        assert!(!has(nvidia, "pci15d9,37d2") && has(nvidia, "pci10de,37d2.15d9.37d2"));
        assert!(has(Identity { class: 0x03_0200, ..nvidia }, "pci15d9,37d2"), "no VGA");
        let bridge = Identity { header: 1, ..X722 };
        assert!(!has(bridge, "pci15d9,37d2") && has(bridge, "pci15d9,37d2,s"));
    }
}
