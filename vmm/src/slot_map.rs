//! Which device goes to which slot, checked as a whole before anything is opened.

use std::fmt;
use std::str::FromStr;

use devices::pci::slots::{self, SlotConflict};
use devices::pci::windows::{self, Available, FunctionBars, Plan, PlanError};
use passthru::host::simulated::{self, SimulatedError};
use passthru::host::vfio::sysfs::{self, SysfsFunction};
use passthru::host::vfio::{OpenError, preflight};
use passthru::pci::bar::Bar;
use passthru::pci::{HostAddress, Slot, SlotError};

/// A device as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// A function of this host: an address or a path in sysfs.
    Host(String),
    /// A simulated function, `sim:NAME`.
    Simulated(String),
}

impl From<&str> for DeviceName {
    fn from(text: &str) -> DeviceName {
        match text.strip_prefix("sim:") {
            Some(name) => DeviceName::Simulated(name.to_owned()),
            None => DeviceName::Host(text.to_owned()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Host(name) => f.write_str(name),
            DeviceName::Simulated(name) => write!(f, "sim:{name}"),
        }
    }
}

/// `B:D:F=DEVICE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Where the guest finds it.
    pub slot: Slot,
    /// What it is.
    pub device: DeviceName,
}

/// A text that assigns nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// No `=`, or nothing behind it.
    #[error("'{0}' is not SLOT=DEVICE, such as 0:8:0=0000:01:00.0")]
    Syntax(String),
    /// No slot before it.
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl FromStr for Assignment {
    type Err = AssignmentError;

    fn from_str(text: &str) -> Result<Assignment, AssignmentError> {
        let (slot, device) = text
            .split_once('=')
            .filter(|(_, device)| !device.is_empty())
            .ok_or_else(|| AssignmentError::Syntax(text.to_owned()))?;
        Ok(Assignment { slot: slot.parse()?, device: DeviceName::from(device) })
    }
}

/// Something that keeps a slot map from being used.
#[derive(Debug, thiserror::Error)]
pub enum SlotMapError {
    /// The slots do not go together.
    #[error(transparent)]
    Slot(#[from] SlotConflict),
    /// A device cannot be opened.
    #[error("slot {slot}: {source}")]
    Host {
        /// The slot.
        slot: Slot,
        /// Why.
        source: OpenError,
    },
    /// No such simulated function.
    #[error("slot {slot}: {source}")]
    Simulated {
        /// The slot.
        slot: Slot,
        /// Why.
        source: SimulatedError,
    },
    /// One function in two slots.
    #[error("{address} is assigned to slot {first} and to slot {second}; a function can be in one slot only")]
    Twice {
        /// The function.
        address: HostAddress,
        /// One slot.
        first: Slot,
        /// The other.
        second: Slot,
    },
    /// The BARs do not fit.
    #[error(transparent)]
    Windows(#[from] PlanError),
}

/// A device that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// In sysfs.
    Host(SysfsFunction),
    /// By its name.
    Simulated(String),
}

/// A slot map that was checked.
#[derive(Debug)]
pub struct SlotMap {
    /// Slots and devices, by slot.
    pub functions: Vec<(Slot, Found)>,
    /// Windows of the buses and addresses of the BARs.
    pub plan: Plan,
}

impl SlotMap {
    /// Checks everything that can be known without opening a device, and gives every reason against it.
    pub fn check(assignments: &[Assignment], available: &Available) -> Result<SlotMap, Vec<SlotMapError>> {
        let mut errors: Vec<SlotMapError> = Vec::new();
        let slots: Vec<Slot> = assignments.iter().map(|a| a.slot).collect();
        if let Err(conflicts) = slots::check(&slots) {
            errors.extend(conflicts.into_iter().map(SlotMapError::from));
        }
        let mut functions: Vec<(Slot, Found)> = Vec::new();
        let mut bars = Vec::new();
        for Assignment { slot, device } in assignments {
            match find(*slot, device) {
                Ok((found, its)) => {
                    if let Found::Host(new) = &found
                        && let Some((first, _)) =
                            functions.iter().find(|(_, old)| old.address() == Some(new.address))
                    {
                        let (address, first, second) = (new.address, *first, *slot);
                        errors.push(SlotMapError::Twice { address, first, second });
                    }
                    functions.push((*slot, found));
                    bars.push(FunctionBars { slot: *slot, bars: its });
                }
                Err(error) => errors.push(error),
            }
        }
        functions.sort_by_key(|(slot, _)| *slot);
        match windows::plan(&bars, available) {
            Ok(plan) if errors.is_empty() => Ok(SlotMap { functions, plan }),
            Ok(_) => Err(errors),
            Err(error) => {
                errors.push(error.into());
                Err(errors)
            }
        }
    }

