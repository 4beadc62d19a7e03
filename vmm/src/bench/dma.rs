//! VFIO's map of guest memory for DMA.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use devices::pci::PortBuses;
use passthru::host::vfio::sysfs::{self, SysfsFunction};
use passthru::host::vfio::{Ioas, OpenError, VfioFunction};
use passthru::pci::Slot;
use passthru::ports::{PortError, Ports};

use crate::bus::Bus;
use crate::control::Control;
use crate::event_loop::EventLoop;
use crate::host::physical_path::{self, PathError};
use crate::kvm::events::KvmEvents;
use crate::kvm::interrupts::KvmInterrupts;
use crate::kvm::memory::KvmMemory;
use crate::kvm::{KvmError, Vm};
use crate::machine::UseIommufd;
use crate::memory::{self, Backing, Prefault, RamSize};
use crate::slot_map::{Assignment, DeviceName};

/// Of the guest that the functions are given to.
const MEMORY: u64 = 1 << 30;
/// That must be left of the host's memory beside it.
const LEFT: u64 = 256 << 20;

/// Why there was no map.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// Only those of this host are reached through an IOMMU here.
    #[error("no --slot with a function of this host")]
    NoFunction,
    /// Who takes more is killed, or others are.
    #[error("1 GiB of memory is mapped, and of the host's {available} MiB are available")]
    Memory {
        /// MiB.
        available: u64,
    },
    /// A function's name.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A function.
    #[error(transparent)]
    Function(#[from] OpenError),
    /// A call to KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A memory slot.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The guest's RAM.
    #[error(transparent)]
    Ram(#[from] memory::Error),
    /// Its size.
    #[error(transparent)]
    Size(#[from] memory::InvalidSize),
    /// The thread that waits for signals of functions.
    #[error("event loop: {0}")]
    EventLoop(#[source] io::Error),
    /// The functions are open, and nothing was mapped.
    #[error("nothing was mapped")]
    NotMapped,
}

/// Opens the functions of this host, as for a guest with 1 GiB of memory whose pages are all there, and tells how long the
/// calls took that map it.
pub fn map(assignments: &[Assignment], iommufd: UseIommufd) -> Result<Duration, DmaError> {
    let functions = functions(assignments)?;
    if functions.is_empty() {
        return Err(DmaError::NoFunction);
    }
    if let Some(available) = available().filter(|available| *available < MEMORY + LEFT) {
        return Err(DmaError::Memory { available: available >> 20 });
    }
    let vm = Vm::new()?;
    let ram = memory::allocate(RamSize::try_from(MEMORY)?, Backing::Transparent)?;
    Prefault::start(&ram).wait();
    let events = EventLoop::start(Arc::new(Control::default())).map_err(DmaError::EventLoop)?;
    let ports = Ports {
        memory: Arc::new(KvmMemory::new(vm.fd().clone(), Arc::new(Bus::new()), ram)?),
        interrupts: Arc::new(KvmInterrupts::new(vm.fd().clone(), PortBuses::default())?),
        events: Arc::new(KvmEvents::new(vm.fd().clone(), events.watches())),
    };
    let named: Vec<(&SysfsFunction, Slot)> =
        functions.iter().map(|(function, slot)| (function, *slot)).collect();
    let all: Vec<&SysfsFunction> = functions.iter().map(|(function, _)| function).collect();
    let ioas = Ioas::open(ports, iommufd.interface(&all))?;
    let opened = VfioFunction::open(&ioas, &named).map_err(|(_, error)| error)?;
    let mapped = ioas.mapped().ok_or(DmaError::NotMapped)?;
    // What is mapped is unmapped with the last function.
    drop(opened);
    Ok(mapped.time)
}

fn functions(assignments: &[Assignment]) -> Result<Vec<(SysfsFunction, Slot)>, DmaError> {
    let names = assignments.iter().filter_map(|assignment| match &assignment.device {
        DeviceName::Host(name) => Some((name, assignment.slot)),
        DeviceName::Simulated(_) | DeviceName::Ppt(_) => None,
    });
    names.map(|(name, slot)| Ok((sysfs::find(&physical_path::resolve(name)?)?, slot))).collect()
}

/// Bytes of memory that the host says it can give (Documentation/filesystems/proc.rst, `MemAvailable`).
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_function_of_this_host_nothing_is_mapped() {
        let simulated = ["0:8:0=sim:demo".parse().unwrap()];
        for assignments in [&[][..], &simulated] {
            let mapped = map(assignments, UseIommufd::Auto);
            assert!(matches!(mapped, Err(DmaError::NoFunction)), "{mapped:?}");
        }
    }
}
