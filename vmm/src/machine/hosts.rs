//! The hosts' side of the functions in the slots: all are open before one of them is reset or attached.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use log::{info, warn};
use parking_lot::Mutex;
use passthru::host::ppt::sys::Sys;
use passthru::host::ppt::{self, PptFunction};
use passthru::host::simulated::SimulatedFunction;
use passthru::host::vfio::sysfs::SysfsFunction;
use passthru::host::vfio::{Interface, Ioas, Mapped, OpenError, VfioFunction};
use passthru::host::{HostFunction, Report};
use passthru::pci::{HostAddress, Slot};
use passthru::ports::Ports;

use super::error::{MachineError, WhyNoReset};
use crate::host::device_records::DeviceRecords;
use crate::ppt::{PptHost, PptVm};
use crate::slot_map::Found;

/// Whether functions of this host are opened by their own device files and iommufd, or by group and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseIommufd {
    /// Where the kernel has it and this user may open the files.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
    /// By this file descriptor, an open `/dev/iommu`.
    File(i32),
}

/// A text that says none of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of auto, on, off and fd:N, the number of an open /dev/iommu")]
pub struct UseIommufdError(String);

impl FromStr for UseIommufd {
    type Err = UseIommufdError;

    fn from_str(text: &str) -> Result<UseIommufd, UseIommufdError> {
        match text {
            "auto" => Ok(UseIommufd::Auto),
            "on" => Ok(UseIommufd::On),
            "off" => Ok(UseIommufd::Off),
            _ => text
                .strip_prefix("fd:")
                .and_then(|fd| fd.parse().ok())
                .map(UseIommufd::File)
                .ok_or_else(|| UseIommufdError(text.to_owned())),
        }
    }
}

impl UseIommufd {
    /// By which of the kernel's interfaces these functions are opened.
    pub fn interface(self, functions: &[&SysfsFunction]) -> Interface {
        match self {
            UseIommufd::Auto => Interface::for_all(functions),
            UseIommufd::On => Interface::Cdev(None),
            UseIommufd::Off => Interface::Group,
            UseIommufd::File(fd) => Interface::Cdev(Some(fd)),
        }
    }
}

/// Opens the functions of a VM.
pub struct Hosts {
    ports: Ports,
    iommufd: UseIommufd,
    require_reset: bool,
    records: Option<Arc<DeviceRecords>>,
    /// Made with the first function of this host's; the others go in there too.
    ioas: Mutex<Option<Arc<Ioas>>>,
    ppt: Option<Arc<dyn PptHost>>,
    /// Made with the first function of that host's.
    ppt_vm: Mutex<Option<Arc<PptVm>>>,
}

enum Opened {
    Vfio(Box<VfioFunction>),
    Simulated(Box<SimulatedFunction>),
    Ppt(Box<PptFunction<Arc<dyn Sys>>>),
}

impl Hosts {
    /// Nothing is open.
    pub fn new(
        ports: Ports,
        iommufd: UseIommufd,
        require_reset: bool,
        ppt: Option<Arc<dyn PptHost>>,
        records: Option<Arc<DeviceRecords>>,
    ) -> Hosts {
        Hosts {
            ports,
            iommufd,
            require_reset,
            records,
            ioas: Mutex::default(),
            ppt,
            ppt_vm: Mutex::default(),
        }
    }

    /// Where it is recorded which functions the guest has.
    pub fn records(&self) -> Option<&DeviceRecords> {
        self.records.as_deref()
    }

    /// Where functions named `/dev/pptN` are.
    pub fn ppt(&self) -> Option<&dyn PptHost> {
        self.ppt.as_deref()
    }

    /// How the guest's memory was mapped for functions of this host.
    pub fn mapped(&self) -> Option<Mapped> {
        self.ioas.lock().as_ref()?.mapped()
    }

    /// Opens these functions, those of this host all at once, or none. Gives them in their order.
    pub fn open(&self, functions: &[(Slot, Found)]) -> Result<Vec<Arc<dyn HostFunction>>, MachineError> {
        let mut opened = self.open_vfio(functions)?;
        for (number, (slot, found)) in functions.iter().enumerate() {
            let function = match found {
                Found::Host(_) => continue,
                Found::Simulated(name) => SimulatedFunction::new(name, *slot, self.ports.clone())
                    .map(|function| Opened::Simulated(Box::new(function)))
                    .map_err(|source| MachineError::Simulated { slot: *slot, source })?,
                Found::Ppt(path) => {
                    let error = |source| MachineError::Ppt { slot: *slot, source };
                    let vm = self.ppt_vm().map_err(error)?;
                    let function = PptFunction::open(&vm, Path::new(path)).map_err(error)?;
                    Opened::Ppt(Box::new(function))
                }
            };
            opened.insert(number, (*slot, function));
        }
        // Who can be reset together with whom is known when all are open.
        let together: Vec<HostAddress> = of_this_host(functions).map(|function| function.address).collect();
        opened.into_iter().map(|(slot, function)| self.settle(slot, function, &together)).collect()
    }

