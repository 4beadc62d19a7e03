//! A function that is bound to a virtual machine.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use libc::EINVAL;
use log::{debug, warn};
use parking_lot::Mutex;

use super::access::{get, put, split};
use super::device::{Device, HostBar};
use super::error::{Reason, Refusal};
use super::filter::Filter;
use super::sys::Sys;
use super::table_bar::TableBar;
use super::vm::{Interface, Vm};
use crate::host::{
    BARS, BarRange, Cause, Description, HostError, HostEvent, HostFunction, Listener, MessageKind, Operation,
    Report, VectorChange, VectorState,
};
use crate::pci::Space;
use crate::pci::registers::CONVENTIONAL_SIZE;
use crate::ports::MsiMessage;

/// A function of the ppt driver's, bound to a virtual machine until it is dropped.
pub struct PptFunction<S: Sys> {
    // Unmapped before the function is unbound, and that before its file is closed.
    pub(super) table_bar: Option<TableBar<S>>,
    pub(super) bound: Bound<S>,
    pub(super) bars: [Option<HostBar>; BARS],
    pub(super) filter: Filter,
    /// Where the MSI-X pending bits are, if that is in the mapped BAR.
    pub(super) pending: Option<u64>,
    pub(super) description: Description,
    pub(super) report: Report,
    pub(super) first: Mutex<FirstInterface>,
    /// MSI-X vectors that are armed.
    pub(super) armed: Mutex<BTreeSet<u16>>,
}

/// What a kernel of the first interface has to be spared of, and still has.
#[derive(Default)]
pub(super) struct FirstInterface {
    /// Mapped: it unmaps nothing.
    kept: HashSet<(BarRange, u64)>,
    /// MSI-X cannot be turned on before the function is unbound.
    no_msix: bool,
}

/// A function while it is bound.
pub(super) struct Bound<S: Sys> {
    pub(super) vm: Arc<Vm<S>>,
    pub(super) device: Device<S>,
}

impl<S: Sys> PptFunction<S> {
    /// The virtual machine that has it.
    pub fn vm(&self) -> &Arc<Vm<S>> {
        &self.bound.vm
    }

    fn error(&self, operation: Operation, source: impl Into<Cause>) -> HostError {
        HostError { device: self.name().clone(), operation, source: source.into() }
    }

    /// What the ports of a BAR are accessed with, or the mapped BAR.
    fn reach(&self, bar: u8) -> Option<Reach<'_, S>> {
        match self.bars.get(usize::from(bar))?.as_ref()? {
            HostBar { space: Space::Io, size, .. } => Some(Reach::Ports { size: *size }),
            HostBar { space: Space::Memory, .. } => {
                self.table_bar.as_ref().filter(|table| table.bar() == bar).map(Reach::Memory)
            }
        }
    }

    /// Host-physical address of part of a memory BAR.
    fn host_address(&self, range: BarRange) -> io::Result<u64> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let bar = self.bars.get(usize::from(range.bar)).copied().flatten().ok_or_else(invalid)?;
        let end = range.offset.checked_add(range.len).ok_or_else(invalid)?;
        if bar.space != Space::Memory || end > bar.size {
            return Err(invalid());
        }
        bar.base.checked_add(range.offset).ok_or_else(invalid)
    }

    fn set_msi(&self, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        // The kernel numbers the vectors from the first one's message on, whichever changed.
        let armed = changes.iter().find_map(|change| match change.state {
            VectorState::Armed(message) => Some((change.vector, message)),
            VectorState::Masked => None,
        });
        let Some((vector, message)) = armed else { return Vec::new() };
        let data = message.data & !(u32::from(count).max(1).next_power_of_two() - 1);
        let first = MsiMessage { data, ..message };
        let set = self.bound.vm.msi(&self.bound.device, count, first);
        // Those of before are gone in any case, so that none of them is there after an error.
        let Err(refusal) = set else { return Vec::new() };
        let others = changes.iter().map(|change| change.vector).filter(|other| *other != vector);
        let operation = |vector| Operation::Vector { kind: MessageKind::Msi, vector };
        let again = |vector| self.error(operation(vector), refusal.again());
        let mut errors: Vec<HostError> = others.map(again).collect();
        errors.insert(0, self.error(operation(vector), refusal));
        errors
    }

    fn set_msix(&self, changes: &[VectorChange]) -> Vec<HostError> {
        let (vm, device) = (&self.bound.vm, &self.bound.device);
        let mut armed = self.armed.lock();
        let mut errors = Vec::new();
        let mut refused: Option<Refusal> = None;
        for change in changes {
            let message = match change.state {
                VectorState::Armed(message) => Some(message),
                VectorState::Masked => None,
            };
            let set = match &refused {
                Some(refusal) => Err(refusal.again()),
                None if self.first.lock().no_msix => Err(Refusal::no_vector(EINVAL)),
                None => vm.msix(device, change.vector, message),
            };
            match set {
                Ok(()) if message.is_some() => drop(armed.insert(change.vector)),
                Ok(()) => drop(armed.remove(&change.vector)),
                Err(refusal) => {
                    if refused.is_none() && refusal.reason == Reason::NoVector && armed.is_empty() {
                        self.give_up_msix();
                        refused = Some(refusal.again());
                    }
                    let operation = Operation::Vector { kind: MessageKind::Msix, vector: change.vector };
                    errors.push(self.error(operation, refusal));
                }
            }
        }
        errors
    }

    /// The kernel could not allocate the function's vectors. It remembers how many there were to be all the same, and would
    /// use what is not there with the next request for one of them (`ppt_setup_msix`), unless MSI-X is turned off first.
    fn give_up_msix(&self) {
        let (vm, device) = (&self.bound.vm, &self.bound.device);
        match vm.interface() {
            Interface::Version(_) => {
                if let Err(refusal) = vm.disable_msix(device) {
                    debug!("{}: {refusal}", self.name());
                }
            }
            Interface::First => self.first.lock().no_msix = true,
        }
    }
}

