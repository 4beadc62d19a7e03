//! The doorbell of the simulated function: a register of which a write only signals, so that it need not exit.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use log::debug;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::vectors::SimulatedTriggers;
use crate::pci::Space;
use crate::ports::{EventPort, PortError, WatchId};

/// Offset in BAR 0.
pub const REGISTER: u64 = 0x50;
/// The vector that it raises.
const VECTOR: u16 = 0;

/// The doorbell.
pub struct Doorbell {
    events: Arc<dyn EventPort>,
    bell: Arc<Bell>,
    /// Where a guest's writes signal, and who waits for that.
    attached: Mutex<Option<(u64, WatchId)>>,
}

struct Bell {
    event: EventFd,
    vectors: Arc<SimulatedTriggers>,
    /// Held while it rings, so that a reset comes before or after that.
    ringing: Mutex<()>,
}

impl Bell {
    fn ring(&self) {
        let _ringing = self.ringing.lock();
        // However often it was written, one interrupt tells of it.
        if self.event.read().is_ok() {
            self.vectors.raise(VECTOR);
        }
    }
}

impl Doorbell {
    /// It raises one of these vectors; writes exit until it is attached somewhere.
    pub fn new(events: Arc<dyn EventPort>, vectors: Arc<SimulatedTriggers>) -> io::Result<Doorbell> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let bell = Arc::new(Bell { event, vectors, ringing: Mutex::default() });
        Ok(Doorbell { events, bell, attached: Mutex::default() })
    }

    /// BAR 0 is there now, or nowhere. Where the hypervisor cannot take the writes they exit, and do the same.
    pub fn attach(&self, bar: Option<u64>) {
        let mut attached = self.attached.lock();
        if let Some((address, watch)) = attached.take() {
            let event = borrowed(&self.bell.event);
            if let Err(error) = self.events.detach_doorbell(Space::Memory, address, 0, None, event) {
                debug!("{error}");
            }
            self.events.unwatch(watch);
        }
        if let Some(address) = bar.and_then(|bar| bar.checked_add(REGISTER)) {
            match self.attach_at(address) {
                Ok(watch) => *attached = Some((address, watch)),
                Err(error) => debug!("writes to the doorbell at {address:#x} exit: {error}"),
            }
        }
    }

    fn attach_at(&self, address: u64) -> Result<WatchId, PortError> {
        let event = borrowed(&self.bell.event);
        let bell = self.bell.clone();
        let watch = self.events.watch(event, Arc::new(move || bell.ring()))?;
        self.events
            .attach_doorbell(Space::Memory, address, 0, None, event)
            .inspect_err(|_| self.events.unwatch(watch))?;
        Ok(watch)
    }

    /// A write that has exited.
    pub fn write(&self) {
        let _ringing = self.bell.ringing.lock();
        self.bell.vectors.raise(VECTOR);
    }

    /// Writes of before are forgotten.
    pub fn reset(&self) {
        let _ringing = self.bell.ringing.lock();
        let _ = self.bell.event.read();
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.attach(None);
    }
}

fn borrowed(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the eventfd that is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::MessageKind;
    use crate::host::eventfd::Triggers;
    use crate::host::simulated::line::SimulatedLine;
    use crate::ports::PortOperation;

    type Ready = Arc<dyn Fn() + Send + Sync>;

    /// Where the doorbell is attached, and what its event calls.
    #[derive(Default)]
    struct Book {
        attached: Mutex<Vec<u64>>,
        ready: Mutex<Option<Ready>>,
        refuses: Mutex<bool>,
    }

    impl EventPort for Book {
        fn attach_doorbell(
            &self,
            space: Space,
            address: u64,
            len: u8,
            value: Option<u64>,
            _: BorrowedFd<'_>,
        ) -> Result<(), PortError> {
            assert_eq!((space, len, value), (Space::Memory, 0, None));
            if *self.refuses.lock() {
                let full = io::Error::from_raw_os_error(libc::ENOSPC);
                return Err(full).map_err(PortOperation::Doorbell { space, address, len }.failed());
            }
            self.attached.lock().push(address);
            Ok(())
        }

        fn detach_doorbell(
            &self,
            _: Space,
            address: u64,
            _: u8,
            _: Option<u64>,
            _: BorrowedFd<'_>,
        ) -> Result<(), PortError> {
            let mut attached = self.attached.lock();
            let found = attached.iter().position(|at| *at == address);
            attached.swap_remove(found.expect("it was attached there"));
            Ok(())
        }

        fn watch(&self, _: BorrowedFd<'_>, ready: Ready) -> Result<WatchId, PortError> {
            *self.ready.lock() = Some(ready);
            Ok(WatchId(7))
        }

        fn unwatch(&self, watch: WatchId) {
            assert_eq!(watch, WatchId(7));
            *self.ready.lock() = None;
        }

        fn register_file(&self, _: BorrowedFd<'_>) -> Result<(), PortError> {
            Ok(())
        }

        fn unregister_file(&self, _: BorrowedFd<'_>) {}
    }

    /// A doorbell, and what its vector signals.
    fn doorbell() -> (Arc<Book>, Doorbell, EventFd) {
        let book = Arc::new(Book::default());
        let vectors = Arc::new(SimulatedTriggers::new(SimulatedLine::new(book.clone())));
        let signalled = EventFd::new(EFD_NONBLOCK).unwrap();
        assert!(vectors.set(MessageKind::Msix, 0, &[Some(borrowed(&signalled))]).is_ok());
        let doorbell = Doorbell::new(book.clone(), vectors).unwrap();
        (book, doorbell, signalled)
    }

    #[test]
    fn it_goes_with_its_bar() {
        let (book, doorbell, _) = doorbell();
        for (bar, there) in [
            (Some(0xc000_0000), vec![0xc000_0050]),
            (Some(0xd000_0000), vec![0xd000_0050]),
            (None, vec![]),
            (Some(u64::MAX), vec![]),
            (Some(0), vec![0x50]),
        ] {
            doorbell.attach(bar);
            assert_eq!(*book.attached.lock(), there, "{bar:x?}");
        }
        *book.refuses.lock() = true;
        doorbell.attach(Some(0x1000));
        assert!(book.attached.lock().is_empty() && book.ready.lock().is_none());
        *book.refuses.lock() = false;
        doorbell.attach(Some(0x2000));
        drop(doorbell);
        assert!(book.attached.lock().is_empty());
        assert!(book.ready.lock().is_none());
    }

    #[test]
    fn writes_raise_the_vector_once_unless_a_reset_comes_between() {
        let (book, doorbell, signalled) = doorbell();
        doorbell.attach(Some(0));
        let ready = book.ready.lock().clone().unwrap();
        let signal = |count| doorbell.bell.event.write(count).unwrap();
        signal(3);
        ready();
        assert_eq!(signalled.read().ok(), Some(1), "once for all writes");
        ready();
        assert!(signalled.read().is_err(), "nothing was written");
        doorbell.write();
        assert_eq!(signalled.read().ok(), Some(1), "a write that has exited");
        signal(1);
        doorbell.reset();
        ready();
        assert!(signalled.read().is_err(), "it was written before the reset");
    }
}
