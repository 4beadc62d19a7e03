//! A function that exists only in this process: for machines without hardware to pass through, and for tests.
//!
//! It is a PCI Express endpoint `5350:0001` with one BAR of each kind:
//!
//! | BAR | kind | what |
//! |---|---|---|
//! | 0 | 32-bit memory, 4 KiB, trapped | registers: DMA engine, timer, vectors |
//! | 1 | I/O, 64 bytes | identification, scratch, index and data of BAR 0's registers (but for the doorbell) |
//! | 2 | 64-bit prefetchable, 1 MiB | memory, mapped |
//! | 4 | 64-bit, 64 KiB | MSI-X table (256 vectors) at 0, pending bits at 0x8000, the rest memory, mapped |
//!
//! | register of BAR 0 | what |
//! |---|---|
//! | 0x00 | "SLTP" |
//! | 0x04 | version, 1 |
//! | 0x08 | scratch |
//! | 0x0c | number of MSI-X vectors |
//! | 0x10, 0x14 | DMA source, guest-physical address, low and high |
//! | 0x18, 0x1c | DMA target |
//! | 0x20 | DMA length in bytes, 16 MiB at most |
//! | 0x24 | bit 0: start copying; bit 1: raise a vector when done; bits 31:16: that vector |
//! | 0x28 | DMA status: 0 idle, 1 busy, 2 done, 3 error (outside memory, too long, bus mastering off) |
//! | 0x30, 0x34 | timer: period in microseconds, ticks |
//! | 0x38, 0x3c | timer: first and last vector, raised in turn |
//! | 0x40 | timer: write 1 to start, 0 to stop; reads whether it runs |
//! | 0x44 | timer: ticks raised since it was started |
//! | 0x48 | raise the vector that is written; while neither MSI nor MSI-X is on, assert INTx instead |
//! | 0x4c | INTx: reads 1 while it is asserted; write 1 to acknowledge |
//! | 0x50 | doorbell: any write raises vector 0 a little later, and takes no exit where the hypervisor can signal an eventfd by it |

mod config;
mod device;
mod doorbell;
mod line;
mod vectors;

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::eventfd::{EventfdLine, EventfdVectors};
use super::{
    BarRange, Cause, Delivery, Description, DmaReach, HostError, HostFunction, Listener, MessageKind,
    Operation, PendingBits, Region, Report, ResetMethod, VectorChange,
};
use crate::pci::Slot;
use crate::pci::registers::{COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, STATUS};
use crate::ports::{Access, Ports};
use device::Device;
use doorbell::Doorbell;
use line::SimulatedLine;
use vectors::SimulatedTriggers;

/// Names of simulated functions, as `sim:NAME`.
pub const NAMES: [&str; 1] = ["demo"];

/// Why there is no simulated function.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedError {
    /// No such name.
    #[error("there is no simulated function '{0}'; there are: {names}", names = NAMES.join(", "))]
    Unknown(String),
    /// Its memory or its thread.
    #[error("simulated function: {0}")]
    Resources(String, #[source] io::Error),
}

/// A simulated function.
pub struct SimulatedFunction {
    name: Arc<str>,
    vectors: EventfdVectors<Arc<SimulatedTriggers>>,
    intx: EventfdLine<Arc<SimulatedLine>>,
    line: Arc<SimulatedLine>,
    doorbell: Doorbell,
    device: Device,
    config: Mutex<Vec<u8>>,
    memory: [Option<MmapRegion>; super::BARS],
    ports: Ports,
    description: Description,
    report: Report,
}

/// Register type bits and sizes of a simulated function's BARs, known before it is made.
pub fn bars(name: &str) -> Result<Vec<crate::pci::bar::Bar>, SimulatedError> {
    if !NAMES.contains(&name) {
        return Err(SimulatedError::Unknown(name.to_owned()));
    }
    let config = config::build();
    let registers = std::array::from_fn(|i| crate::pci::capability::read_u32(&config, 0x10 + 4 * i as u16));
    Ok(crate::pci::bar::decode(registers, config::BAR_SIZES).0)
}

/// What a simulated function is and what its host can do with it, known before it is made.
pub fn describe(name: &str) -> Result<(Description, Report), SimulatedError> {
    if !NAMES.contains(&name) {
        return Err(SimulatedError::Unknown(name.to_owned()));
    }
    let bars = config::BAR_SIZES.map(|size| Region { size, mappable: Vec::new(), accessible: true });
    let mut description = Description { config: config::build(), bars, rom: Region::default() };
    for (index, size) in MEMORY {
        if let Some(region) = description.bars.get_mut(index) {
            region.mappable = vec![0..size];
        }
    }
    let report = Report {
        delivery: Delivery::Eventfd,
        intx: true,
        msi: config::MSI_VECTORS,
        msi_masking: true,
        msix: config::MSIX_VECTORS,
        dynamic_msix: true,
        keeps_pending: true,
        dma: DmaReach::InProcess,
        mappings: None,
        granularity: 4096,
        reset: Some(ResetMethod::Own),
        power_states: false,
        error_events: false,
        request_events: false,
    };
    Ok((description, report))
}

/// The BARs that are memory, and their bytes.
const MEMORY: [(usize, u64); 2] = [(2, 1 << 20), (4, 0x1_0000)];