/// How the part of a BAR that is not mapped into the guest is accessed.
enum Reach<'a, S: Sys> {
    /// So many: the kernel goes on to whatever is behind them.
    Ports {
        size: u64,
    },
    Memory(&'a TableBar<S>),
}

impl<S: Sys> Drop for Bound<S> {
    fn drop(&mut self) {
        if let Err(refusal) = self.vm.unbind(&self.device) {
            warn!("{}: {refusal}", self.device.name());
        }
    }
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Cause {
        Cause::Ppt(refusal)
    }
}

impl<S: Sys> HostFunction for PptFunction<S> {
    fn name(&self) -> &Arc<str> {
        self.bound.device.name()
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        let operation = Operation::ConfigRead { offset, len: data.len() };
        // Nothing shows what is behind the first 256 bytes.
        let read = split(offset.into(), data.len(), CONVENTIONAL_SIZE as u64, 4).and_then(|parts| {
            let mut rest = data;
            for (at, width) in parts {
                let (part, behind) = std::mem::take(&mut rest).split_at_mut(width);
                put(part, self.bound.device.config_read(at as u16, width as u32)?);
                rest = behind;
            }
            Ok(())
        });
        read.map_err(|source| self.error(operation, source))
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        let write = || {
            let passed = self.filter.pass(offset, data).ok_or(io::ErrorKind::Unsupported)?;
            let device = &self.bound.device;
            let is_aligned = usize::from(offset) % data.len().max(1) == 0;
            if passed.len() == data.len() && is_aligned {
                let bytes: Vec<u8> = passed.iter().map(|(_, byte)| *byte).collect();
                return device.config_write(offset, data.len() as u32, get(&bytes));
            }
            passed.iter().try_for_each(|(at, byte)| device.config_write(*at, 1, (*byte).into()))
        };
        let operation = Operation::ConfigWrite { offset, len: data.len() };
        write().map_err(|source: io::Error| self.error(operation, source))
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        let range = BarRange { bar, offset, len: data.len() as u64 };
        let read = match self.reach(bar) {
            Some(Reach::Memory(table)) => table.read(offset, data),
            Some(Reach::Ports { size }) => split(offset, data.len(), size, 4).and_then(|parts| {
                let mut rest = data;
                for (at, width) in parts {
                    let at = u32::try_from(at).map_err(io::Error::other)?;
                    let (part, behind) = std::mem::take(&mut rest).split_at_mut(width);
                    put(part, self.bound.device.port_read(bar, at, width as u32)?);
                    rest = behind;
                }
                Ok(())
            }),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        read.map_err(|source| self.error(Operation::BarRead(range), source))
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let range = BarRange { bar, offset, len: data.len() as u64 };
        let written = match self.reach(bar) {
            Some(Reach::Memory(table)) => table.write(offset, data),
            Some(Reach::Ports { size }) => split(offset, data.len(), size, 4).and_then(|parts| {
                let mut rest = data;
                for (at, width) in parts {
                    let at = u32::try_from(at).map_err(io::Error::other)?;
                    let (part, behind) = rest.split_at(width);
                    self.bound.device.port_write(bar, at, width as u32, get(part))?;
                    rest = behind;
                }
                Ok(())
            }),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        written.map_err(|source| self.error(Operation::BarWrite(range), source))
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let operation = Operation::Map { range, guest };
        if self.first.lock().kept.remove(&(range, guest)) {
            return Ok(());
        }
        let host = self.host_address(range).map_err(|source| self.error(operation.clone(), source))?;
        let mapped = self.bound.vm.map(&self.bound.device, guest, host, range.len);
        mapped.map_err(|refusal| self.error(operation, refusal))
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        if self.bound.vm.interface() == Interface::First {
            // As bhyve of that time did it: the guest that moves a BAR reaches it at the old address too.
            self.first.lock().kept.insert((range, guest));
            return Ok(());
        }
        let unmapped = self.bound.vm.unmap(&self.bound.device, guest, range.len);
        match unmapped {
            // It is gone, as with the function's end in the virtual machine, or with the machine's own.
            Err(Refusal { reason: Reason::NotMapped | Reason::NotBound | Reason::VmGone, .. }) => Ok(()),
            done => done.map_err(|refusal| self.error(Operation::Unmap { range, guest }, refusal)),
        }
    }

    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        match kind {
            MessageKind::Msi => self.set_msi(count, changes),
            // The first request for a vector allocates all of them, also one that takes it down.
            MessageKind::Msix if changes.is_empty() => {
                self.set_msix(&[VectorChange { vector: 0, state: VectorState::Masked }])
            }
            MessageKind::Msix => self.set_msix(changes),
        }
    }

    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        let (vm, device) = (&self.bound.vm, &self.bound.device);
        let armed = match kind {
            MessageKind::Msi => BTreeSet::new(),
            MessageKind::Msix => std::mem::take(&mut *self.armed.lock()),
        };
        let off = match (kind, vm.interface()) {
            (MessageKind::Msi, _) => vm.msi(device, 0, MsiMessage::default()),
            (MessageKind::Msix, Interface::Version(_)) => vm.disable_msix(device),
            // One by one, whatever comes of each; the host's vectors stay allocated, and silent.
            (MessageKind::Msix, Interface::First) => {
                armed.into_iter().map(|vector| vm.msix(device, vector, None)).fold(Ok(()), Result::and)
            }
        };
        off.map_err(|refusal| self.error(Operation::DisableVectors(kind), refusal))
    }

    fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        // What a function signals while a vector is down stands in its own pending bits.
        let (Some(pending), Some(table), MessageKind::Msix) = (self.pending, &self.table_bar, kind) else {
            return false;
        };
        let mut bits = [0; 8];
        let read = table.read(pending.saturating_add(u64::from(vector / 64) * 8), &mut bits);
        read.is_ok() && u64::from_le_bytes(bits) >> (vector % 64) & 1 != 0
    }

    fn set_intx(&self, on: bool) -> Result<(), HostError> {
        if on {
            return Err(self.error(Operation::Intx(on), io::Error::from(io::ErrorKind::Unsupported)));
        }
        Ok(())
    }

    fn listen(&self, _: Listener) -> Result<(), HostError> {
        debug!("{}: nobody tells of {:?} events", self.name(), [HostEvent::Error, HostEvent::Request]);
        Ok(())
    }

    fn reset(&self) -> Result<(), HostError> {
        Err(self.error(Operation::Reset, io::Error::from(io::ErrorKind::Unsupported)))
    }
}
