//! A VMM that only keeps book: ports in memory, as an embedder without KVM would write them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex};

use passthru::pci::{Slot, Space};
use passthru::ports::*;

/// Bytes of the guest's memory, at address 0.
pub const RAM: usize = 1 << 20;

#[derive(Default)]
pub struct Book {
    /// Host address by guest range.
    pub mapped: BTreeMap<(u64, u64), usize>,
    pub trapped: Vec<Trap>,
    pub routes: BTreeMap<u32, Option<MsiMessage>>,
    pub committed: BTreeMap<u32, MsiMessage>,
    pub commits: usize,
    pub attached: BTreeMap<u32, RawFd>,
    pub files: Vec<RawFd>,
    /// Fails the next mappings.
    pub refuse_maps: usize,
    /// GSIs that there are.
    pub gsis: u32,
}

pub struct Vmm {
    pub book: Mutex<Book>,
    ram: Mutex<Vec<u8>>,
}

impl Vmm {
    pub fn new() -> Arc<Vmm> {
        let book = Book { gsis: 64, ..Book::default() };
        Arc::new(Vmm { book: Mutex::new(book), ram: Mutex::new(vec![0; RAM]) })
    }

    pub fn ports(self: &Arc<Self>) -> Ports {
        Ports { memory: self.clone(), interrupts: self.clone(), events: self.clone() }
    }

    pub fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// An access to a memory address, as the VMM's bus dispatches it.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.target(Space::Memory, address) {
            Some((trap, offset)) => trap.target.bar_read(trap.bar, offset, data),
            None => data.fill(0xff),
        }
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((trap, offset)) = self.target(Space::Memory, address) {
            trap.target.bar_write(trap.bar, offset, data);
        }
    }

    fn target(&self, space: Space, address: u64) -> Option<(Trap, u64)> {
        let book = self.book();
        let trap = book.trapped.iter().find(|t| t.space == space && t.range.contains(&address))?;
        Some((trap.clone(), trap.offset + address - trap.range.start))
    }

    /// Messages that signals on attached eventfds have become, taken from them as the hypervisor would.
    pub fn delivered(&self) -> Vec<MsiMessage> {
        let book = self.book();
        let signalled = |(gsi, fd): (&u32, &RawFd)| {
            let mut count = [0u8; 8];
            // SAFETY: eight bytes are read into eight, from a descriptor that is open while it is attached.
            let read = unsafe { libc::read(*fd, count.as_mut_ptr().cast(), count.len()) };
            (read == 8).then(|| book.committed.get(gsi).copied()).flatten()
        };
        book.attached.iter().filter_map(signalled).collect()
    }

    /// Nothing of any function is left.
    pub fn is_empty(&self) -> bool {
        let book = self.book();
        book.mapped.is_empty()
            && book.trapped.is_empty()
            && book.routes.is_empty()
            && book.attached.is_empty()
    }
}

fn failed(operation: PortOperation, kind: io::ErrorKind) -> PortError {
    operation.failed()(kind)
}

impl MemoryPort for Vmm {
    unsafe fn map(&self, guest: u64, host: *mut u8, len: u64, _: Access) -> Result<(), PortError> {
        let mut book = self.book();
        if book.refuse_maps > 0 {
            book.refuse_maps -= 1;
            return Err(failed(PortOperation::Map { guest, len }, io::ErrorKind::OutOfMemory));
        }
        assert_eq!((guest | host as u64 | len) % 4096, 0, "whole pages");
        let overlaps = |(start, size): &(u64, u64)| guest < start + size && *start < guest + len;
        assert!(!book.mapped.keys().any(overlaps), "a mapping over another one");
        book.mapped.insert((guest, len), host as usize);
        Ok(())
    }

    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
        let known = self.book().mapped.remove(&(guest, len));
        known.map(drop).ok_or_else(|| failed(PortOperation::Unmap { guest, len }, io::ErrorKind::NotFound))
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        let mut book = self.book();
        for (space, range) in remove {
            let before = book.trapped.len();
            book.trapped.retain(|t| (t.space, &t.range) != (*space, range));
            assert_eq!(book.trapped.len(), before - 1, "only what was trapped is taken away");
        }
        book.trapped.extend(add.iter().cloned());
        Ok(())
    }

    fn dma_regions(&self) -> Vec<DmaRegion> {
        let host = self.ram.lock().unwrap().as_mut_ptr();
        vec![DmaRegion { guest: 0, host, len: RAM as u64, file: None }]
    }
}

