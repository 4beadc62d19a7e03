//! Ports that map, route and watch nothing and count what they were asked for; trapped ranges go to a bus.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use passthru::pci::{Slot, Space};
use passthru::ports::{
    Access, DmaRegion, EventPort, Gsi, InterruptPort, MemoryPort, MsiMessage, PortError, PortOperation,
    Ports, Trap, WatchId,
};
use vmm::bus::Bus;

/// Calls of one kind.
#[derive(Debug, Default)]
pub struct Calls(AtomicU64);

impl Calls {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All three ports in one.
#[derive(Default)]
pub struct CountingPorts {
    /// Where accesses to trapped ranges are dispatched.
    pub bus: Arc<Bus>,
    /// Of [`MemoryPort::map`].
    pub maps: Calls,
    /// Of [`MemoryPort::unmap`].
    pub unmaps: Calls,
    /// Of [`InterruptPort::commit`].
    pub commits: Calls,
    /// Of [`InterruptPort::attach`].
    pub attaches: Calls,
    /// Of [`InterruptPort::detach`].
    pub detaches: Calls,
    next_gsi: AtomicU32,
}

impl CountingPorts {
    /// As a VMM hands them over.
    pub fn ports(self: &Arc<Self>) -> Ports {
        Ports { memory: self.clone(), interrupts: self.clone(), events: self.clone() }
    }
}

impl MemoryPort for CountingPorts {
    unsafe fn map(&self, _: u64, _: *mut u8, _: u64, _: Access) -> Result<(), PortError> {
        self.maps.count();
        Ok(())
    }

    fn unmap(&self, _: u64, _: u64) -> Result<(), PortError> {
        self.unmaps.count();
        Ok(())
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        self.bus.trap(remove, add).map_err(|error| PortOperation::Trap.failed()(io::Error::other(error)))
    }

    fn dma_regions(&self) -> Vec<DmaRegion> {
        Vec::new()
    }
}

impl InterruptPort for CountingPorts {
    fn allocate(&self, _: Slot) -> Result<Gsi, PortError> {
        Ok(Gsi(self.next_gsi.fetch_add(1, Ordering::Relaxed)))
    }

    fn release(&self, _: Gsi) {}

    fn route(&self, _: Gsi, _: MsiMessage) -> Result<(), PortError> {
        Ok(())
    }

    fn commit(&self) -> Result<(), PortError> {
        self.commits.count();
        Ok(())
    }

    fn attach(&self, _: Gsi, _: BorrowedFd<'_>) -> Result<(), PortError> {
        self.attaches.count();
        Ok(())
    }

    fn detach(&self, _: Gsi, _: BorrowedFd<'_>) -> Result<(), PortError> {
        self.detaches.count();
        Ok(())
    }

    fn line(&self, _: Slot, pin: u8) -> Gsi {
        Gsi(u32::from(pin))
    }

    fn attach_line(&self, _: Gsi, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> Result<bool, PortError> {
        Ok(true)
    }

    fn set_line(&self, _: Gsi, _: Slot, _: bool) -> Result<(), PortError> {
        Ok(())
    }

    fn detach_line(&self, _: Gsi, _: BorrowedFd<'_>) -> Result<(), PortError> {
        Ok(())
    }
}

impl EventPort for CountingPorts {
    fn attach_doorbell(
        &self,
        _: Space,
        _: u64,
        _: u8,
        _: Option<u64>,
        _: BorrowedFd<'_>,
    ) -> Result<(), PortError> {
        Ok(())
    }

    fn detach_doorbell(
        &self,
        _: Space,
        _: u64,
        _: u8,
        _: Option<u64>,
        _: BorrowedFd<'_>,
    ) -> Result<(), PortError> {
        Ok(())
    }

    fn watch(&self, _: BorrowedFd<'_>, _: Arc<dyn Fn() + Send + Sync>) -> Result<WatchId, PortError> {
        Ok(WatchId(0))
    }

    fn unwatch(&self, _: WatchId) {}

    fn register_file(&self, _: BorrowedFd<'_>) -> Result<(), PortError> {
        Ok(())
    }

    fn unregister_file(&self, _: BorrowedFd<'_>) {}
}