    /// The slots in use.
    pub fn slots(&self) -> Vec<Slot> {
        self.functions.iter().map(|(slot, _)| *slot).collect()
    }
}

impl Found {
    fn address(&self) -> Option<HostAddress> {
        match self {
            Found::Host(function) => Some(function.address),
            Found::Simulated(_) => None,
        }
    }
}

fn find(slot: Slot, device: &DeviceName) -> Result<(Found, Vec<Bar>), SlotMapError> {
    match device {
        DeviceName::Host(name) => {
            let host = |source| SlotMapError::Host { slot, source };
            let function = sysfs::find(name).map_err(host)?;
            preflight(&function).map_err(host)?;
            let bars = function.bars();
            Ok((Found::Host(function), bars))
        }
        DeviceName::Simulated(name) => {
            let bars = simulated::bars(name).map_err(|source| SlotMapError::Simulated { slot, source })?;
            Ok((Found::Simulated(name.clone()), bars))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available() -> Available {
        Available {
            memory32: 0xc000_0000..0xe000_0000,
            memory64: 1 << 32..1 << 36,
            io: 0x1000..0x1_0000,
            excluded: vec![],
        }
    }

    fn check(texts: &[&str]) -> Result<SlotMap, Vec<String>> {
        let assignments: Vec<Assignment> = texts.iter().map(|t| t.parse().unwrap()).collect();
        SlotMap::check(&assignments, &available())
            .map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn assignments_are_a_slot_and_a_device() {
        let parsed: Assignment = "0:8:1=0000:01:00.0".parse().unwrap();
        assert_eq!(parsed.device, DeviceName::Host("0000:01:00.0".to_owned()));
        let parsed: Assignment = "3:5:0=sim:demo".parse().unwrap();
        assert_eq!((parsed.slot.bus(), parsed.device.to_string()), (3, "sim:demo".to_owned()));
        for text in ["", "0:8:0", "0:8:0=", "=x"] {
            assert!(text.parse::<Assignment>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_good_map_has_every_function_and_a_place_for_every_bar() {
        let map = check(&["0:8:1=sim:demo", "0:8:0=sim:demo", "3:0:0=sim:demo"]).unwrap();
        assert_eq!(
            map.slots().iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["0:8:0", "0:8:1", "3:0:0"]
        );
        assert_eq!(map.plan.bars().len(), 12);
        assert_eq!(map.plan.buses().iter().map(|b| b.bus).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn every_reason_against_a_map_is_given() {
        let reasons = check(&["0:0:0=sim:demo", "0:9:1=sim:demo", "0:10:0=sim:none", "0:11:0=0000:ff:1f.7"]);
        let reasons = reasons.unwrap_err().join("\n");
        for part in ["0:0:0", "0:9:0", "sim", "there are: demo", "0000:ff:1f.7"] {
            assert!(reasons.contains(part), "{part} in:\n{reasons}");
        }
        assert!(check(&["0:8:0=sim:demo", "0:8:0=sim:demo"]).unwrap_err().join("").contains("0:8:0"));
    }
}
