//! Functions of this host through Linux VFIO: by their own device files and iommufd, or by group and container.

mod at_once;
mod bars;
mod busy;
mod config;
mod container;
mod direct;
mod error;
mod events;
mod guarded;
mod interrupts;
mod ioas;
mod ioctl;
mod iommufd;
mod mapping;
mod reset;
mod rom;
pub mod sysfs;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::info;
use vfio_bindings::bindings::vfio::*;

pub use error::{OpenError, bind_command};
pub use ioas::{Interface, Ioas, Mapped};
pub use reset::{NoReset, Other};

use super::eventfd::{EventfdLine, EventfdVectors};
use super::{
    BarRange, Cause, Delivery, Description, DmaReach, HostError, HostEvent, HostFunction, Listener,
    MessageKind, Operation, PendingBits, ROM, Region, Report, VectorChange,
};
use crate::pci::registers::{EXPRESS_SIZE, INTERRUPT_PIN};
use crate::pci::{HostAddress, Slot};
use bars::Bars;
use config::Config;
use events::Events;
use interrupts::{VfioLine, VfioTriggers};
use ioas::Membership;
use ioctl::device::RegionInfo;
use ioctl::{device as ioctl_device, irqs};
use reset::Reset;
use rom::Rom;
use sysfs::SysfsFunction;

/// A function that is open.
pub struct VfioFunction {
    name: Arc<str>,
    address: HostAddress,
    // Dropped in this order: what signals and maps the device before its file, and that before it leaves its group,
    // which can leave the container only when no device of it is open.
    events: Events,
    vectors: EventfdVectors<VfioTriggers>,
    line: Option<EventfdLine<VfioLine>>,
    bars: Bars,
    rom: Rom,
    config: Arc<Config>,
    device: Arc<File>,
    reset: Option<Reset>,
    fresh: AtomicBool,
    description: Description,
    report: Report,
    membership: Membership,
}

/// Checks what sysfs tells of a function that is to be opened: it has a group, is bound to a VFIO driver, and so are
/// the others of its group; and it is none that needs more of the host than VFIO gives.
pub fn preflight(function: &SysfsFunction) -> Result<(), OpenError> {
    let address = function.address;
    let is_behind_iommu =
        |group: &u32| !sysfs::is_without_iommu(&Path::new(sysfs::GROUPS).join(group.to_string()));
    let group = function.group.filter(is_behind_iommu).ok_or(OpenError::NoGroup { address })?;
    if function.is_integrated_graphics() {
        return Err(OpenError::IntegratedGraphics { address });
    }
    if !function.driver.as_deref().is_some_and(sysfs::is_vfio) {
        return Err(OpenError::NotBound { address, driver: function.driver.clone() });
    }
    match sysfs::offenders(address) {
        members if members.is_empty() => Ok(()),
        members => Err(OpenError::GroupNotViable { address, group, members }),
    }
}

impl VfioFunction {
    /// Opens functions that are bound to vfio-pci, or takes over their open files, all at once: the kernel resets each when it is
    /// opened, which takes 100 ms and more. With each comes its place in the guest. Gives them in the same order; or none,
    /// and the number of one with which it failed.
    pub fn open(
        ioas: &Arc<Ioas>,
        functions: &[(&SysfsFunction, Slot)],
    ) -> Result<Vec<VfioFunction>, (usize, OpenError)> {
        let numbered = |number| move |error| (number, error);
        for (number, (function, _)) in functions.iter().enumerate() {
            preflight(function).map_err(numbered(number))?;
        }
        let all: Vec<&SysfsFunction> = functions.iter().map(|(function, _)| *function).collect();
        let entered = ioas.enter(&all)?;
        let mut opened = Vec::new();
        for (number, ((function, slot), (device, membership))) in functions.iter().zip(entered).enumerate() {
            let function = VfioFunction::with(ioas, function, *slot, device, membership);
            opened.push(function.map_err(numbered(number))?);
        }
        Ok(opened)
    }

    fn with(
        ioas: &Arc<Ioas>,
        function: &SysfsFunction,
        slot: Slot,
        device: Arc<File>,
        membership: Membership,
    ) -> Result<VfioFunction, OpenError> {
        let address = function.address;
        let call = |call| move |source| OpenError::Call { address, call, source };
        let info = ioctl_device::info(&device).map_err(call("VFIO_DEVICE_GET_INFO"))?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(OpenError::NotPci { address });
        }
        let region = |index| {
            if index >= info.num_regions {
                return Ok(RegionInfo::default());
            }
            ioctl_device::region(&device, index).map_err(call("VFIO_DEVICE_GET_REGION_INFO"))
        };
        let mut bars: [RegionInfo; super::BARS] = Default::default();
        for (index, bar) in (VFIO_PCI_BAR0_REGION_INDEX..).zip(&mut bars) {
            *bar = region(index)?;
        }
        let rom = Rom::new(region(VFIO_PCI_ROM_REGION_INDEX)?);
        let config = Arc::new(Config::new(device.clone(), region(VFIO_PCI_CONFIG_REGION_INDEX)?));
        let raw = config.bytes(EXPRESS_SIZE).map_err(call("read of configuration space"))?;
        if function.is_vga() {
            info!("{address}: {}", sysfs::VGA_RANGES);
        }
        // The kernel leaves INTx enabled in a function that it opens.
        config.set_intx_connected(false).map_err(call("write of the command register"))?;

