//! A host and a VMM whose calls can be made to fail.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::host::*;
use crate::pci::Space;
use crate::ports::{Access, BarAccess, DmaRegion, MemoryPort, PortError, PortOperation, Trap};

/// What the hypervisor and the IOMMU have: mappings and traps by address. Calls of the hypervisor are numbered, and one of
/// them fails, or all from one on.
#[derive(Default)]
pub(super) struct Book {
    pub(super) mapped: BTreeMap<u64, (&'static str, BarRange)>,
    /// The IOMMU's side of the mappings.
    pub(super) peers: BTreeMap<u64, (&'static str, BarRange)>,
    /// The IOMMU unmaps nothing.
    pub(super) peers_stay: bool,
    /// Lengths of this process' memory that is mapped to be read, by address.
    pub(super) read: BTreeMap<u64, u64>,
    pub(super) trapped: BTreeMap<u64, Range<u64>>,
    pub(super) calls: usize,
    pub(super) fail: Option<Range<usize>>,
}

impl Book {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match &self.fail {
            Some(fail) if fail.contains(&(self.calls - 1)) => Err(io::ErrorKind::OutOfMemory.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mapped.is_empty() && self.peers.is_empty() && self.read.is_empty() && self.trapped.is_empty()
    }

    /// All that the guest or others reach without an exit, and how much of it.
    pub(super) fn reached(&self) -> BTreeMap<u64, u64> {
        let of_host = self.mapped.iter().chain(&self.peers).map(|(at, (_, range))| (*at, range.len));
        of_host.chain(self.read.iter().map(|(at, len)| (*at, *len))).collect()
    }

    fn is_taken(&self, guest: u64, len: u64) -> bool {
        self.reached().iter().any(|(at, other)| *at < guest + len && guest < at + other)
    }
}

#[derive(Default)]
pub(super) struct Vmm(pub(super) Mutex<Book>);

impl MemoryPort for Vmm {
    unsafe fn map(&self, guest: u64, host: *mut u8, len: u64, access: Access) -> Result<(), PortError> {
        let mut book = self.0.lock();
        book.call().map_err(PortOperation::Map { guest, len }.failed())?;
        assert_eq!(((guest | host as u64 | len) % 0x1000, access), (0, Access::ReadOnly));
        assert!(!book.is_taken(guest, len), "{guest:#x} over another mapping");
        book.read.insert(guest, len);
        Ok(())
    }

    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
        let mut book = self.0.lock();
        assert_eq!(book.read.get(&guest), Some(&len), "only what is mapped is unmapped");
        book.call().map_err(PortOperation::Unmap { guest, len }.failed())?;
        book.read.remove(&guest);
        Ok(())
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        let mut book = self.0.lock();
        book.call().map_err(PortOperation::Trap.failed())?;
        let taken = |trap: &Trap| {
            let mut old = book.trapped.values().filter(|old| remove.iter().all(|(_, gone)| gone != *old));
            old.any(|old| old.start < trap.range.end && trap.range.start < old.end)
        };
        if add.iter().any(taken) {
            return Err(PortOperation::Trap.failed()(io::ErrorKind::AddrInUse));
        }
        for (_, range) in remove {
            assert_eq!(
                book.trapped.remove(&range.start).as_ref(),
                Some(range),
                "only what is trapped is taken away"
            );
        }
        book.trapped.extend(add.iter().map(|trap| (trap.range.start, trap.range.clone())));
        Ok(())
    }

    fn dma_regions(&self) -> Vec<DmaRegion> {
        Vec::new()
    }
}

impl BarAccess for Vmm {
    fn bar_read(&self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _: u8, _: u64, _: &[u8]) {}
}

pub(super) struct Host {
    pub(super) name: Arc<str>,
    pub(super) tag: &'static str,
    pub(super) vmm: Arc<Vmm>,
    pub(super) description: Description,
    pub(super) report: Report,
    pub(super) there: AtomicBool,
}

impl Host {
    fn error<E: Into<Cause>>(&self, operation: Operation) -> impl FnOnce(E) -> HostError + use<E> {
        let device = self.name.clone();
        move |source| HostError { device, operation, source: source.into() }
    }
}

impl HostFunction for Host {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn config_read(&self, _: u16, data: &mut [u8]) -> Result<(), HostError> {
        data.fill(if self.there.load(Ordering::Relaxed) { 0x12 } else { 0xff });
        Ok(())
    }

    fn config_write(&self, _: u16, _: &[u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn bar_read(&self, _: u8, _: u64, _: &mut [u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn bar_write(&self, _: u8, _: u64, _: &[u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let mut book = self.vmm.0.lock();
        book.call().map_err(self.error(Operation::Map { range, guest }))?;
        assert_eq!((guest | range.len | range.offset) % 0x1000, 0, "whole pages");
        assert!(!book.is_taken(guest, range.len), "{range} at {guest:#x} over another mapping");
        book.mapped.insert(guest, (self.tag, range));
        book.peers.insert(guest, (self.tag, range));
        Ok(())
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        let mut book = self.vmm.0.lock();
        let it = Some((self.tag, range));
        let there = [book.mapped.get(&guest).copied(), book.peers.get(&guest).copied()];
        assert!(there.contains(&it) && there.iter().all(|t| t.is_none() || *t == it), "{range}: {there:?}");
        if !book.peers_stay {
            book.peers.remove(&guest);
        }
        if book.mapped.contains_key(&guest) {
            book.call().map_err(self.error(Operation::Unmap { range, guest }))?;
            book.mapped.remove(&guest);
        }
        match book.peers.contains_key(&guest) {
            true => Err(self.error(Operation::Unmap { range, guest })(io::Error::other("by DMA"))),
            false => Ok(()),
        }
    }

    fn set_vectors(&self, _: MessageKind, _: u16, _: &[VectorChange]) -> Vec<HostError> {
        Vec::new()
    }

    fn disable_vectors(&self, _: MessageKind) -> Result<(), HostError> {
        Ok(())
    }

    fn is_pending(&self, _: MessageKind, _: u16) -> bool {
        false
    }

    fn set_intx(&self, _: bool) -> Result<(), HostError> {
        Ok(())
    }

    fn listen(&self, _: Listener) -> Result<(), HostError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), HostError> {
        Ok(())
    }
}
