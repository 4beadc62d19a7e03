//! What VMs make of this host's functions, in the words of Triton's RFD 114.

use std::collections::BTreeMap;
use std::fmt;

use passthru::pci::HostAddress;
use ppt_files::file_error::failed;

use super::folders::Folders;
use super::slots::{Functions, ThisHost};
use super::store::{Store, StoreError};
use crate::host::device_records::{self, Recorded};

/// A VM that has or had a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its uuid, or `unknown`.
    pub uuid: String,
    /// What its user calls it, if it is still there.
    pub alias: Option<String>,
}

/// The alias where there is one, else the uuid.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.alias.as_ref().unwrap_or(&self.uuid))
    }
}

/// What a function is to the VMs of this host that have names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// No VM is to have it.
    Unassigned,
    /// It is in a slot of a VM that does not run.
    Assigned {
        /// The VM; of several the first by uuid.
        vm: Owner,
    },
    /// A VM that runs has it.
    Used {
        /// The VM.
        vm: Owner,
        /// Its slot there.
        slot: String,
        /// The VM's process.
        pid: u32,
    },
    /// The VM that had it did not end in order, or its reset failed then, and it was not reset since.
    Dirty {
        /// The VM.
        vm: Owner,
    },
}

/// As `list` shows it: `unassigned`, `assigned:web`, `used:web`, `dirty:web`.
impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceState::Unassigned => f.write_str("unassigned"),
            DeviceState::Assigned { vm } => write!(f, "assigned:{vm}"),
            DeviceState::Used { vm, .. } => write!(f, "used:{vm}"),
            DeviceState::Dirty { vm } => write!(f, "dirty:{vm}"),
        }
    }
}

/// The states of all functions that are not unassigned.
#[derive(Clone, Debug, Default)]
pub struct DeviceStates(BTreeMap<HostAddress, DeviceState>);

impl DeviceStates {
    /// Reads them. VMs whose description cannot be read have no say.
    pub fn read(folders: &Folders) -> Result<DeviceStates, StoreError> {
        DeviceStates::read_by(folders, &ThisHost)
    }

    fn read_by(folders: &Folders, functions: &dyn Functions) -> Result<DeviceStates, StoreError> {
        let mut states = BTreeMap::new();
        let mut aliases = BTreeMap::new();
        for vm in Store::new(folders.clone()).list()?.into_iter().flatten() {
            let owner = Owner { uuid: vm.uuid.to_string(), alias: vm.alias.clone() };
            aliases.insert(owner.uuid.clone(), owner.alias.clone());
            for device in vm.devices() {
                let named = functions.find(&device.path).or_else(|| device.path.parse().ok());
                if let Some(address) = named {
                    states.entry(address).or_insert_with(|| DeviceState::Assigned { vm: owner.clone() });
                }
            }
        }
        let path = folders.devices();
        let records = device_records::all(&path).map_err(failed("read", &path))?;
        let owner = |uuid: String| Owner { alias: aliases.get(&uuid).cloned().flatten(), uuid };
        for (address, recorded) in records {
            let state = match recorded {
                Recorded::Used(record) => {
                    DeviceState::Used { vm: owner(record.uuid), slot: record.slot, pid: record.pid }
                }
                Recorded::Left(record) => {
                    let uuid = record.map_or_else(|| "unknown".to_owned(), |record| record.uuid);
                    DeviceState::Dirty { vm: owner(uuid) }
                }
            };
            states.insert(address, state);
        }
        Ok(DeviceStates(states))
    }

    /// Of one function.
    pub fn of(&self, address: HostAddress) -> DeviceState {
        self.0.get(&address).cloned().unwrap_or(DeviceState::Unassigned)
    }

    /// Those that are not unassigned, by address.
    pub fn iter(&self) -> impl Iterator<Item = (HostAddress, &DeviceState)> {
        self.0.iter().map(|(address, state)| (*address, state))
    }
}

/// The state of one function.
pub fn device_state(folders: &Folders, address: HostAddress) -> Result<DeviceState, StoreError> {
    Ok(DeviceStates::read(folders)?.of(address))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use passthru::pci::Slot;
    use serde_json::json;

    use super::*;
    use crate::host::device_records::DeviceRecords;

    #[test]
    fn states_of_functions() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { state: folder.path().join("s"), run: folder.path().join("r") };
        let address = |n: u8| -> HostAddress { format!("00fe:0{n}:00.0").parse().unwrap() };
        let text = |n: u8| device_state(&folders, address(n)).unwrap().to_string();
        assert_eq!(text(1), "unassigned");

        let devices: Vec<_> =
            (1..=3).map(|n| json!({ "path": address(n).to_string(), "pci_slot": n.to_string() })).collect();
        let vm = json!({ "kernel": "/k", "alias": "web", "pci_devices": devices });
        let (vm, warnings) = Store::new(folders.clone()).create(vm.as_object().unwrap().clone()).unwrap();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        let uuid = vm.uuid.to_string();
        let records = DeviceRecords::new(&folders.devices(), &uuid, false);
        let slot = |text: &str| text.parse::<Slot>().unwrap();
        records.claim(&[(slot("0:1:0"), address(1))]).unwrap();
        let left = format!(r#"{{"uuid":"{uuid}","slot":"0:2:0","pid":7}}"#);
        fs::write(folders.devices().join(address(2).to_string()), left).unwrap();
        fs::write(folders.devices().join(address(4).to_string()), r#"{"uuid":"x","slot":"0:2:0","pid":7}"#)
            .unwrap();
        assert_eq!(
            [1, 2, 3, 4, 5].map(text),
            ["used:web", "dirty:web", "assigned:web", "dirty:x", "unassigned"]
        );
        assert_eq!(DeviceStates::read(&folders).unwrap().iter().count(), 4);
    }
}
