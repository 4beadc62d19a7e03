//! Vectors of hosts that signal eventfds: which eventfd and GSI a vector has, and when it has one.
//!
//! A vector gets an eventfd and a GSI when it is armed first, and keeps them until its kind is turned off. Masking
//! detaches the eventfd from the hypervisor and leaves it with the host: a signal is counted there, and that is the
//! pending bit. What is counted while it is attached says nothing, since it has been delivered, and depending on the
//! kernel stays there (`irqfd_wakeup` in `virt/kvm/eventfd.c` takes it off since Linux 5.11, but not what it found when
//! the eventfd was attached).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{HostError, MessageKind, Operation, VectorChange, VectorState};
use crate::pci::Slot;
use crate::ports::{Gsi, MsiMessage, PortError, Ports};

/// The host's side of a kind of vectors: which eventfd each signals.
pub trait Triggers: Send + Sync {
    /// From now on the vectors from `first` on signal these eventfds, or nothing; with one call to the host's kernel.
    fn set(&self, kind: MessageKind, first: u16, events: &[Option<BorrowedFd<'_>>]) -> io::Result<()>;
    /// No vector of this kind signals anything.
    fn disable(&self, kind: MessageKind) -> io::Result<()>;
    /// Vectors that the host has.
    fn count(&self, kind: MessageKind) -> u16;
    /// Vectors beyond those of the first call can be set while they are live.
    fn is_dynamic(&self, kind: MessageKind) -> bool;
}

/// The vectors of a function.
pub struct EventfdVectors<T> {
    device: Arc<str>,
    slot: Slot,
    ports: Ports,
    triggers: T,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kind: Option<MessageKind>,
    vectors: Vec<Option<Vector>>,
    /// Vectors that the host has set up, from 0 on; 0 while its interrupts are off.
    live: u16,
}

struct Vector {
    event: EventFd,
    gsi: Gsi,
    message: Option<MsiMessage>,
    attached: bool,
    /// The host signals the eventfd.
    triggered: bool,
    /// Was signalled while masked; the eventfd has been read.
    pending: AtomicBool,
}

impl Vector {
    fn is_pending(&self) -> bool {
        // Non-blocking: fails when nothing is counted.
        if !self.attached && self.event.read().is_ok() {
            self.pending.store(true, Ordering::Release);
        }
        self.pending.load(Ordering::Acquire)
    }
}

fn fd(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the eventfd that is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

impl<T: Triggers> EventfdVectors<T> {
    /// None armed. `slot` is the function's place in the guest.
    pub fn new(device: Arc<str>, slot: Slot, ports: Ports, triggers: T) -> EventfdVectors<T> {
        EventfdVectors { device, slot, ports, triggers, state: Mutex::default() }
    }

    /// The host's side.
    pub fn triggers(&self) -> &T {
        &self.triggers
    }

    fn error(&self, kind: MessageKind, vector: u16, source: io::Error) -> HostError {
        HostError { device: self.device.clone(), operation: Operation::Vector { kind, vector }, source }
    }

    /// See [`super::HostFunction::set_vectors`].
    pub fn set(&self, kind: MessageKind, changes: &[VectorChange]) -> Vec<HostError> {
        let mut state = self.state.lock();
        let mut errors = Vec::new();
        if state.kind != Some(kind) {
            if let Some(old) = state.kind
                && let Err(source) = self.take_down(&mut state, old)
            {
                errors.push(self.error(old, 0, source));
            }
            state.kind = Some(kind);
        }
        let mut armed = Vec::new();
        let mut routes_changed = false;
        for change in changes {
            match change.state {
                VectorState::Masked => {
                    if let Err(error) = self.mask(&mut state, change.vector) {
                        errors.push(self.error(kind, change.vector, error.source));
                    }
                }
                VectorState::Armed(message) => match self.prepare(&mut state, kind, change.vector, message) {
                    Ok(changed) => {
                        routes_changed |= changed;
                        armed.push(change.vector);
                    }
                    Err(source) => errors.push(self.error(kind, change.vector, source)),
                },
            }
        }
        // Routes first: an eventfd that is attached to a GSI without one would raise nothing.
        if routes_changed && let Err(error) = self.ports.interrupts.commit() {
            for vector in armed {
                let source = io::Error::new(error.source.kind(), error.to_string());
                errors.push(self.error(kind, vector, source));
                self.forget(&mut state, vector);
            }
            return errors;
        }
        armed.retain(|vector| match self.attach(&mut state, *vector) {
            Ok(()) => true,
            Err(error) => {
                errors.push(self.error(
                    kind,
                    *vector,
                    io::Error::new(error.source.kind(), error.to_string()),
                ));
                false
            }
        });
        self.trigger(&mut state, kind, &armed, &mut errors);
        errors
    }

    /// The vector's eventfd and GSI, with the route that the message asks for; says whether a route changed.
    fn prepare(
        &self,
        state: &mut State,
        kind: MessageKind,
        vector: u16,
        message: MsiMessage,
    ) -> io::Result<bool> {
        let index = usize::from(vector);
        if vector >= self.triggers.count(kind) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.vectors.len() <= index {
            state.vectors.resize_with(index + 1, || None);
        }
        let Some(entry) = state.vectors.get_mut(index) else { return Ok(false) };
        if entry.is_none() {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            let gsi = self.ports.interrupts.allocate(self.slot).map_err(|e| e.source)?;
            *entry = Some(Vector {
                event,
                gsi,
                message: None,
                attached: false,
                triggered: false,
                pending: AtomicBool::new(false),
            });
        }
        let Some(entry) = entry else { return Ok(false) };
        if entry.message == Some(message) {
            return Ok(false);
        }
        entry.message = Some(message);
        self.ports.interrupts.route(entry.gsi, message);
        Ok(true)
    }

    fn attach(&self, state: &mut State, vector: u16) -> Result<(), PortError> {
        let Some(Some(entry)) = state.vectors.get_mut(usize::from(vector)) else { return Ok(()) };
        if entry.attached {
            return Ok(());
        }
        // What was signalled while it was masked is delivered once, whatever its count; taken off before, the count
        // is not found again when the vector is masked next. A signal in between is delivered by the attachment.
        let pending = entry.is_pending();
        self.ports.interrupts.attach(entry.gsi, fd(&entry.event))?;
        entry.attached = true;
        if pending {
            entry.pending.store(false, Ordering::Release);
            let _ = entry.event.write(1);
        }
        Ok(())
    }

    fn mask(&self, state: &mut State, vector: u16) -> Result<(), PortError> {
        match state.vectors.get_mut(usize::from(vector)) {
            Some(Some(entry)) if entry.attached => {
                // All that is counted has been delivered. Afterwards it could not be told from what comes then.
                let _ = entry.event.read();
                entry.attached = false;
                self.ports.interrupts.detach(entry.gsi, fd(&entry.event))
            }
            _ => Ok(()),
        }
    }

    /// Lets the host signal the eventfds of vectors that it does not signal yet.
    fn trigger(&self, state: &mut State, kind: MessageKind, armed: &[u16], errors: &mut Vec<HostError>) {
        let is_new = |state: &State, vector: u16| matches!(state.vectors.get(usize::from(vector)), Some(Some(v)) if !v.triggered);
        let mut new: Vec<u16> = armed.iter().copied().filter(|v| is_new(state, *v)).collect();
        new.sort_unstable();
        new.dedup();
        if new.is_empty() && state.live > 0 {
            return;
        }
        let (first, last) = (new.first().copied().unwrap_or(0), new.last().copied().unwrap_or(0));
        let mut runs: Vec<std::ops::RangeInclusive<u16>> = Vec::new();
        if state.live == 0 && kind == MessageKind::Msix && !self.triggers.is_dynamic(kind) {
            // The first call says how many vectors there will be, so it names them all.
            runs.push(0..=self.triggers.count(kind).saturating_sub(1).max(last));
        } else if state.live == 0 {
            // One call turns the interrupts on with all that is known; with nothing armed, vector 0 signals nothing.
            runs.push(0..=last);
        } else if last >= state.live && !self.triggers.is_dynamic(kind) {
            // More than were set up (MSI whose last vectors were masked when it was turned on): all anew, and one
            // signal each for what may have been lost meanwhile.
            let _ = self.triggers.disable(kind);
            for entry in state.vectors.iter_mut().flatten() {
                if std::mem::take(&mut entry.triggered) {
                    let _ = entry.event.write(1);
                }
            }
            state.live = 0;
            runs.push(0..=last);
        } else {
            // A vector that is signalled already is not set again: the host would drop and request its interrupt
            // anew, and a signal in between would be lost.
            let mut run = first..=first;
            for vector in new.iter().copied().skip(1) {
                if vector == run.end().saturating_add(1) {
                    run = *run.start()..=vector;
                } else {
                    runs.push(std::mem::replace(&mut run, vector..=vector));
                }
            }
            runs.push(run);
        }
        for run in runs {
            let events: Vec<Option<BorrowedFd<'_>>> = run
                .clone()
                .map(|v| state.vectors.get(usize::from(v)).and_then(Option::as_ref).map(|v| fd(&v.event)))
                .collect();
            let done = self.triggers.set(kind, *run.start(), &events);
            match done {
                Ok(()) => {
                    state.live = state.live.max(run.end().saturating_add(1));
                    for vector in run {
                        if let Some(Some(entry)) = state.vectors.get_mut(usize::from(vector)) {
                            entry.triggered = true;
                        }
                    }
                }
                Err(source) if new.is_empty() => errors.push(self.error(kind, 0, source)),
                Err(error) => {
                    for vector in run.filter(|v| new.contains(v)) {
                        let source = match error.raw_os_error() {
                            Some(errno) => io::Error::from_raw_os_error(errno),
                            None => io::Error::new(error.kind(), error.to_string()),
                        };
                        errors.push(self.error(kind, vector, source));
                        self.forget(state, vector);
                    }
                }
            }
        }
    }

    /// Gives back what a vector has.
    fn forget(&self, state: &mut State, vector: u16) {
        let _ = self.mask(state, vector);
        if let Some(entry) = state.vectors.get_mut(usize::from(vector)).and_then(Option::take) {
            self.ports.interrupts.release(entry.gsi);
        }
    }

    fn take_down(&self, state: &mut State, kind: MessageKind) -> io::Result<()> {
        // The host first: afterwards nothing signals the eventfds that go.
        let done = if state.live > 0 { self.triggers.disable(kind) } else { Ok(()) };
        state.live = 0;
        state.kind = None;
        for vector in 0..state.vectors.len() as u16 {
            self.forget(state, vector);
        }
        state.vectors.clear();
        done
    }

    /// See [`super::HostFunction::disable_vectors`].
    pub fn disable(&self, kind: MessageKind) -> Result<(), HostError> {
        let mut state = self.state.lock();
        if state.kind != Some(kind) {
            return Ok(());
        }
        self.take_down(&mut state, kind).map_err(|source| HostError {
            device: self.device.clone(),
            operation: Operation::DisableVectors(kind),
            source,
        })
    }

    /// See [`super::HostFunction::is_pending`].
    pub fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        let state = self.state.lock();
        state.kind == Some(kind)
            && matches!(state.vectors.get(usize::from(vector)), Some(Some(entry)) if entry.is_pending())
    }
}

impl<T> Drop for EventfdVectors<T> {
    fn drop(&mut self) {
        for entry in self.state.get_mut().vectors.iter_mut().filter_map(Option::take) {
            if entry.attached {
                let _ = self.ports.interrupts.detach(entry.gsi, fd(&entry.event));
            }
            self.ports.interrupts.release(entry.gsi);
        }
    }
}
