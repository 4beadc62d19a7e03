//! Vectors of hosts that signal eventfds: which eventfd and GSI a vector has, and when it has one.
//!
//! A vector gets an eventfd and a GSI when it is armed first, and keeps them until its kind is turned off. Masking
//! detaches the eventfd from the hypervisor and leaves it with the host: a signal is counted there, and the VMM's event
//! loop makes it the pending bit. An eventfd that is attached is never read: what it counts is the hypervisor's to
//! deliver.
//!
//! The guest may read MSI-X pending bits without an exit ([`PendingBits`]), beside whatever happens here. They change with
//! the vector's own `pending`, under the lock of the function's vectors, which gives each race one of two outcomes:
//!
//! * Masked and signalled at once: what comes before the eventfd is detached was delivered. What comes after is counted, and
//!   the event loop finds it as soon as the eventfd is in its set, also if it was counted before that.
//! * Signalled and unmasked at once: either the event loop takes the signal first and sets the bit, which the unmasking clears
//!   before the eventfd is attached, so before anything is delivered; or the eventfd has left the set, no bit is set, and
//!   what is counted is delivered.
//! * Signalled and turned off, or forgotten, at once: bit and eventfd go under the same lock. An event that the loop still has
//!   in hand then finds no vector, or another one of that number, whose own eventfd is what it looks at.
//! * Turned off and on again at once: the old set may be heard of once more after a new one was made. It finds eventfds of
//!   today by their number and reads what they have counted while masked, which is right whoever asks.

mod line;
mod masked;
mod trigger;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log::debug;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

pub use line::{EventfdLine, LineTriggers};
use masked::Masked;
pub use trigger::{Refused, Triggers};

use super::{Cause, HostError, MessageKind, Operation, PendingBits, VectorChange, VectorState};
use crate::pci::Slot;
use crate::ports::{Gsi, MsiMessage, PortError, Ports};

/// The vectors of a function.
pub struct EventfdVectors<T> {
    device: Arc<str>,
    slot: Slot,
    ports: Ports,
    triggers: T,
    state: Arc<Mutex<State>>,
    /// The eventfds of masked vectors, once there was one. Locked after the state; made and dropped without it, since its
    /// watch takes that.
    masked: Mutex<Option<Masked>>,
    /// Calls to the host's kernel.
    calls: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The kind that is on, and how many vectors it has.
    on: Option<(MessageKind, u16)>,
    vectors: Vec<Option<Vector>>,
    /// Vectors that the host has set up, from 0 on; 0 while its interrupts are off.
    live: u16,
    /// MSI-X pending bits where the guest reads them, for as long as the function is there.
    bits: Option<Arc<PendingBits>>,
}

struct Vector {
    event: EventFd,
    gsi: Gsi,
    message: Option<MsiMessage>,
    attached: bool,
    /// The host signals the eventfd.
    triggered: bool,
    /// Was signalled while masked; the eventfd has been read.
    pending: bool,
}

impl Vector {
    /// Reads the eventfd if the vector is masked.
    fn is_pending(&mut self) -> bool {
        // Non-blocking: fails when nothing is counted.
        self.pending |= !self.attached && self.event.read().is_ok();
        self.pending
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the eventfd that is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.event.as_raw_fd()) }
    }
}

impl State {
    /// The bits that go with the kind that is on.
    fn bits(&self) -> Option<&PendingBits> {
        self.bits.as_deref().filter(|_| matches!(self.on, Some((MessageKind::Msix, _))))
    }

    /// Reads a vector's eventfd if it is masked, and says whether it pends.
    fn look(&mut self, vector: u16) -> bool {
        let pends = self.vector_mut(vector).is_some_and(Vector::is_pending);
        if pends && let Some(bits) = self.bits() {
            bits.set(vector);
        }
        pends
    }

    /// Nobody hears of what some masked vector signals, so the guest's reads of its pending bits have to ask.
    fn give_up(&mut self) {
        if let Some(bits) = self.bits.take() {
            bits.give_up();
        }
    }

    fn vector(&self, vector: u16) -> Option<&Vector> {
        self.vectors.get(usize::from(vector))?.as_ref()
    }

    fn vector_mut(&mut self, vector: u16) -> Option<&mut Vector> {
        self.vectors.get_mut(usize::from(vector))?.as_mut()
    }
}

