//! Hearing of what masked vectors signal.
//!
//! Their eventfds are in an epoll set of the function's own, and the VMM watches that set: so a vector that is masked or
//! unmasked costs one call to the kernel and no turn of the event loop.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Weak};

use log::debug;
use parking_lot::Mutex;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::State;
use crate::ports::{EventPort, PortError, PortOperation, Ports, WatchId};

/// Signals that are looked at in one go; more come in the next turn of the event loop.
const AT_ONCE: usize = 64;

/// The eventfds of a function's masked vectors, watched until this is dropped.
pub(super) struct Masked {
    set: Arc<Epoll>,
    watch: WatchId,
    events: Arc<dyn EventPort>,
}

impl Masked {
    /// An empty set.
    pub(super) fn new(state: &Arc<Mutex<State>>, ports: &Ports) -> Result<Masked, PortError> {
        let set = Arc::new(Epoll::new().map_err(PortOperation::Watch.failed())?);
        let (of_watch, state) = (set.clone(), Arc::downgrade(state));
        // SAFETY: the set is closed after the watch has ended.
        let fd = unsafe { BorrowedFd::borrow_raw(set.as_raw_fd()) };
        let watch = ports.events.watch(fd, Arc::new(move || take(&of_watch, &state)))?;
        Ok(Masked { set, watch, events: ports.events.clone() })
    }

    /// From now on what `event`, the eventfd of `vector`, counts is read off.
    pub(super) fn add(&self, vector: u16, event: BorrowedFd<'_>) -> io::Result<()> {
        self.change(ControlOperation::Add, vector, event)
    }

    /// From now on `event` is not read any more. The caller holds the lock of the function's vectors, so nobody is about
    /// to.
    pub(super) fn remove(&self, event: BorrowedFd<'_>) {
        match self.change(ControlOperation::Delete, 0, event) {
            // A vector that was never masked, or pends, is not in the set.
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => debug!("epoll_ctl: {error}"),
            _ => {}
        }
    }

    fn change(&self, operation: ControlOperation, vector: u16, event: BorrowedFd<'_>) -> io::Result<()> {
        let watched = EpollEvent::new(EventSet::IN, vector.into());
        self.set.ctl(operation, event.as_raw_fd(), watched)
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        self.events.unwatch(self.watch);
    }
}

/// Makes signals pending bits.
fn take(set: &Epoll, state: &Weak<Mutex<State>>) {
    let mut found = [EpollEvent::default(); AT_ONCE];
    let Some(state) = state.upgrade() else { return };
    // A vector that is unmasked at this moment is out of the set once the lock is ours.
    let mut state = state.lock();
    let count = set.wait(0, &mut found).or_else(interrupted).unwrap_or(0);
    for event in found.iter().take(count) {
        let Ok(number) = u16::try_from(event.data()) else { continue };
        if state.vector(number).is_some_and(|vector| !vector.attached) {
            // Pending once, pending until it is unmasked: what comes after is of no interest, however much it is.
            state.look(number);
            if let Some(vector) = state.vector(number) {
                let _ = set.ctl(ControlOperation::Delete, vector.event.as_raw_fd(), EpollEvent::default());
            }
        }
    }
}

fn interrupted(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
}
