//! Functions of this host through Linux VFIO, by group and container.

mod container;
mod error;
mod ioctl;
mod mapping;
pub mod sysfs;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vfio_bindings::bindings::vfio::*;

pub use container::{Container, Group};
pub use error::{OpenError, bind_command};

use super::eventfd::{EventfdVectors, Refused, Triggers};
use super::{
    BarRange, Cause, Delivery, Description, DmaReach, HostError, HostFunction, MessageKind, Operation,
    Region, Report, ResetMethod, VectorChange,
};
use crate::pci::Slot;
use crate::pci::registers::{COMMAND, COMMAND_INTX_DISABLE, EXPRESS_SIZE};
use crate::ports::Access;
use ioctl::RegionInfo;
use mapping::Mapping;
use sysfs::SysfsFunction;

/// A function that is open.
pub struct VfioFunction {
    name: Arc<str>,
    // Dropped in this order: what signals and maps the device before its file, and that before its group, which can
    // leave the container only when no device of it is open.
    vectors: EventfdVectors<VfioTriggers>,
    mappings: Mutex<HashMap<BarRange, Mapped>>,
    bars: [RegionInfo; super::BARS],
    config: RegionInfo,
    device: Arc<File>,
    description: Description,
    report: Report,
    group: Arc<Group>,
}

struct Mapped {
    mapping: Mapping,
    /// Within reach of other functions' DMA at this address.
    peer: Option<u64>,
}

/// Checks what sysfs tells of a function that is to be opened: it has a group, is bound to a VFIO driver, and so are
/// the others of its group.
pub fn preflight(function: &SysfsFunction) -> Result<(), OpenError> {
    let address = function.address;
    let group = function.group.ok_or(OpenError::NoGroup { address })?;
    if !function.driver.as_deref().is_some_and(|driver| driver.starts_with("vfio")) {
        return Err(OpenError::NotBound { address, driver: function.driver.clone() });
    }
    match sysfs::offenders(address) {
        members if members.is_empty() => Ok(()),
        members => Err(OpenError::GroupNotViable { address, group, members }),
    }
}

impl VfioFunction {
    /// Opens a function that is bound to vfio-pci. `slot` is its place in the guest.
    pub fn open(
        container: &Arc<Container>,
        function: &SysfsFunction,
        slot: Slot,
    ) -> Result<VfioFunction, OpenError> {
        preflight(function)?;
        let address = function.address;
        let group = container.group(function)?;
        let device = Arc::new(group.open_device(address)?);
        let call = |call| move |source| OpenError::Call { address, call, source };
        let info = ioctl::device_info(&device).map_err(call("VFIO_DEVICE_GET_INFO"))?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(OpenError::NotPci { address });
        }
        let region = |index| {
            if index >= info.num_regions {
                return Ok(RegionInfo::default());
            }
            ioctl::region_info(&device, index).map_err(call("VFIO_DEVICE_GET_REGION_INFO"))
        };
        let mut bars: [RegionInfo; super::BARS] = Default::default();
        for (index, bar) in (VFIO_PCI_BAR0_REGION_INDEX..).zip(&mut bars) {
            *bar = region(index)?;
        }
        let config = region(VFIO_PCI_CONFIG_REGION_INDEX)?;
        let mut bytes = vec![0; usize::try_from(config.size).unwrap_or(0).min(EXPRESS_SIZE)];
        device.read_exact_at(&mut bytes, config.file_offset).map_err(call("read of configuration space"))?;

