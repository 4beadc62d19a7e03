//! A function of the host, as sysfs has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use passthru::host::vfio::sysfs::{self, SysfsFunction};

use super::{Listed, label};
use crate::host::header;

/// What a list needs of a function beside what a guest does.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The function.
    pub function: SysfsFunction,
    /// Its directory below `/sys/devices`.
    pub directory: PathBuf,
    /// Vendor and id of the subsystem.
    subsystem: Option<(u16, u16)>,
    revision: u16,
}

impl Candidate {
    /// All functions of a host, by address. Without PCI there are none; one that goes away meanwhile is left out.
    pub fn all(devices: &Path) -> io::Result<Vec<Candidate>> {
        let entries = match fs::read_dir(devices) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut candidates = Vec::new();
        for entry in entries {
            candidates.extend(Candidate::read(devices, &entry?.file_name().to_string_lossy()));
        }
        candidates.sort_by_key(|candidate: &Candidate| candidate.function.address);
        Ok(candidates)
    }

    fn read(devices: &Path, name: &str) -> Option<Candidate> {
        let function = sysfs::find_in(devices, name).ok()?;
        // What says no ids is going away.
        if [function.ids & 0xffff, function.ids >> 16].contains(&0xffff) {
            return None;
        }
        let directory = fs::canonicalize(devices.join(name)).ok()?;
        let number = |file| {
            let text = fs::read_to_string(directory.join(file)).ok()?;
            u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
        };
        // Bridges have one in a capability, those to CardBus in their header; vendor 0 is none.
        let subsystem = number("subsystem_vendor").filter(|vendor| *vendor != 0);
        let (subsystem, revision) = (subsystem.zip(number("subsystem_device")), number("revision")?);
        Some(Candidate { function, directory, subsystem, revision })
    }

    /// A VFIO driver holds it.
    pub fn is_bound(&self) -> bool {
        self.function.driver.as_deref().is_some_and(sysfs::is_vfio)
    }

    /// It leads to other functions, and cannot be passed through: its header is that of a bridge. Some without such a header
    /// have the class of one all the same, such as those of a chipset, non-transparent bridges and NVSwitches.
    pub fn is_bridge(&self) -> bool {
        header::of(&self.directory) != 0
    }

    /// Vendor id.
    pub fn vendor(&self) -> u16 {
        self.function.ids as u16
    }

    /// Device id.
    pub fn device(&self) -> u16 {
        (self.function.ids >> 16) as u16
    }

    fn dev(&self) -> Option<String> {
        if let Some(name) = &self.function.cdev {
            return Some(format!("/dev/vfio/devices/{name}"));
        }
        let number = self.function.group?;
        let prefix = match sysfs::is_without_iommu(&self.directory.join("iommu_group")) {
            true => "noiommu-",
            false => "",
        };
        Some(format!("/dev/vfio/{prefix}{number}"))
    }

    /// What the list says of it.
    pub fn listed(&self, path: Option<String>) -> Listed {
        let id = |id: u16| format!("{id:x}");
        Listed {
            dev: self.is_bound().then(|| self.dev()).flatten(),
            path,
            vendor: id(self.vendor()),
            device: id(self.device()),
            subvendor: self.subsystem.map(|(vendor, _)| id(vendor)),
            subdevice: self.subsystem.map(|(_, subsystem)| id(subsystem)),
            revision: id(self.revision),
            label: label(self.vendor(), self.device()),
            state: None,
        }
    }
}
