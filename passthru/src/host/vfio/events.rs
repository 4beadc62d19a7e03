//! What the kernel tells of a device by itself: that it failed, and that the host wants it back.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use log::debug;
use parking_lot::Mutex;
use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::ioctl::irqs;
use crate::host::{Cause, HostEvent, Listener};
use crate::ports::{Ports, WatchId};

/// The events that are listened to, until this is dropped.
pub struct Events {
    device: Arc<File>,
    ports: Ports,
    watched: Mutex<Vec<Watched>>,
}

struct Watched {
    index: u32,
    watch: WatchId,
    _event: Arc<EventFd>,
}

fn index(event: HostEvent) -> u32 {
    match event {
        HostEvent::Error => VFIO_PCI_ERR_IRQ_INDEX,
        HostEvent::Request => VFIO_PCI_REQ_IRQ_INDEX,
    }
}

impl Events {
    /// None.
    pub fn new(device: Arc<File>, ports: Ports) -> Events {
        Events { device, ports, watched: Mutex::default() }
    }

    /// The kernel has this event for the device.
    pub fn has(device: &File, event: HostEvent) -> bool {
        irqs::irq_info(device, index(event)).0 > 0
    }

    /// Lets `listener` hear of an event instead of whoever did before.
    pub fn listen(&self, event: HostEvent, listener: Listener) -> Result<(), Cause> {
        let index = index(event);
        self.stop(|watched| watched.index == index);
        let signal = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let ready = signal.clone();
        // Watched before the kernel has it: it signals at once what happened already.
        let watch = self.ports.events.watch(
            borrowed(&signal),
            Arc::new(move || {
                // The kernel repeats a request every now and then; however many were counted, they say the same.
                if ready.read().is_ok() {
                    listener(event);
                }
            }),
        )?;
        if let Err(error) = irqs::set_eventfd(&self.device, index, borrowed(&signal)) {
            self.ports.events.unwatch(watch);
            return Err(error.into());
        }
        self.watched.lock().push(Watched { index, watch, _event: signal });
        Ok(())
    }

    fn stop(&self, which: impl Fn(&Watched) -> bool) {
        // Not under the lock, since the end of a watch is waited for.
        let stopped: Vec<Watched> = self.watched.lock().extract_if(.., |watched| which(watched)).collect();
        for Watched { index, watch, .. } in stopped {
            if let Err(error) = irqs::disable_irqs(&self.device, index) {
                debug!("VFIO_DEVICE_SET_IRQS of interrupt index {index}: {error}");
            }
            self.ports.events.unwatch(watch);
        }
    }
}

fn borrowed(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the eventfd that is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop(|_| true);
    }
}
