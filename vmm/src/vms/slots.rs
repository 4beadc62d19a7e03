//! Whether a VM's devices go together, and which of them are not here or another VM's.

use devices::pci::slots::SlotConflict;
use passthru::host::vfio::sysfs;
use passthru::pci::{HostAddress, Slot};
use uuid::Uuid;

use super::description::{FieldError, Listed, Reason, VmDescription};
use crate::config::PciDevice;
use crate::host::physical_path::{self, PathError};
use crate::port_options::PortOptions;
use crate::slot_map::{Assignment, DeviceName, SlotMapError, any_host};

/// Finds the function of this host that a path names.
pub trait Functions {
    /// Its address; nothing where there is no such function.
    fn find(&self, path: &str) -> Option<HostAddress>;
}

/// This host's, by sysfs.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisHost;

impl Functions for ThisHost {
    fn find(&self, path: &str) -> Option<HostAddress> {
        let name = physical_path::resolve(path).ok()?;
        sysfs::find(&name).ok().map(|function| function.address)
    }
}

/// What makes two paths the same function; nothing for those of which there is any number.
pub fn key(path: &str, functions: &dyn Functions) -> Option<String> {
    match DeviceName::from(path) {
        DeviceName::Simulated(_) => None,
        DeviceName::Ppt(path) => Some(path),
        DeviceName::Host(path) => {
            let address = functions.find(&path).or_else(|| path.parse().ok());
            Some(address.map_or_else(
                || physical_path::without_devices(&path).to_owned(),
                |address| address.to_string(),
            ))
        }
    }
}

/// Something that does not keep a description from being kept.
#[derive(Debug, thiserror::Error)]
pub enum Warning {
    /// It may come later.
    #[error("{path} is no function of this host now{}; the VM does not start without it", why(.reason))]
    NotHere {
        /// As given.
        path: String,
        /// What is known of it.
        reason: Option<PathError>,
    },
    /// Only one of them can run.
    #[error("{path} is also in a slot of VM {vm}; only one of the two can run at a time")]
    InOther {
        /// As given.
        path: String,
        /// The other VM.
        vm: Uuid,
    },
}

fn why(reason: &Option<PathError>) -> String {
    reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"))
}

/// Checks that the slots go together and that no function is in two of them.
pub fn check(vm: &VmDescription, functions: &dyn Functions) -> Result<(), Vec<FieldError>> {
    let mut assignments: Vec<Assignment> = vm.file.assignments().collect();
    for assignment in &mut assignments {
        // Named in another way it is still the same function.
        if let DeviceName::Host(path) = &assignment.device
            && let Some(key) = key(path, functions)
        {
            assignment.device = DeviceName::Host(key);
        }
    }
    let options = PortOptions { empty: vm.file.ports.clone(), ..PortOptions::default() };
    let errors = any_host::check(&assignments, &options).err().unwrap_or_default();
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors
        .into_iter()
        .map(|error| FieldError::invalid(field(vm.devices(), &error), Reason::Slot(Box::new(error))))
        .collect())
}

/// The field that is wrong.
fn field(devices: &[PciDevice], error: &SlotMapError) -> String {
    let at = |slot: Slot| devices.iter().rposition(|device| device.pci_slot == slot);
    let on = |bus: u8| devices.iter().rposition(|device| device.port && device.pci_slot.bus() == bus);
    let (at, name) = match error {
        SlotMapError::Twice { second, .. } => (at(*second), "path"),
        SlotMapError::Slot(conflict) => {
            let at = match conflict {
                SlotConflict::HostBridge => at(devices::pci::slots::HOST_BRIDGE),
                SlotConflict::NoPortBus { bus } => on(*bus),
                SlotConflict::RootBusAmongPorts { bus, .. } => {
                    devices.iter().rposition(|device| device.pci_slot.bus() == *bus)
                }
                SlotConflict::Duplicate { slot, .. }
                | SlotConflict::NoFunctionZero { slot, .. }
                | SlotConflict::PortAndRoot { slot, .. }
                | SlotConflict::DeviceBehindPort { slot }
                | SlotConflict::PortDevice { slot, .. } => at(*slot),
            };
            (at, "pci_slot")
        }
        _ => (None, ""),
    };
    // What is wrong without a device is wrong with the ports.
    at.map_or_else(|| "ports".to_owned(), |at| format!("pci_devices.{at}.{name}"))
}

/// What is worth knowing about the devices of a VM beside those of others.
pub fn warnings<'a>(
    vm: &VmDescription,
    others: impl IntoIterator<Item = &'a VmDescription>,
    functions: &dyn Functions,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let keys: Vec<(Option<String>, &PciDevice)> =
        vm.devices().iter().map(|device| (key(&device.path, functions), device)).collect();
    for (_, PciDevice { path, .. }) in &keys {
        if matches!(DeviceName::from(path.as_str()), DeviceName::Host(_)) && functions.find(path).is_none() {
            let reason = physical_path::resolve(path).err();
            warnings.push(Warning::NotHere { path: path.clone(), reason });
        }
    }
    for other in others.into_iter().filter(|other| other.uuid != vm.uuid) {
        for theirs in other.devices() {
            let theirs = key(&theirs.path, functions);
            if let Some((_, device)) = keys.iter().find(|(key, _)| key.is_some() && *key == theirs) {
                warnings.push(Warning::InOther { path: device.path.clone(), vm: other.uuid });
            }
        }
    }
    warnings
}

/// Where in a VM's list the device with a path is.
pub fn position(
    devices: &[PciDevice],
    path: &str,
    field: &str,
    functions: &dyn Functions,
) -> Result<usize, FieldError> {
    let wanted = key(path, functions);
    let is_it = |device: &&PciDevice| match &wanted {
        Some(wanted) => key(&device.path, functions).as_ref() == Some(wanted),
        None => device.path == path,
    };
    let invalid = |reason| Err(FieldError::invalid(field, reason));
    let path = path.to_owned();
    match devices.iter().filter(is_it).count() {
        1 => Ok(devices.iter().position(|device| is_it(&device)).unwrap_or_default()),
        0 => {
            let there = Listed(devices.iter().map(|device| device.path.clone()).collect());
            invalid(Reason::NoSuchDevice { path, there })
        }
        times => invalid(Reason::Ambiguous { path, times }),
    }
}
