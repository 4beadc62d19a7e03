//! Who stopped the guest, and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use devices::MachineEvent;
use parking_lot::{Condvar, Mutex};

/// Why the guest no longer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It switched itself off.
    PowerOff,
    /// It asked for a reset.
    Reset,
    /// It wrote this exit status to the debug-exit port.
    Exit(u8),
    /// A vCPU found no way to handle an exception.
    TripleFault {
        /// Local APIC id.
        vcpu: u32,
    },
    /// KVM could not go on.
    Kvm {
        /// Local APIC id.
        vcpu: u32,
        /// What it said.
        what: String,
    },
    /// A function failed, and the guest must not go on with it.
    Device {
        /// Which one, and how.
        what: String,
    },
    /// This program was asked to end, by a signal or from the console.
    Asked(&'static str),
    /// This program has a fault.
    Broken(&'static str),
}

impl From<MachineEvent> for Stop {
    fn from(event: MachineEvent) -> Stop {
        match event {
            MachineEvent::PowerOff => Stop::PowerOff,
            MachineEvent::Reset => Stop::Reset,
            MachineEvent::Exit(status) => Stop::Exit(status),
        }
    }
}

/// Stops the guest; the first who does says why.
#[derive(Default)]
pub struct Control {
    stopped: AtomicBool,
    cause: Mutex<Option<Stop>>,
    changed: Condvar,
}

impl Control {
    /// vCPUs are to leave their loops. One that is in guest mode does so at its next exit, or when it is kicked.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Stops the guest. Of a reset and an end that come together the end counts.
    pub fn stop(&self, cause: Stop) {
        let mut now = self.cause.lock();
        if matches!(*now, None | Some(Stop::Reset)) {
            *now = Some(cause);
        }
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits until somebody stops the guest.
    pub fn wait(&self) {
        let mut cause = self.cause.lock();
        while cause.is_none() {
            self.changed.wait(&mut cause);
        }
    }

    /// Why the guest was stopped.
    pub fn peek(&self) -> Option<Stop> {
        self.cause.lock().clone()
    }

    /// Why the guest was stopped; it may be started again afterwards.
    pub fn take(&self) -> Option<Stop> {
        let mut cause = self.cause.lock();
        self.stopped.store(false, Ordering::Release);
        cause.take()
    }
}

/// Stops the guest when the thread that holds it ends by a panic, which nobody else would notice.
pub struct StopOnPanic {
    control: Arc<Control>,
    panicked: &'static str,
}

impl StopOnPanic {
    /// For the thread of which `panicked` says that it did.
    pub fn new(control: Arc<Control>, panicked: &'static str) -> StopOnPanic {
        StopOnPanic { control, panicked }
    }

    /// What it stops.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.control.stop(Stop::Broken(self.panicked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_counts_except_that_an_end_outdoes_a_reset() {
        let control = Control::default();
        control.stop(Stop::Reset);
        control.stop(Stop::PowerOff);
        control.stop(Stop::Exit(3));
        assert!(control.is_stopped());
        assert_eq!(control.take(), Some(Stop::PowerOff));
        assert!(!control.is_stopped());
        assert_eq!(control.take(), None);
    }
}