impl InterruptPort for Vmm {
    fn allocate(&self, slot: Slot) -> Result<Gsi, PortError> {
        let mut book = self.book();
        let free = (0..book.gsis).find(|gsi| !book.routes.contains_key(gsi));
        let gsi =
            free.ok_or_else(|| failed(PortOperation::Gsi { slot, limit: 64 }, io::ErrorKind::StorageFull))?;
        book.routes.insert(gsi, None);
        Ok(Gsi(gsi))
    }

    fn release(&self, gsi: Gsi) {
        let mut book = self.book();
        assert!(book.routes.remove(&gsi.0).is_some(), "released once");
        assert!(!book.attached.contains_key(&gsi.0), "detached before it is released");
    }

    fn route(&self, gsi: Gsi, message: MsiMessage) -> Result<(), PortError> {
        self.book().routes.insert(gsi.0, Some(message));
        Ok(())
    }

    fn commit(&self) -> Result<(), PortError> {
        let mut book = self.book();
        book.commits += 1;
        book.committed = book.routes.iter().filter_map(|(gsi, route)| Some((*gsi, (*route)?))).collect();
        Ok(())
    }

    fn attach(&self, gsi: Gsi, event: BorrowedFd<'_>) -> Result<(), PortError> {
        let mut book = self.book();
        assert!(book.committed.contains_key(&gsi.0), "a route before an eventfd");
        assert!(book.attached.insert(gsi.0, event.as_raw_fd()).is_none(), "attached once");
        Ok(())
    }

    fn detach(&self, gsi: Gsi, event: BorrowedFd<'_>) -> Result<(), PortError> {
        assert_eq!(self.book().attached.remove(&gsi.0), Some(event.as_raw_fd()));
        Ok(())
    }

    fn line(&self, slot: Slot, pin: u8) -> Gsi {
        Gsi(1000 + u32::from(slot.device()) * 4 + u32::from(pin))
    }

    fn attach_line(&self, _: Gsi, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> Result<bool, PortError> {
        Ok(false)
    }

    fn set_line(&self, _: Gsi, _: bool) -> Result<(), PortError> {
        Ok(())
    }

    fn detach_line(&self, _: Gsi, _: BorrowedFd<'_>) -> Result<(), PortError> {
        Ok(())
    }
}

impl EventPort for Vmm {
    fn attach_doorbell(
        &self,
        _: Space,
        _: u64,
        _: u8,
        _: Option<u64>,
        _: BorrowedFd<'_>,
    ) -> Result<(), PortError> {
        Err(failed(PortOperation::Watch, io::ErrorKind::Unsupported))
    }

    fn detach_doorbell(
        &self,
        _: Space,
        _: u64,
        _: u8,
        _: Option<u64>,
        _: BorrowedFd<'_>,
    ) -> Result<(), PortError> {
        Err(failed(PortOperation::Watch, io::ErrorKind::Unsupported))
    }

    fn watch(&self, _: BorrowedFd<'_>, _: Arc<dyn Fn() + Send + Sync>) -> Result<WatchId, PortError> {
        Err(failed(PortOperation::Watch, io::ErrorKind::Unsupported))
    }

    fn unwatch(&self, _: WatchId) {}

    fn register_file(&self, file: BorrowedFd<'_>) -> Result<(), PortError> {
        self.book().files.push(file.as_raw_fd());
        Ok(())
    }

    fn unregister_file(&self, file: BorrowedFd<'_>) {
        self.book().files.retain(|fd| *fd != file.as_raw_fd());
    }
}
