//! INTx of the simulated function: a line that is up until the guest acknowledges, as a kernel would hand it on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::host::eventfd::LineTriggers;
use crate::ports::{EventPort, WatchId};

/// The line.
pub struct SimulatedLine {
    state: Mutex<State>,
    events: Arc<dyn EventPort>,
    own: Weak<SimulatedLine>,
}

#[derive(Default)]
struct State {
    /// The function asserts it.
    asserted: bool,
    /// The command register's INTx disable.
    disabled: bool,
    /// It signalled, and was not unmasked since.
    masked: bool,
    trigger: Option<File>,
    unmask: Option<(WatchId, File)>,
}

impl State {
    fn settle(&mut self) {
        if self.asserted
            && !self.disabled
            && !self.masked
            && let Some(trigger) = &mut self.trigger
        {
            self.masked = true;
            // Fails only when the count is at its end, and then it is signalled all the same.
            let _ = trigger.write_all(&1u64.to_ne_bytes());
        }
    }
}

impl SimulatedLine {
    /// Down.
    pub fn new(events: Arc<dyn EventPort>) -> Arc<SimulatedLine> {
        Arc::new_cyclic(|own| SimulatedLine { state: Mutex::default(), events, own: own.clone() })
    }

    /// The function asserts the line, or no longer.
    pub fn assert(&self, asserted: bool) {
        let mut state = self.state.lock();
        state.asserted = asserted;
        state.settle();
    }

    /// The status register's interrupt bit.
    pub fn is_asserted(&self) -> bool {
        self.state.lock().asserted
    }

    /// INTx disable of the command register.
    pub fn disable(&self, disabled: bool) {
        let mut state = self.state.lock();
        state.disabled = disabled;
        state.settle();
    }

    fn unmask_signalled(&self) {
        let mut state = self.state.lock();
        let mut count = [0; 8];
        if state.unmask.as_mut().is_some_and(|(_, unmask)| unmask.read(&mut count).is_ok()) {
            state.masked = false;
            state.settle();
        }
    }
}

impl LineTriggers for Arc<SimulatedLine> {
    fn connect(&self, trigger: BorrowedFd<'_>, unmask: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let trigger = File::from(trigger.try_clone_to_owned()?);
        let unmask = match unmask {
            None => None,
            Some(unmask) => {
                let (unmask, own) = (File::from(unmask.try_clone_to_owned()?), self.own.clone());
                let ready = move || {
                    if let Some(line) = own.upgrade() {
                        line.unmask_signalled();
                    }
                };
                let watch =
                    self.events.watch(unmask.as_fd(), Arc::new(ready)).map_err(|error| error.source)?;
                Some((watch, unmask))
            }
        };
        let mut state = self.state.lock();
        (state.trigger, state.unmask, state.masked) = (Some(trigger), unmask, false);
        state.settle();
        Ok(())
    }

    fn unmask(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.masked = false;
        state.settle();
        Ok(())
    }

    fn disconnect(&self) -> io::Result<()> {
        let unmask = {
            let mut state = self.state.lock();
            (state.trigger, state.masked) = (None, false);
            state.unmask.take()
        };
        // Not under the lock, which the watch takes.
        if let Some((watch, _unmask)) = unmask {
            self.events.unwatch(watch);
        }
        Ok(())
    }
}