impl<T: Triggers> EventfdVectors<T> {
    /// None armed. `slot` is the function's place in the guest.
    pub fn new(device: Arc<str>, slot: Slot, ports: Ports, triggers: T) -> EventfdVectors<T> {
        let (state, masked, calls) = (Arc::default(), Mutex::default(), AtomicU64::new(0));
        EventfdVectors { device, slot, ports, triggers, state, masked, calls }
    }

    /// Calls to the host's kernel so far that set vectors up or took them down.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn error(&self, kind: MessageKind, vector: u16, source: impl Into<Cause>) -> HostError {
        let operation = Operation::Vector { kind, vector };
        HostError { device: self.device.clone(), operation, source: source.into() }
    }

    /// See [`super::HostFunction::set_vectors`].
    pub fn set(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        let is_watched =
            !changes.iter().any(|change| change.state == VectorState::Masked) || self.prepare_masked();
        let mut state = self.state.lock();
        if !is_watched && kind == MessageKind::Msix {
            state.give_up();
        }
        let mut errors = Vec::new();
        if state.on != Some((kind, count)) {
            if let Some((old, _)) = state.on
                && let Err(source) = self.take_down(&mut state, old)
            {
                errors.push(self.error(old, 0, source));
            }
            state.on = Some((kind, count));
            state.vectors.resize_with(usize::from(count), || None);
        }
        let mut armed = Vec::new();
        let mut routes_changed = false;
        for change in changes {
            let prepared = match change.state {
                VectorState::Masked => self.mask(&mut state, change.vector).map_err(Cause::from),
                VectorState::Armed(message) => {
                    self.prepare(&mut state, change.vector, message).map(|changed| {
                        routes_changed |= changed;
                        armed.push(change.vector);
                    })
                }
            };
            if let Err(source) = prepared {
                errors.push(self.error(kind, change.vector, source));
            }
        }
        // Routes first: an eventfd that is attached to a GSI without one would raise nothing.
        if routes_changed && let Err(error) = self.ports.interrupts.commit() {
            for vector in armed {
                errors.push(self.error(kind, vector, same(&error)));
                self.forget(&mut state, vector);
            }
            // What was forgotten is out of the table with this, or with whichever comes next.
            let _ = self.ports.interrupts.commit();
            return errors;
        }
        armed.retain(|vector| match self.attach(&mut state, *vector) {
            Ok(()) => true,
            Err(error) => {
                errors.push(self.error(kind, *vector, error));
                self.forget(&mut state, *vector);
                false
            }
        });
        let counted = trigger::Counted { triggers: &self.triggers, calls: &self.calls };
        for (vector, source) in trigger::point(&counted, &mut state, kind, &armed) {
            errors.push(self.error(kind, vector, source));
            self.forget(&mut state, vector);
        }
        errors
    }

    /// Gives the vector an eventfd and a GSI, if it has none, and the route that the message asks for; says whether a
    /// route changed.
    fn prepare(&self, state: &mut State, vector: u16, message: MsiMessage) -> Result<bool, Cause> {
        let entry =
            state.vectors.get_mut(usize::from(vector)).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        let entry = match entry {
            Some(entry) => entry,
            none => {
                let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
                let gsi = self.ports.interrupts.allocate(self.slot)?;
                let (message, attached, triggered, pending) = (None, false, false, false);
                none.insert(Vector { event, gsi, message, attached, triggered, pending })
            }
        };
        if entry.message == Some(message) {
            return Ok(false);
        }
        if let Err(error) = self.ports.interrupts.route(entry.gsi, message) {
            self.forget(state, vector);
            return Err(error.into());
        }
        entry.message = Some(message);
        Ok(true)
    }

    fn attach(&self, state: &mut State, vector: u16) -> Result<(), PortError> {
        let Some(entry) = state.vector_mut(vector).filter(|entry| !entry.attached) else { return Ok(()) };
        // From here on nobody but the hypervisor reads it.
        if let Some(masked) = &*self.masked.lock() {
            masked.remove(entry.fd());
        }
        // What was signalled while it was masked is delivered once, whatever its count: it is taken off here and
        // signalled anew, since a hypervisor may deliver what it finds without taking it off. A signal in between is
        // delivered by the attachment, so the pending bit is clear before that.
        let pending = entry.is_pending();
        entry.pending = false;
        if let Some(bits) = state.bits() {
            bits.clear(vector);
        }
        let Some(entry) = state.vector_mut(vector) else { return Ok(()) };
        self.ports.interrupts.attach(entry.gsi, entry.fd())?;
        entry.attached = true;
        if pending {
            let _ = entry.event.write(1);
        }
        Ok(())
    }

    fn mask(&self, state: &mut State, vector: u16) -> Result<(), PortError> {
        let Some(entry) = state.vector_mut(vector).filter(|entry| entry.attached) else { return Ok(()) };
        entry.attached = false;
        self.ports.interrupts.detach(entry.gsi, entry.fd())?;
        if let Some(masked) = &*self.masked.lock()
            && let Err(error) = masked.add(vector, entry.fd())
        {
            debug!("{}: watching a masked vector: {error}", self.device);
            state.give_up();
        }
        Ok(())
    }

    /// Lets the event loop hear of what masked vectors signal; false where it cannot. Those who ask for a pending bit are told
    /// right all the same, since the eventfd is looked at then.
    fn prepare_masked(&self) -> bool {
        if self.masked.lock().is_some() {
            return true;
        }
        let mut new = match Masked::new(&self.state, &self.ports) {
            Ok(new) => Some(new),
            Err(error) => {
                debug!("{}: watching masked vectors: {error}", self.device);
                return false;
            }
        };
        // Another call may have been quicker; then this one goes, without a lock.
        let mut masked = self.masked.lock();
        if masked.is_none() {
            *masked = new.take();
        }
        drop(masked);
        true
    }

    /// Gives back what a vector has.
    fn forget(&self, state: &mut State, vector: u16) {
        if let Some(entry) = state.vectors.get_mut(usize::from(vector)).and_then(Option::take) {
            if entry.attached {
                let _ = self.ports.interrupts.detach(entry.gsi, entry.fd());
            } else if let Some(masked) = &*self.masked.lock() {
                masked.remove(entry.fd());
            }
            self.ports.interrupts.release(entry.gsi);
            if let Some(bits) = state.bits() {
                bits.clear(vector);
            }
        }
    }

    fn take_down(&self, state: &mut State, kind: MessageKind) -> io::Result<()> {
        // The host first: afterwards nothing signals the eventfds that go.
        let done = if state.live > 0 {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.triggers.disable(kind)
        } else {
            Ok(())
        };
        for vector in 0..u16::try_from(state.vectors.len()).unwrap_or(u16::MAX) {
            self.forget(state, vector);
        }
        *state = State { bits: state.bits.take(), ..State::default() };
        done
    }

    /// See [`super::HostFunction::disable_vectors`].
    pub fn disable(&self, kind: MessageKind) -> Result<(), HostError> {
        let mut state = self.state.lock();
        if !matches!(state.on, Some((on, _)) if on == kind) {
            return Ok(());
        }
        let taken_down = self.take_down(&mut state, kind);
        drop(state);
        let masked = self.masked.lock().take();
        // Not under the state's lock, which the watch takes: its end waits for it.
        drop(masked);
        taken_down.map_err(|source| HostError {
            device: self.device.clone(),
            operation: Operation::DisableVectors(kind),
            source: source.into(),
        })
    }

    /// See [`super::HostFunction::is_pending`].
    pub fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        let mut state = self.state.lock();
        matches!(state.on, Some((on, _)) if on == kind) && state.look(vector)
    }

    /// See [`super::HostFunction::keep_pending`].
    pub fn keep_pending(&self, bits: Arc<PendingBits>) {
        self.state.lock().bits = Some(bits);
    }
}

/// A commit fails for all vectors alike.
fn same(error: &PortError) -> PortError {
    PortError { operation: error.operation, source: trigger::same(&error.source) }
}

impl<T> Drop for EventfdVectors<T> {
    fn drop(&mut self) {
        let vectors = std::mem::take(&mut self.state.lock().vectors);
        for entry in vectors.into_iter().flatten() {
            if entry.attached {
                let _ = self.ports.interrupts.detach(entry.gsi, entry.fd());
            }
            self.ports.interrupts.release(entry.gsi);
        }
    }
}