        let (msi, _) = ioctl::irq_info(&device, VFIO_PCI_MSI_IRQ_INDEX);
        let (msix, msix_flags) = ioctl::irq_info(&device, VFIO_PCI_MSIX_IRQ_INDEX);
        let dynamic_msix = msix_flags & VFIO_IRQ_INFO_NORESIZE == 0;
        let resets = info.flags & VFIO_DEVICE_FLAGS_RESET != 0;
        let report = Report {
            delivery: Delivery::Eventfd,
            intx: false,
            msi,
            msi_masking: true,
            msix,
            dynamic_msix,
            dma: DmaReach::Mapped,
            mappings: None,
            granularity: page_size(),
            reset: resets.then_some(ResetMethod::Host),
            error_events: ioctl::irq_info(&device, VFIO_PCI_ERR_IRQ_INDEX).0 > 0,
            request_events: ioctl::irq_info(&device, VFIO_PCI_REQ_IRQ_INDEX).0 > 0,
        };
        let regions =
            bars.clone().map(|bar| Region { size: bar.size, mappable: bar.mappable, accessible: true });
        let name: Arc<str> = address.to_string().into();
        let triggers = VfioTriggers { device: device.clone(), dynamic_msix };
        let vectors = EventfdVectors::new(name.clone(), slot, container.ports().clone(), triggers);
        let description = Description { config: bytes, bars: regions };
        Ok(VfioFunction {
            name,
            vectors,
            mappings: Mutex::default(),
            bars,
            config,
            device,
            description,
            report,
            group,
        })
    }

    fn error<E: Into<Cause>>(&self, operation: Operation) -> impl FnOnce(E) -> HostError + use<E> {
        let device = self.name.clone();
        move |source| HostError { device, operation, source: source.into() }
    }

    fn bar(&self, range: BarRange) -> io::Result<(&RegionInfo, u64)> {
        let bar = self.bars.get(usize::from(range.bar)).ok_or(io::ErrorKind::NotFound)?;
        match range.offset.checked_add(range.len) {
            Some(end) if end <= bar.size => Ok((bar, bar.file_offset + range.offset)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Freeing the vectors of MSI and MSI-X turns INTx on in the device (`pci_disable_msi` does), where nobody would take
    /// it and the line may be shared. The kernel turns it off again when the bit goes from 0 to 1.
    fn turn_intx_off(&self) -> io::Result<()> {
        let at = self.config_offset(COMMAND, 2)?;
        let mut command = [0; 2];
        self.device.read_exact_at(&mut command, at)?;
        let command = u16::from_le_bytes(command);
        self.device.write_all_at(&(command & !COMMAND_INTX_DISABLE).to_le_bytes(), at)?;
        self.device.write_all_at(&(command | COMMAND_INTX_DISABLE).to_le_bytes(), at)
    }

    fn config_offset(&self, offset: u16, len: usize) -> io::Result<u64> {
        if u64::from(offset) + len as u64 > self.config.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.config.file_offset + u64::from(offset))
    }
}

/// How often a reset is tried while the device is busy, and how long apart.
const RESET_TRIES: u32 = 20;
const RESET_PAUSE: Duration = Duration::from_millis(50);

fn page_size() -> u64 {
    // SAFETY: takes and returns numbers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

impl HostFunction for VfioFunction {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        let operation = Operation::ConfigRead { offset, len: data.len() };
        self.config_offset(offset, data.len())
            .and_then(|at| self.device.read_exact_at(data, at))
            .map_err(self.error(operation))
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        self.config_offset(offset, data.len())
            .and_then(|at| self.device.write_all_at(data, at))
            .map_err(self.error(Operation::ConfigWrite { offset, len: data.len() }))
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        let range = BarRange { bar, offset, len: data.len() as u64 };
        self.bar(range)
            .and_then(|(_, at)| self.device.read_exact_at(data, at))
            .map_err(self.error(Operation::BarRead(range)))
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let range = BarRange { bar, offset, len: data.len() as u64 };
        self.bar(range)
            .and_then(|(_, at)| self.device.write_all_at(data, at))
            .map_err(self.error(Operation::BarWrite(range)))
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let operation = Operation::Map { range, guest };
        let mut mappings = self.mappings.lock();
        let mapped = match mappings.entry(range) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let mapping = self
                    .bar(range)
                    .and_then(|(_, at)| Mapping::new(&self.device, at, range.offset, range.len))
                    .map_err(self.error(operation.clone()))?;
                entry.insert(Mapped { mapping, peer: None })
            }
        };
        let host = mapped.mapping.address();
        // SAFETY: the mapping lives as long as this function, which is unmapped from the guest before it is closed.
        unsafe { self.group.container().ports().memory.map(guest, host, range.len, Access::ReadWrite) }
            .map_err(self.error(operation))?;
        // Decoding is on in the function, or the IOMMU could not pin what is behind the mapping.
        if self.group.container().map_peer(&self.name, guest, host, range.len) {
            mapped.peer = Some(guest);
        }
        Ok(())
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        if let Some(mapped) = self.mappings.lock().get_mut(&range)
            && let Some(peer) = mapped.peer.take()
        {
            self.group.container().unmap_peer(&self.name, peer, range.len);
        }
        let unmapped = self.group.container().ports().memory.unmap(guest, range.len);
        unmapped.map_err(self.error(Operation::Unmap { range, guest }))
    }

    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        self.vectors.set(kind, count, changes)
    }

    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        self.vectors.disable(kind)?;
        self.turn_intx_off().map_err(self.error(Operation::DisableVectors(kind)))
    }

    fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        self.vectors.is_pending(kind, vector)
    }

    fn reset(&self) -> Result<(), HostError> {
        // EAGAIN: somebody else holds the device's lock in the kernel for the moment, such as a read of its sysfs files.
        for _ in 0..RESET_TRIES {
            match ioctl::reset(&self.device) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => std::thread::sleep(RESET_PAUSE),
                other => return other.map_err(self.error(Operation::Reset)),
            }
        }
        ioctl::reset(&self.device).map_err(self.error(Operation::Reset))
    }
}

struct VfioTriggers {
    device: Arc<File>,
    dynamic_msix: bool,
}

fn index(kind: MessageKind) -> u32 {
    match kind {
        MessageKind::Msi => VFIO_PCI_MSI_IRQ_INDEX,
        MessageKind::Msix => VFIO_PCI_MSIX_IRQ_INDEX,
    }
}

impl Triggers for VfioTriggers {
    fn set(&self, kind: MessageKind, first: u16, events: &[Option<BorrowedFd<'_>>]) -> Result<(), Refused> {
        ioctl::set_eventfds(&self.device, index(kind), first, events)
    }

    fn disable(&self, kind: MessageKind) -> io::Result<()> {
        ioctl::disable_irqs(&self.device, index(kind))
    }

    fn is_dynamic(&self, kind: MessageKind) -> bool {
        kind == MessageKind::Msix && self.dynamic_msix
    }
}