    fn open_vfio(&self, all: &[(Slot, Found)]) -> Result<Vec<(Slot, Opened)>, MachineError> {
        let named: Vec<(&SysfsFunction, Slot)> = all
            .iter()
            .filter_map(|(slot, found)| match found {
                Found::Host(function) => Some((function, *slot)),
                Found::Simulated(_) | Found::Ppt(_) => None,
            })
            .collect();
        let Some((_, first)) = named.first() else { return Ok(Vec::new()) };
        let error = |slot| move |source| MachineError::Open { slot, source };
        let ioas = self.ioas(all).map_err(error(*first))?;
        let opened = VfioFunction::open(&ioas, &named).map_err(|(number, source)| {
            let slot = named.get(number).map_or(*first, |(_, slot)| *slot);
            MachineError::Open { slot, source }
        })?;
        let opened = opened.into_iter().map(|function| Opened::Vfio(Box::new(function)));
        Ok(named.iter().map(|(_, slot)| *slot).zip(opened).collect())
    }

    fn ioas(&self, all: &[(Slot, Found)]) -> Result<Arc<Ioas>, OpenError> {
        let mut ioas = self.ioas.lock();
        if let Some(ioas) = &*ioas {
            return Ok(ioas.clone());
        }
        let functions: Vec<&SysfsFunction> = of_this_host(all).collect();
        let interface = self.iommufd.interface(&functions);
        let opened = Ioas::open(self.ports.clone(), interface)?;
        info!(
            "functions of this host are opened by {}",
            match interface {
                Interface::Cdev(_) => "device file and iommufd",
                Interface::Group => "group and container",
            }
        );
        Ok(ioas.insert(opened).clone())
    }

    fn ppt_vm(&self) -> Result<Arc<PptVm>, ppt::OpenError> {
        let mut vm = self.ppt_vm.lock();
        if let Some(vm) = &*vm {
            return Ok(vm.clone());
        }
        // A slot map with such a function was only made where there is such a host.
        let host = self.ppt.as_ref().ok_or(ppt::OpenError::NoHost)?;
        let made = host.vm(&self.ports)?;
        Ok(vm.insert(made).clone())
    }

    fn settle(
        &self,
        slot: Slot,
        function: Opened,
        together: &[HostAddress],
    ) -> Result<Arc<dyn HostFunction>, MachineError> {
        let function: Arc<dyn HostFunction> = match function {
            Opened::Simulated(function) => Arc::from(function as Box<dyn HostFunction>),
            Opened::Ppt(function) => {
                if self.require_reset && function.report().reset.is_none() {
                    let device = function.name().clone();
                    return Err(MachineError::NoReset { slot, device, source: WhyNoReset::Ppt });
                }
                Arc::from(function as Box<dyn HostFunction>)
            }
            Opened::Vfio(mut function) => {
                if let Err(source) = function.settle_reset(together) {
                    let device = function.name().clone();
                    if self.require_reset {
                        return Err(MachineError::NoReset { slot, device, source: source.into() });
                    }
                    if let Some(vm) = self.records.as_ref().and_then(|records| records.dirty(&device)) {
                        return Err(MachineError::Dirty { slot, device, vm, source });
                    }
                    warn!(
                        "slot {slot}: {device} cannot be reset: {source}; the guest finds it as its last user left it \
                         (--require-reset, or \"require_reset\" in a description, refuses such functions)"
                    );
                }
                Arc::from(function as Box<dyn HostFunction>)
            }
        };
        if let Report { reset: Some(method), .. } = function.report() {
            info!("slot {slot}: {} is reset by: {method}", function.name());
        }
        Ok(function)
    }
}

/// One of them is this host's.
pub fn any_of_this_host(functions: &[(Slot, Found)]) -> bool {
    of_this_host(functions).next().is_some()
}

/// Those that are this host's, with their slots.
pub fn with_slots(functions: &[(Slot, Found)]) -> Vec<(Slot, HostAddress)> {
    let address = |(slot, found): &(Slot, Found)| match found {
        Found::Host(function) => Some((*slot, function.address)),
        Found::Simulated(_) | Found::Ppt(_) => None,
    };
    functions.iter().filter_map(address).collect()
}

/// Those that are this host's.
fn of_this_host(functions: &[(Slot, Found)]) -> impl Iterator<Item = &SysfsFunction> {
    functions.iter().filter_map(|(_, found)| match found {
        Found::Host(function) => Some(function),
        Found::Simulated(_) | Found::Ppt(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iommufd_is_chosen_by_four_words() {
        for (text, expected) in [
            ("auto", UseIommufd::Auto),
            ("on", UseIommufd::On),
            ("off", UseIommufd::Off),
            ("fd:7", UseIommufd::File(7)),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
        for text in ["", "ON", "fd:", "fd:x", "7"] {
            assert!(text.parse::<UseIommufd>().unwrap_err().to_string().contains("fd:N"), "{text}");
        }
    }

    #[test]
    fn what_is_asked_for_is_what_is_opened() {
        for (choice, interface) in [
            (UseIommufd::On, Interface::Cdev(None)),
            (UseIommufd::Off, Interface::Group),
            (UseIommufd::File(7), Interface::Cdev(Some(7))),
        ] {
            assert_eq!(choice.interface(&[]), interface);
        }
    }
}
