//! INTx of hosts that signal eventfds.
//!
//! The host masks the line with each signal. Where the hypervisor can tell of the guest's end of interrupt, it signals the
//! eventfd that unmasks, all in the kernel. Where it cannot, the line is sampled: while it is up, the host is asked to
//! unmask every now and then, and signals at once if the function still asserts. Nobody guesses at the guest's end of
//! interrupt; the price is that the guest may be interrupted again before the line is seen to be down.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::host::{Cause, HostError, Operation};
use crate::pci::Slot;
use crate::ports::{EventPort, Gsi, InterruptPort, PortError, PortOperation, Ports, WatchId};

/// The host's side of INTx: which eventfd it signals.
pub trait LineTriggers: Send + Sync {
    /// INTx is on: each assertion signals `trigger` once and masks the line, until `unmask` is signalled, where it is
    /// given, or [`LineTriggers::unmask`] is called. A line that is still asserted then signals anew.
    fn connect(&self, trigger: BorrowedFd<'_>, unmask: Option<BorrowedFd<'_>>) -> io::Result<()>;
    /// The line may signal again.
    fn unmask(&self) -> io::Result<()>;
    /// INTx is off, and signals nothing any more.
    fn disconnect(&self) -> io::Result<()>;
}

/// The INTx line of a function.
pub struct EventfdLine<T> {
    device: Arc<str>,
    slot: Slot,
    pin: u8,
    ports: Ports,
    triggers: Arc<T>,
    on: Mutex<Option<Delivery>>,
}

/// How the line reaches the guest while it is on.
enum Delivery {
    Resampled { gsi: Gsi, trigger: EventFd, _resample: EventFd },
    Sampled(Sampled),
}

fn event() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

fn borrowed(file: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as what is borrowed.
    unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }
}

impl<T: LineTriggers + 'static> EventfdLine<T> {
    /// Off. `slot` is the function's place in the guest, `pin` its interrupt pin, 1 to 4.
    pub fn new(device: Arc<str>, slot: Slot, pin: u8, ports: Ports, triggers: T) -> EventfdLine<T> {
        EventfdLine { device, slot, pin, ports, triggers: Arc::new(triggers), on: Mutex::default() }
    }

    /// See [`crate::host::HostFunction::set_intx`].
    pub fn set(&self, on: bool) -> Result<(), HostError> {
        let mut now = self.on.lock();
        let done = match (now.take(), on) {
            (None, true) => self.turn_on().map(|delivery| *now = Some(delivery)),
            (Some(delivery), false) => self.turn_off(delivery),
            (same, _) => {
                *now = same;
                Ok(())
            }
        };
        let operation = Operation::Intx(on);
        done.map_err(|source| HostError { device: self.device.clone(), operation, source })
    }

    fn turn_on(&self) -> Result<Delivery, Cause> {
        let interrupts = &self.ports.interrupts;
        let gsi = interrupts.line(self.slot, self.pin);
        let (trigger, resample) = (event()?, event()?);
        // The hypervisor first: what the host signals at once would wait, but nobody would unmask.
        if !interrupts.attach_line(gsi, borrowed(&trigger), borrowed(&resample))? {
            return Ok(Delivery::Sampled(Sampled::start(self, gsi, trigger)?));
        }
        match self.triggers.connect(borrowed(&trigger), Some(borrowed(&resample))) {
            Ok(()) => Ok(Delivery::Resampled { gsi, trigger, _resample: resample }),
            Err(error) => {
                let _ = interrupts.detach_line(gsi, borrowed(&trigger));
                Err(error.into())
            }
        }
    }

    /// The host first: afterwards nothing signals what goes.
    fn turn_off(&self, delivery: Delivery) -> Result<(), Cause> {
        let disconnected = self.triggers.disconnect();
        match delivery {
            Delivery::Resampled { gsi, trigger, .. } => {
                self.ports.interrupts.detach_line(gsi, borrowed(&trigger))?
            }
            Delivery::Sampled(sampled) => drop(sampled),
        }
        Ok(disconnected?)
    }
}

