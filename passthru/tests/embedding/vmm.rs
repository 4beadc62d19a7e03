//! A VMM that only keeps book: ports in memory, as an embedder without KVM would write them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use passthru::pci::{Slot, Space};
use passthru::ports::*;

/// Bytes of the guest's memory, at address 0.
pub const RAM: usize = 1 << 20;

#[derive(Default)]
pub struct Book {
    /// Host address by guest range.
    pub mapped: BTreeMap<(u64, u64), usize>,
    /// The same of what the guest can only read; writes there reach what traps the range.
    pub readable: BTreeMap<(u64, u64), usize>,
    pub trapped: Vec<Trap>,
    /// What was unmapped, and how often traps changed.
    pub unmapped: Vec<(u64, u64)>,
    pub trap_changes: usize,
    /// What the guest reads here without an exit is noted whenever an eventfd is attached (true) or detached.
    pub look_at: Option<u64>,
    pub looked: Vec<(bool, [u8; 4])>,
    pub routes: BTreeMap<u32, Option<MsiMessage>>,
    pub committed: BTreeMap<u32, MsiMessage>,
    pub commits: usize,
    pub attached: BTreeMap<u32, RawFd>,
    pub files: Vec<RawFd>,
    /// Fails the next mappings.
    pub refuse_maps: usize,
    /// Fails watches.
    pub refuse_watches: bool,
    /// Fails to unmap what can only be read.
    pub keep_readable: bool,
    /// GSIs that there are.
    pub gsis: u32,
    /// The hypervisor tells of the guest's end of interrupt.
    pub resamples: bool,
    /// By GSI and trigger: the eventfd that tells of it.
    pub lines: BTreeMap<(u32, RawFd), RawFd>,
    /// Lines that are up, and who raises them: a trigger's descriptor, or a slot's requester id.
    pub raised: BTreeSet<(u32, i64)>,
}

impl Book {
    /// A guest's read of what is mapped to be read; false where nothing is.
    fn read_mapped(&self, address: u64, data: &mut [u8]) -> bool {
        let there = |((start, len), _): &(&(u64, u64), &usize)| (*start..start + len).contains(&address);
        let Some(((start, len), host)) = self.readable.iter().find(there) else { return false };
        let offset = (address - start) as usize;
        assert!(offset + data.len() <= *len as usize, "a read beyond its page");
        for (at, byte) in (host + offset..).zip(data) {
            // SAFETY: the memory is there until it is unmapped, which the book's lock keeps away.
            *byte = unsafe { std::ptr::read_volatile(at as *const u8) };
        }
        true
    }

    fn look(&mut self, attaches: bool) {
        let mut seen = [0xff; 4];
        if let Some(address) = self.look_at
            && self.read_mapped(address, &mut seen)
        {
            self.looked.push((attaches, seen));
        }
    }
}

/// A descriptor that is watched, and who is called.
type Watch = (OwnedFd, Arc<dyn Fn() + Send + Sync>);

pub struct Vmm {
    pub book: Mutex<Book>,
    ram: Mutex<Vec<u8>>,
    watches: Mutex<BTreeMap<u64, Watch>>,
}

impl Vmm {
    pub fn new() -> Arc<Vmm> {
        let book = Book { gsis: 64, ..Book::default() };
        Arc::new(Vmm { book: Mutex::new(book), ram: Mutex::new(vec![0; RAM]), watches: Mutex::default() })
    }

    pub fn ports(self: &Arc<Self>) -> Ports {
        Ports { memory: self.clone(), interrupts: self.clone(), events: self.clone() }
    }

    pub fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// A guest's read of a memory address: of memory that is mapped to be read, or as the VMM's bus dispatches it.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        if !self.book().read_mapped(address, data) {
            self.read_trapped(address, data);
        }
    }

    /// A read that exits.
    pub fn read_trapped(&self, address: u64, data: &mut [u8]) {
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
        let signalled =
            |(gsi, fd): (&u32, &RawFd)| drained(*fd).then(|| book.committed.get(gsi).copied()).flatten();
        book.attached.iter().filter_map(signalled).collect()
    }

    /// Turns of the event loop, until there is nothing to hear of.
    pub fn turn(&self) {
        loop {
            let is_ready = |(fd, _): &&Watch| {
                let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one pollfd is given.
                unsafe { libc::poll(&mut poll, 1, 0) == 1 }
            };
            let ready = self.watches.lock().unwrap().values().find(is_ready).map(|(_, ready)| ready.clone());
            match ready {
                Some(ready) => ready(),
                None => return,
            }
        }
    }

    /// The level of a line, after whatever was signalled has raised it.
    pub fn line_is_up(&self, gsi: Gsi) -> bool {
        self.turn();
        let mut book = self.book();
        let triggers: Vec<RawFd> =
            book.lines.keys().filter(|(of, _)| *of == gsi.0).map(|(_, fd)| *fd).collect();
        for fd in triggers {
            if drained(fd) {
                book.raised.insert((gsi.0, fd.into()));
            }
        }
        book.raised.iter().any(|(of, _)| *of == gsi.0)
    }

    /// The guest's end of interrupt, for a hypervisor that tells of it.
    pub fn end_of_interrupt(&self, gsi: Gsi) {
        let mut book = self.book();
        book.raised.retain(|(of, _)| *of != gsi.0);
        for ((of, _), resample) in &book.lines {
            if *of == gsi.0 {
                // SAFETY: eight bytes are written from eight, to a descriptor that is open while its line is attached.
                unsafe { libc::write(*resample, 1u64.to_ne_bytes().as_ptr().cast(), 8) };
            }
        }
        drop(book);
        self.turn();
    }

    /// Nothing of any function is left.
    pub fn is_empty(&self) -> bool {
        let book = self.book();
        book.mapped.is_empty()
            && book.readable.is_empty()
            && book.trapped.is_empty()
            && book.routes.is_empty()
            && book.attached.is_empty()
            && book.lines.is_empty()
            && book.raised.is_empty()
            && self.watches.lock().unwrap().is_empty()
    }
}

