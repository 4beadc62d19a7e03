//! The functions of a host, as far as it matters who has them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use passthru::host::vfio::sysfs::{self, SysfsFunction};
use passthru::pci::HostAddress;

use super::Host;
use crate::host::compatible::Identity;
use crate::host::{physical_path, sriov};

/// Base class of bridges, which host bridges and parts of a chipset have as well.
const BRIDGE: u32 = 0x06;

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Address, driver, group.
    pub sysfs: SysfsFunction,
    /// Ids and class.
    pub identity: Identity,
    /// Its physical path, where it has one.
    pub path: Option<String>,
    /// Its directory below `/sys/devices`.
    pub directory: PathBuf,
}

impl Function {
    fn read(host: &Host, name: &str) -> Option<Function> {
        let devices = host.functions();
        let function = sysfs::find_in(&devices, name).ok()?;
        let directory = fs::canonicalize(devices.join(name)).ok()?;
        Some(Function {
            identity: Identity::read(&directory)?,
            path: physical_path::of_in(&host.sysfs, function.address).ok(),
            sysfs: function,
            directory,
        })
    }

    /// Where it is.
    pub fn address(&self) -> HostAddress {
        self.sysfs.address
    }

    /// A VFIO driver has it.
    pub fn is_vfio(&self) -> bool {
        self.sysfs.driver.as_deref().is_some_and(sysfs::is_vfio)
    }

    /// It leads to other functions: its header is that of a bridge.
    pub fn is_bridge(&self) -> bool {
        self.identity.header != 0
    }

    /// A part of the host itself, by its class.
    pub fn is_platform(&self) -> bool {
        self.identity.class >> 16 == BRIDGE
    }

    /// Its names in `ppt_aliases`, the most exact first.
    pub fn names(&self) -> Vec<String> {
        self.path.iter().cloned().chain(self.identity.names()).collect()
    }

    /// Who has it, for a message.
    pub fn holder(&self) -> &str {
        self.sysfs.driver.as_deref().unwrap_or("no driver")
    }

    /// How the kernel names the modules that it asks for when it finds the function.
    pub fn modalias(&self) -> Option<String> {
        let text = fs::read_to_string(self.directory.join("modalias")).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Id of its subsystem, which may be there without a vendor of it.
    pub fn subsystem_device(&self) -> u16 {
        let text = fs::read_to_string(self.directory.join("subsystem_device")).unwrap_or_default();
        u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap_or(0)
    }

    /// How many virtual functions it has.
    pub fn virtual_functions(&self) -> u32 {
        sriov::virtual_functions(&self.directory)
    }

    /// The only driver that may take it, as [`driver_override`].
    pub fn driver_override(&self) -> Option<String> {
        driver_override(&self.directory)
    }
}

/// The only driver that may take the function of this directory. The kernel has `(null)` where there is none. It is asked for of
/// functions that are to be changed only: the kernel takes the device's lock for it (`driver_override_show`), and whoever unbinds
/// a driver has that until the driver has let go, VFIO's until the guest has.
pub fn driver_override(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join("driver_override")).ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty() && name != "(null)")
}

/// All functions of a host.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    functions: BTreeMap<HostAddress, Function>,
}

impl Inventory {
    /// Of a host; without PCI there are none, and one that goes away meanwhile is left out.
    pub fn read(host: &Host) -> io::Result<Inventory> {
        let entries = match fs::read_dir(host.functions()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Inventory::default()),
            entries => entries?,
        };
        let mut inventory = Inventory::default();
        for entry in entries {
            let function = Function::read(host, &entry?.file_name().to_string_lossy());
            inventory.functions.extend(function.map(|function| (function.address(), function)));
        }
        Ok(inventory)
    }

    /// The function at an address.
    pub fn get(&self, address: HostAddress) -> Option<&Function> {
        self.functions.get(&address)
    }

    /// All, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }

    /// The others of its group that a VFIO driver has, by address.
    pub fn reserved_beside(&self, function: &Function) -> Vec<&Function> {
        let same = |other: &&Function| {
            other.sysfs.group == function.sysfs.group && other.address() != function.address()
        };
        match function.sysfs.group {
            Some(_) => self.iter().filter(same).filter(|other| other.is_vfio()).collect(),
            None => Vec::new(),
        }
    }
}