impl<T> Drop for EventfdLine<T> {
    fn drop(&mut self) {
        // The device's file is closed by now or closes next, and with it goes what signals.
        if let Some(Delivery::Resampled { gsi, trigger, .. }) = self.on.get_mut().take() {
            let _ = self.ports.interrupts.detach_line(gsi, borrowed(&trigger));
        }
    }
}

/// The line is looked at again so soon after it went up, when most guests are done with it, and later and later while it
/// stays up.
const FIRST_LOOK: Duration = Duration::from_micros(50);
const LAST_LOOK: Duration = Duration::from_millis(1);

/// A line of a hypervisor that does not tell of the guest's end of interrupt. It goes down when this is dropped.
struct Sampled {
    watches: [WatchId; 2],
    ports: Ports,
    slot: Slot,
    gsi: Gsi,
    _line: Arc<dyn Send + Sync>,
}

struct Line<T> {
    trigger: EventFd,
    timer: Mutex<Timer>,
    triggers: Arc<T>,
    interrupts: Arc<dyn InterruptPort>,
    slot: Slot,
    gsi: Gsi,
}

struct Timer {
    file: TimerFd,
    next: Duration,
}

impl Timer {
    fn start(&mut self, after: Duration) {
        self.next = (after * 2).min(LAST_LOOK);
        if let Err(error) = self.file.reset(after, None) {
            debug!("timerfd: {error}");
        }
    }
}

impl<T: LineTriggers + 'static> Line<T> {
    /// The host signalled.
    fn raise(&self) {
        if self.trigger.read().is_ok() {
            self.set(true);
            self.timer.lock().start(FIRST_LOOK);
        }
    }

    /// Is it still up?
    fn look(&self) {
        let next = {
            let mut timer = self.timer.lock();
            if timer.file.wait().is_err() {
                return;
            }
            timer.next
        };
        if let Err(error) = self.triggers.unmask() {
            debug!("unmasking INTx: {error}");
        }
        // A line that is still asserted has signalled by now.
        if self.trigger.read().is_ok() {
            self.timer.lock().start(next);
        } else {
            self.set(false);
        }
    }

    fn set(&self, raised: bool) {
        if let Err(error) = self.interrupts.set_line(self.gsi, self.slot, raised) {
            debug!("{error}");
        }
    }
}

impl Sampled {
    fn start<T: LineTriggers + 'static>(
        of: &EventfdLine<T>,
        gsi: Gsi,
        trigger: EventFd,
    ) -> Result<Sampled, Cause> {
        let watch = PortOperation::Watch;
        let file = TimerFd::new().map_err(io::Error::from).map_err(watch.failed())?;
        let (triggers, interrupts) = (of.triggers.clone(), of.ports.interrupts.clone());
        let timer = Mutex::new(Timer { file, next: FIRST_LOOK });
        let line = Arc::new(Line { trigger, timer, triggers, interrupts, slot: of.slot, gsi });
        let events = &of.ports.events;
        let (raise, look) = (line.clone(), line.clone());
        let raised = events.watch(borrowed(&line.trigger), Arc::new(move || raise.raise()))?;
        let timer = line.timer.lock().file.as_raw_fd();
        // SAFETY: the timer lives as long as the line, which is dropped after the watch has ended.
        let timer = unsafe { BorrowedFd::borrow_raw(timer) };
        let looked = match events.watch(timer, Arc::new(move || look.look())) {
            Ok(looked) => looked,
            Err(error) => return Err(unwatched(&**events, raised, error)),
        };
        let (ports, slot) = (of.ports.clone(), of.slot);
        let sampled = Sampled { watches: [raised, looked], ports, slot, gsi, _line: line.clone() };
        of.triggers.connect(borrowed(&line.trigger), None)?;
        Ok(sampled)
    }
}

fn unwatched(events: &dyn EventPort, watch: WatchId, error: PortError) -> Cause {
    events.unwatch(watch);
    error.into()
}

impl Drop for Sampled {
    fn drop(&mut self) {
        for watch in self.watches {
            self.ports.events.unwatch(watch);
        }
        let _ = self.ports.interrupts.set_line(self.gsi, self.slot, false);
    }
}
