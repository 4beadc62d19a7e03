//! A PCI Express root port of the guest's, with a hot-plug slot (PCIe 6.0 §6.7, §7.5.1.3, §7.5.3).
//!
//! The guest gives it bus numbers and windows, as to any bridge: they say where the functions behind it are found. It
//! turns its slot's power off, and then the power indicator, when it has let go of them.
//!
//! Errors of the functions behind it reach the guest by its advanced error reporting, where the guest listens
//! ([`RootPort::signal_error`]).
//!
//! What is not there: PME, since nothing here makes any, and INTx, so a guest that drives the slot needs MSI. Whether the guest lets the port forward requests of the functions behind it (its bus master enable)
//! makes no difference: they do DMA without this port's help.

mod config_space;
mod port;
mod registers;
#[cfg(test)]
mod tests;

use std::ops::{Range, RangeInclusive};

use parking_lot::Mutex;
use passthru::pci::ConfigAccess;
use passthru::ports::MsiMessage;

use self::port::Port;

/// Speed of the link behind the port: 16 GT/s, as the Link registers code it (PCIe 6.0 §7.5.3.6).
pub const LINK_SPEED: u8 = 4;
/// Lanes of the link behind the port.
pub const LINK_WIDTH: u8 = 16;

/// The addresses that a port forwards. Memory windows begin and end at multiples of 1 MiB, the I/O window at multiples
/// of 4 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortWindows {
    /// Ports, 16 bits.
    pub io: Option<Range<u64>>,
    /// Memory below 4 GiB.
    pub memory: Option<Range<u64>>,
    /// Prefetchable memory, anywhere.
    pub prefetchable: Option<Range<u64>>,
}

/// What others must do about a change of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortEvent {
    /// The buses that lie behind it now; nothing when nothing leads there: the link is down, the port sleeps, or the
    /// guest has given it no bus numbers.
    Buses(Option<RangeInclusive<u8>>),
    /// The addresses that it forwards now.
    Windows(PortWindows),
    /// The link to the functions behind it went down, by a reset of the secondary bus, by the link's disable bit, or
    /// with the slot's power: they are reset (PCIe 6.0 §6.6.1).
    LinkDown,
    /// A card may be put into the slot or taken out of it now, or no longer ([`RootPort::permits_exchange`]).
    Exchange(bool),
    /// It signals an interrupt.
    Interrupt(MsiMessage),
}

/// Called with a port's events, in their order, with the port locked: it must not call the port, nor wait for a thread
/// that does. It may be called on a vCPU's thread, so it must not take long.
pub type PortSink = Box<dyn Fn(PortEvent) + Send + Sync>;

/// A root port.
pub struct RootPort {
    port: Mutex<Port>,
    sink: PortSink,
}

impl RootPort {
    /// A port in its state after power-on, its slot empty. `number`, 1 to 255, is the physical number of its slot, as
    /// guests show it.
    pub fn new(number: u8, sink: PortSink) -> RootPort {
        RootPort { port: Mutex::new(Port::new(number)), sink }
    }

    /// Back to the state after power-on, with the slot as full as it is. Bus numbers and windows are gone until
    /// [`RootPort::preset`]. The caller resets the functions behind it.
    pub fn reset(&self) {
        self.change(Port::reset);
    }

    /// Gives it bus number and windows and turns decoding on, as firmware does before the guest starts. Where
    /// `windows` has none, that window stays closed.
    pub fn preset(&self, secondary: u8, windows: &PortWindows) {
        self.change(|port| port.preset(secondary, windows));
    }

    /// A card is in the slot from now on, or is no longer. The guest is told; where a new card has no power, the
    /// attention button is pressed as well, for there are guests that look at nothing else (Linux with an attention
    /// button enables no presence interrupt).
    pub fn set_present(&self, present: bool) {
        self.change(|port| port.set_present(present));
    }

    /// Presses the attention button: asks the guest to let go of the card, or to take it back into use. A guest waits
    /// five seconds, in which a second press cancels the first (PCIe 6.0 §6.7.1.5).
    pub fn press_attention(&self) {
        self.change(Port::press_attention);
    }

    /// The function `devfn`, on the bus behind the port, has failed in a way that makes its link unreliable (ERR_FATAL,
    /// PCIe 6.0 §6.2.2.2.1). False when the guest does not listen to errors, or nothing leads there.
    pub fn signal_error(&self, devfn: u8) -> bool {
        let mut port = self.port.lock();
        let Some(events) = port.signal_error(devfn) else { return false };
        for event in events {
            (self.sink)(event);
        }
        true
    }

    /// A card is in the slot.
    pub fn is_present(&self) -> bool {
        self.port.lock().is_present()
    }

    /// The guest has the slot's power on.
    pub fn is_powered(&self) -> bool {
        self.port.lock().has_power()
    }

    /// A card may be put into the slot or taken out of it: its power is off, and so is the power indicator, which a guest
    /// turns off last (PCIe 6.0 §6.7.1.1.2). Linux waits a second in between, and takes no notice of cards that come or
    /// go in it.
    pub fn permits_exchange(&self) -> bool {
        self.port.lock().permits_exchange()
    }

    /// The power indicator blinks: the guest is about to turn the power off or on (PCIe 6.0 §6.7.1.1.2).
    pub fn is_blinking(&self) -> bool {
        self.port.lock().is_blinking()
    }

    fn change(&self, change: impl FnOnce(&mut Port) -> Vec<PortEvent>) {
        // The lock is held until everybody was told, so that two changes are told in the order in which they happened.
        let mut port = self.port.lock();
        for event in change(&mut port) {
            (self.sink)(event);
        }
    }
}

impl ConfigAccess for RootPort {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.port.lock().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        self.change(|port| port.write(offset, data));
    }
}