impl SimulatedFunction {
    /// Makes one. `slot` is its place in the guest.
    pub fn new(name: &str, slot: Slot, ports: Ports) -> Result<SimulatedFunction, SimulatedError> {
        let (description, report) = describe(name)?;
        let resources = |what: &str| {
            let what = what.to_owned();
            move |source| SimulatedError::Resources(what, source)
        };
        let memory = |size: u64| {
            MmapRegion::new(size as usize).map_err(|e| resources("memory of a BAR")(io::Error::other(e)))
        };
        let [second, fourth] = MEMORY.map(|(_, size)| memory(size));
        let memory = [None, None, Some(second?), None, Some(fourth?), None];
        let name: Arc<str> = format!("sim:{name}").into();
        let line = SimulatedLine::new(ports.events.clone());
        let triggers = Arc::new(SimulatedTriggers::new(line.clone()));
        let device = Device::new(ports.memory.clone(), triggers.clone()).map_err(resources("thread"))?;
        let doorbell =
            Doorbell::new(ports.events.clone(), triggers.clone()).map_err(resources("doorbell"))?;
        Ok(SimulatedFunction {
            vectors: EventfdVectors::new(name.clone(), slot, ports.clone(), triggers),
            intx: EventfdLine::new(name.clone(), slot, config::PIN, ports.clone(), line.clone()),
            line,
            name,
            doorbell,
            device,
            config: Mutex::new(description.config.clone()),
            description,
            memory,
            ports,
            report,
        })
    }

    fn error(&self, operation: Operation, source: impl Into<Cause>) -> HostError {
        HostError { device: self.name.clone(), operation, source: source.into() }
    }

    fn region(&self, range: BarRange) -> io::Result<*mut u8> {
        let region = self.memory.get(usize::from(range.bar)).and_then(Option::as_ref);
        let region = region.ok_or(io::ErrorKind::NotFound)?;
        let (offset, len) = (range.offset as usize, range.len as usize);
        let slice = region.get_slice(offset, len).map_err(io::Error::other)?;
        Ok(slice.ptr_guard_mut().as_ptr())
    }
}

impl HostFunction for SimulatedFunction {
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
        for (to, from) in data.iter_mut().zip(self.config.lock().iter().skip(usize::from(offset))) {
            *to = *from;
        }
        // The status register's interrupt bit (PCIe 6.0 §7.5.1.1.4).
        if let Some(byte) =
            usize::from(STATUS).checked_sub(usize::from(offset)).and_then(|at| data.get_mut(at))
        {
            *byte |= u8::from(self.line.is_asserted()) << 3;
        }
        Ok(())
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        // Of its own registers only bus mastering and INTx disable do anything.
        if offset == COMMAND
            && let [low, high, ..] = data
        {
            let command = u16::from_le_bytes([*low, *high]);
            self.device.set_bus_master(command & COMMAND_BUS_MASTER != 0);
            self.line.disable(command & COMMAND_INTX_DISABLE != 0);
        }
        Ok(())
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        if let Some(Some(memory)) = self.memory.get(usize::from(bar)) {
            let range = BarRange { bar, offset, len: data.len() as u64 };
            let slice = memory.get_slice(offset as usize, data.len());
            return slice
                .and_then(|s| s.read_slice(data, 0))
                .map_err(|e| self.error(Operation::BarRead(range), io::Error::other(e)));
        }
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            let register = if bar == 0 { self.device.read(at & !3) } else { self.device.io_read(at & !3) };
            *byte = (register >> (8 * (at & 3))) as u8;
        }
        Ok(())
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError> {
        if let Some(Some(memory)) = self.memory.get(usize::from(bar)) {
            let range = BarRange { bar, offset, len: data.len() as u64 };
            let slice = memory.get_slice(offset as usize, data.len());
            return slice
                .and_then(|s| s.write_slice(data, 0))
                .map_err(|e| self.error(Operation::BarWrite(range), io::Error::other(e)));
        }
        // Narrow writes change their bytes of a register; wide ones are one write each.
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let room = 4 - (at & 3) as usize;
            let (part, more) = rest.split_at(rest.len().min(room));
            let register = at & !3;
            let mut bytes = if bar == 0 { self.device.read(register) } else { self.device.io_read(register) }
                .to_le_bytes();
            for (to, from) in bytes.iter_mut().skip((at & 3) as usize).zip(part) {
                *to = *from;
            }
            let value = u32::from_le_bytes(bytes);
            match (bar, register) {
                (0, doorbell::REGISTER) => self.doorbell.write(),
                (0, register) => self.device.write(register, value),
                (_, register) => self.device.io_write(register, value),
            }
            at += part.len() as u64;
            rest = more;
        }
        Ok(())
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let operation = || Operation::Map { range, guest };
        let host = self.region(range).map_err(|e| self.error(operation(), e))?;
        // SAFETY: the region lives as long as this function, which is unmapped from the guest before it goes.
        unsafe { self.ports.memory.map(guest, host, range.len, Access::ReadWrite) }
            .map_err(|e| self.error(operation(), e))
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let unmapped = self.ports.memory.unmap(guest, range.len);
        unmapped.map_err(|e| self.error(Operation::Unmap { range, guest }, e))
    }

    fn answers_at(&self, bar: u8, guest: Option<u64>) {
        if bar == 0 {
            self.doorbell.attach(guest);
        }
    }

    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        self.vectors.set(kind, count, changes)
    }

    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        self.vectors.disable(kind)
    }

    fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        self.vectors.is_pending(kind, vector)
    }

    fn keep_pending(&self, bits: Arc<PendingBits>) {
        self.vectors.keep_pending(bits);
    }

    fn vector_calls(&self) -> u64 {
        self.vectors.calls()
    }

    fn set_intx(&self, on: bool) -> Result<(), HostError> {
        self.intx.set(on)
    }

    fn listen(&self, _: Listener) -> Result<(), HostError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), HostError> {
        self.device.reset();
        self.doorbell.reset();
        self.line.assert(false);
        Ok(())
    }
}
