//! A function of the host, as sysfs has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use passthru::host::vfio::sysfs;
use passthru::pci::HostAddress;

use super::{Listed, label};

/// Where the header type is, and which bits of it are not the type (PCI 3.0 §6.2.1).
const HEADER_TYPE: usize = 0xe;
const MULTIFUNCTION: u8 = 0x80;
/// What the kernel calls groups without an IOMMU, whose nodes have another name.
const NO_IOMMU: &str = "vfio-noiommu";

/// A function of the host.
#[derive(Clone, Debug)]
pub struct HostFunction {
    /// Where it is.
    pub address: HostAddress,
    /// Its directory below `/sys/devices`, or the link to it.
    pub directory: PathBuf,
    /// The driver that holds it.
    pub driver: Option<String>,
    /// Its IOMMU group, as the name of its node below `/dev/vfio`.
    pub group: Option<String>,
    /// Its device file below `/dev/vfio/devices`.
    pub cdev: Option<String>,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Vendor and id of the subsystem.
    pub subsystem: Option<(u16, u16)>,
    /// Revision id.
    pub revision: u16,
}

impl HostFunction {
    /// All functions of a host. Without PCI there are none; one that goes away meanwhile is left out.
    pub fn all(devices: &Path) -> io::Result<Vec<HostFunction>> {
        let entries = match fs::read_dir(devices) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut functions = Vec::new();
        for entry in entries {
            functions.extend(HostFunction::read(&entry?.path()));
        }
        functions.sort_by_key(|function: &HostFunction| function.address);
        Ok(functions)
    }

    fn read(link: &Path) -> Option<HostFunction> {
        let address = link.file_name()?.to_str()?.parse().ok()?;
        let directory = fs::canonicalize(link).ok()?;
        let number = |file| {
            let text = fs::read_to_string(directory.join(file)).ok()?;
            u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
        };
        // Header type 0 has subsystem ids. Linux finds some of bridges in a capability, which illumos does not look at.
        let endpoint = fs::read(directory.join("config"))
            .is_ok_and(|config| config.get(HEADER_TYPE).is_none_or(|kind| kind & !MULTIFUNCTION == 0));
        let subsystem = number("subsystem_vendor").filter(|vendor| *vendor != 0 && endpoint);
        let group = link_name(&directory.join("iommu_group")).map(|number| {
            match fs::read_to_string(directory.join("iommu_group/name")) {
                Ok(name) if name.trim() == NO_IOMMU => format!("noiommu-{number}"),
                _ => number,
            }
        });
        Some(HostFunction {
            address,
            driver: link_name(&directory.join("driver")),
            group,
            cdev: fs::read_dir(directory.join("vfio-dev"))
                .ok()
                .and_then(|mut entries| entries.next()?.ok()?.file_name().into_string().ok()),
            vendor: number("vendor")?,
            device: number("device")?,
            subsystem: subsystem.zip(number("subsystem_device")),
            revision: number("revision")?,
            directory,
        })
    }

    /// A VFIO driver holds it.
    pub fn is_bound(&self) -> bool {
        self.driver.as_deref().is_some_and(sysfs::is_vfio)
    }

    fn dev(&self) -> Option<String> {
        let own = self.cdev.as_ref().map(|name| format!("/dev/vfio/devices/{name}"));
        own.or_else(|| self.group.as_ref().map(|name| format!("/dev/vfio/{name}")))
    }

    /// What the list says of it.
    pub fn listed(&self, path: Option<String>) -> Listed {
        let id = |id: u16| format!("{id:x}");
        Listed {
            dev: self.is_bound().then(|| self.dev()).flatten(),
            path,
            vendor: id(self.vendor),
            device: id(self.device),
            subvendor: self.subsystem.map(|(vendor, _)| id(vendor)),
            subdevice: self.subsystem.map(|(_, subsystem)| id(subsystem)),
            revision: id(self.revision),
            label: label(self.vendor, self.device),
        }
    }
}

fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}