/// Something was counted on an eventfd that is open, and is taken off.
fn drained(fd: RawFd) -> bool {
    let mut count = [0u8; 8];
    // SAFETY: eight bytes are read into eight.
    unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) == 8 }
}

fn failed(operation: PortOperation, kind: io::ErrorKind) -> PortError {
    operation.failed()(kind)
}

impl MemoryPort for Vmm {
    unsafe fn map(&self, guest: u64, host: *mut u8, len: u64, access: Access) -> Result<(), PortError> {
        let mut book = self.book();
        if book.refuse_maps > 0 {
            book.refuse_maps -= 1;
            return Err(failed(PortOperation::Map { guest, len }, io::ErrorKind::OutOfMemory));
        }
        assert_eq!((guest | host as u64 | len) % 4096, 0, "whole pages");
        let overlaps = |(start, size): &(u64, u64)| guest < start + size && *start < guest + len;
        assert!(!book.mapped.keys().chain(book.readable.keys()).any(overlaps), "a mapping over another one");
        let kind = if access == Access::ReadOnly { &mut book.readable } else { &mut book.mapped };
        kind.insert((guest, len), host as usize);
        Ok(())
    }

    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
        let mut book = self.book();
        if book.keep_readable && book.readable.contains_key(&(guest, len)) {
            return Err(failed(PortOperation::Unmap { guest, len }, io::ErrorKind::OutOfMemory));
        }
        book.unmapped.push((guest, len));
        let known = book.mapped.remove(&(guest, len)).or_else(|| book.readable.remove(&(guest, len)));
        known.map(drop).ok_or_else(|| failed(PortOperation::Unmap { guest, len }, io::ErrorKind::NotFound))
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        let mut book = self.book();
        book.trap_changes += 1;
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
        book.look(true);
        assert!(book.committed.contains_key(&gsi.0), "a route before an eventfd");
        assert!(book.attached.insert(gsi.0, event.as_raw_fd()).is_none(), "attached once");
        Ok(())
    }

    fn detach(&self, gsi: Gsi, event: BorrowedFd<'_>) -> Result<(), PortError> {
        let mut book = self.book();
        book.look(false);
        assert_eq!(book.attached.remove(&gsi.0), Some(event.as_raw_fd()));
        Ok(())
    }

    fn line(&self, slot: Slot, pin: u8) -> Gsi {
        // Functions of one device share a line for each pin.
        Gsi(1000 + u32::from(slot.device()) * 4 + u32::from(pin))
    }

    fn attach_line(
        &self,
        gsi: Gsi,
        trigger: BorrowedFd<'_>,
        resample: BorrowedFd<'_>,
    ) -> Result<bool, PortError> {
        let mut book = self.book();
        if book.resamples {
            book.lines.insert((gsi.0, trigger.as_raw_fd()), resample.as_raw_fd());
        }
        Ok(book.resamples)
    }

    fn set_line(&self, gsi: Gsi, slot: Slot, raised: bool) -> Result<(), PortError> {
        let line = (gsi.0, i64::from(slot.requester_id()) + (1 << 32));
        let mut book = self.book();
        if raised {
            book.raised.insert(line)
        } else {
            book.raised.remove(&line)
        };
        Ok(())
    }

    fn detach_line(&self, gsi: Gsi, trigger: BorrowedFd<'_>) -> Result<(), PortError> {
        let (line, mut book) = ((gsi.0, trigger.as_raw_fd()), self.book());
        assert!(book.lines.remove(&line).is_some(), "only what was attached is detached");
        book.raised.remove(&(line.0, line.1.into()));
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

    fn watch(&self, fd: BorrowedFd<'_>, ready: Arc<dyn Fn() + Send + Sync>) -> Result<WatchId, PortError> {
        if self.book().refuse_watches {
            return Err(failed(PortOperation::Watch, io::ErrorKind::OutOfMemory));
        }
        let fd = fd.try_clone_to_owned().map_err(PortOperation::Watch.failed())?;
        let mut watches = self.watches.lock().unwrap();
        let id = watches.last_key_value().map_or(0, |(id, _)| id + 1);
        watches.insert(id, (fd, ready));
        Ok(WatchId(id))
    }

    fn unwatch(&self, watch: WatchId) {
        assert!(self.watches.lock().unwrap().remove(&watch.0).is_some(), "unwatched once");
    }

    fn register_file(&self, file: BorrowedFd<'_>) -> Result<(), PortError> {
        self.book().files.push(file.as_raw_fd());
        Ok(())
    }

    fn unregister_file(&self, file: BorrowedFd<'_>) {
        self.book().files.retain(|fd| *fd != file.as_raw_fd());
    }
}