        let name: Arc<str> = address.to_string().into();
        let ports = ioas.ports();
        let (msi, _) = irqs::irq_info(&device, VFIO_PCI_MSI_IRQ_INDEX);
        let (msix, msix_flags) = irqs::irq_info(&device, VFIO_PCI_MSIX_IRQ_INDEX);
        let dynamic_msix = msix_flags & VFIO_IRQ_INFO_NORESIZE == 0;
        let triggers = VfioTriggers { device: device.clone(), dynamic_msix };
        let pin = raw.get(usize::from(INTERRUPT_PIN)).copied().filter(|pin| (1..=4).contains(pin));
        let pin = pin.filter(|_| irqs::irq_info(&device, VFIO_PCI_INTX_IRQ_INDEX).0 > 0);
        let line = pin.map(|pin| {
            let triggers = VfioLine { device: device.clone(), config: config.clone() };
            EventfdLine::new(name.clone(), slot, pin, ports.clone(), triggers)
        });
        let reset = (info.flags & VFIO_DEVICE_FLAGS_RESET != 0).then(|| Reset::alone(address, &raw));
        let report = Report {
            delivery: Delivery::Eventfd,
            intx: line.is_some(),
            msi,
            msi_masking: true,
            msix,
            dynamic_msix,
            keeps_pending: true,
            dma: DmaReach::Mapped,
            mappings: None,
            granularity: page_size(),
            reset: reset.as_ref().map(Reset::method),
            power_states: ioctl_device::handles_power_states(&device),
            error_events: Events::has(&device, HostEvent::Error),
            request_events: Events::has(&device, HostEvent::Request),
        };
        let bars = Bars::new(device.clone(), bars, page_size());
        let shown_rom = Region { size: rom.size(), mappable: Vec::new(), accessible: rom.size() > 0 };
        let description = Description { config: raw, bars: bars.description(), rom: shown_rom };
        Ok(VfioFunction {
            events: Events::new(device.clone(), ports.clone()),
            vectors: EventfdVectors::new(name.clone(), slot, ports.clone(), triggers),
            name,
            address,
            line,
            bars,
            rom,
            config,
            device,
            // The kernel resets what it opens, and says so by this flag. A device file that was handed over is opened only when
            // it is bound to the iommufd here.
            fresh: AtomicBool::new(reset.is_some()),
            reset,
            description,
            report,
            membership,
        })
    }

    /// Finds out how a function is reset that has no reset of its own: with its bus, if all that is there belongs to the
    /// VM, and nothing of it is in the guest already. `together` are the functions that go there now, itself among them;
    /// all of them must be open. Nothing changes for a function that can be reset already.
    pub fn settle_reset(&mut self, together: &[HostAddress]) -> Result<(), NoReset> {
        if self.reset.is_none() {
            let reset = Reset::hot(&self.device, &self.membership, self.address, together)?;
            self.report.reset = Some(reset.method());
            self.reset = Some(reset);
        }
        Ok(())
    }

    fn error<E: Into<Cause>>(&self, operation: Operation) -> impl FnOnce(E) -> HostError + use<E> {
        let device = self.name.clone();
        move |source| HostError { device, operation, source: source.into() }
    }
}

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
        self.config.read(offset, data).map_err(self.error(operation))
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        let operation = Operation::ConfigWrite { offset, len: data.len() };
        self.config.write(offset, data).map_err(self.error(operation))
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        let range = BarRange { bar, offset, len: data.len() as u64 };
        if bar == ROM {
            let read = self.rom.read(&self.device, offset, data);
            return read.map_err(self.error(Operation::BarRead(range)));
        }
        self.bars.read(bar, offset, data).map_err(self.error(Operation::BarRead(range)))
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let range = BarRange { bar, offset, len: data.len() as u64 };
        self.bars.write(bar, offset, data).map_err(self.error(Operation::BarWrite(range)))
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let ioas = self.membership.ioas();
        self.bars
            .map(&self.name, range, guest, &*ioas.ports().memory, &**ioas)
            .map_err(self.error(Operation::Map { range, guest }))
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let ioas = self.membership.ioas();
        self.bars
            .unmap(&self.name, range, guest, &*ioas.ports().memory, &**ioas)
            .map_err(self.error(Operation::Unmap { range, guest }))
    }

    fn answers(&self) -> bool {
        self.config.answers()
    }

    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        self.vectors.set(kind, count, changes)
    }

    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        self.vectors.disable(kind)
    }

    fn keep_pending(&self, bits: Arc<PendingBits>) {
        self.vectors.keep_pending(bits);
    }

    fn vector_calls(&self) -> u64 {
        self.vectors.calls()
    }

    fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        self.vectors.is_pending(kind, vector)
    }

    fn set_intx(&self, on: bool) -> Result<(), HostError> {
        match &self.line {
            Some(line) => line.set(on),
            None => Err(self.error(Operation::Intx(on))(io::Error::from(io::ErrorKind::Unsupported))),
        }
    }

    fn listen(&self, listener: Listener) -> Result<(), HostError> {
        let events =
            [(HostEvent::Error, self.report.error_events), (HostEvent::Request, self.report.request_events)];
        for (event, _) in events.into_iter().filter(|(_, has)| *has) {
            self.events.listen(event, listener.clone()).map_err(self.error(Operation::Listen(event)))?;
        }
        Ok(())
    }

    fn reset(&self) -> Result<(), HostError> {
        let reset = self.reset.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported));
        reset
            .and_then(|reset| reset.carry_out(&self.device, &self.membership, self.address))
            .map_err(self.error(Operation::Reset))
    }

    fn is_fresh(&self) -> bool {
        self.fresh.swap(false, Ordering::Relaxed)
    }
}
