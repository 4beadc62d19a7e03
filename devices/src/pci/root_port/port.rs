//! What a root port does: registers in, events out. Nothing here does I/O.

use std::ops::{Range, RangeInclusive};

use passthru::pci::registers::{COMMAND, COMMAND_BUS_MASTER, COMMAND_IO, COMMAND_MEMORY};
use passthru::ports::MsiMessage;

use super::config_space::ConfigSpace;
use super::registers::*;
use super::{LINK_SPEED, LINK_WIDTH, PortEvent, PortWindows};

/// Granularity of memory windows, and of I/O windows.
const MEMORY_UNIT: u64 = 1 << 20;
const IO_UNIT: u64 = 1 << 12;

/// A root port without anybody to tell.
#[derive(Clone, Debug)]
pub(super) struct Port {
    number: u8,
    space: ConfigSpace,
    present: bool,
    /// What the registers amounted to after the last change.
    state: State,
}

/// What the registers amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    link: bool,
    exchange: bool,
    buses: Option<RangeInclusive<u8>>,
    windows: PortWindows,
    interrupt: bool,
    error: bool,
}

impl Port {
    pub fn new(number: u8) -> Port {
        let space = ConfigSpace::new(registers(number));
        let state = State { exchange: true, ..State::default() };
        Port { number, space, present: false, state }
    }

    pub fn read(&self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    pub fn write(&mut self, offset: u16, data: &[u8]) -> Vec<PortEvent> {
        self.space.write(offset, data);
        self.update()
    }

    /// Back to the state after power-on: a populated slot has power, an empty one has none. The functions behind it
    /// are not told; whoever resets the machine resets them as well.
    pub fn reset(&mut self) -> Vec<PortEvent> {
        self.space = ConfigSpace::new(registers(self.number));
        if self.present {
            self.space.set_u16(SLOT_CONTROL, SLOT_INDICATORS_POWERED);
        }
        let slot_status = if self.present { SLOT_PRESENT } else { 0 };
        self.space.set_u16(SLOT_STATUS, slot_status);
        // As if the link had been like this before, so that no change of it is reported.
        self.state.link = self.link();
        self.show_link();
        self.update()
    }

    /// Bus numbers and windows as firmware leaves them, and decoding on.
    pub fn preset(&mut self, secondary: u8, windows: &PortWindows) -> Vec<PortEvent> {
        let space = &mut self.space;
        space.set_u8(PRIMARY_BUS, 0);
        space.set_u8(SECONDARY_BUS, secondary);
        space.set_u8(SUBORDINATE_BUS, secondary);
        if let Some((base, limit)) = bounds(&windows.io, IO_UNIT) {
            space.set_u8(IO_BASE, (base >> 8) as u8 & 0xf0);
            space.set_u8(IO_LIMIT, (limit >> 8) as u8 & 0xf0);
        }
        if let Some((base, limit)) = bounds(&windows.memory, MEMORY_UNIT) {
            space.set_u16(MEMORY_BASE, (base >> 16) as u16 & 0xfff0);
            space.set_u16(MEMORY_LIMIT, (limit >> 16) as u16 & 0xfff0);
        }
        if let Some((base, limit)) = bounds(&windows.prefetchable, MEMORY_UNIT) {
            space.change_u16(PREFETCHABLE_BASE, 0xfff0, (base >> 16) as u16);
            space.change_u16(PREFETCHABLE_LIMIT, 0xfff0, (limit >> 16) as u16);
            space.set_u32(PREFETCHABLE_BASE_UPPER, (base >> 32) as u32);
            space.set_u32(PREFETCHABLE_LIMIT_UPPER, (limit >> 32) as u32);
        }
        space.change_u16(BRIDGE_CONTROL, BRIDGE_CONTROL_SERR, BRIDGE_CONTROL_SERR);
        let command = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        space.change_u16(COMMAND, command, command);
        self.update()
    }

    /// A card is put into the slot or pulled out of it.
    pub fn set_present(&mut self, present: bool) -> Vec<PortEvent> {
        if self.present == present {
            return Vec::new();
        }
        self.present = present;
        let state = if present { SLOT_PRESENT } else { 0 };
        self.space.change_u16(
            SLOT_STATUS,
            SLOT_PRESENT | SLOT_PRESENCE_CHANGED,
            state | SLOT_PRESENCE_CHANGED,
        );
        // Whoever put a card into a slot without power asks for power.
        if present && !self.has_power() {
            self.space.change_u16(SLOT_STATUS, SLOT_BUTTON, SLOT_BUTTON);
        }
        self.update()
    }

    pub fn press_attention(&mut self) -> Vec<PortEvent> {
        self.space.change_u16(SLOT_STATUS, SLOT_BUTTON, SLOT_BUTTON);
        self.update()
    }

    /// The function `devfn` on the secondary bus sends a fatal error message. Nothing when the guest does not listen.
    pub fn signal_error(&mut self, devfn: u8) -> Option<Vec<PortEvent>> {
        let secondary = *self.state.buses.as_ref()?.start();
        let passes_on = self.space.u16(BRIDGE_CONTROL) & BRIDGE_CONTROL_SERR != 0;
        if !passes_on || self.space.u32(ROOT_ERROR_COMMAND) & REPORT_FATAL == 0 || !self.sends_messages() {
            return None;
        }
        let mut status = self.space.u32(ROOT_ERROR_STATUS);
        if status & UNCORRECTABLE_RECEIVED == 0 {
            self.space.set_u16(ROOT_ERROR_SOURCE, u16::from_be_bytes([secondary, devfn]));
            status |= UNCORRECTABLE_RECEIVED | FIRST_FATAL;
        } else {
            status |= MULTIPLE_UNCORRECTABLE;
        }
        self.space.set_u32(ROOT_ERROR_STATUS, status | FATAL_RECEIVED);
        Some(self.update())
    }

    pub fn is_present(&self) -> bool {
        self.present
    }

    pub fn has_power(&self) -> bool {
        self.space.u16(SLOT_CONTROL) & SLOT_POWER_OFF == 0
    }

    pub fn permits_exchange(&self) -> bool {
        !self.has_power() && self.power_indicator() == SLOT_POWER_INDICATOR_OFF
    }

    pub fn is_blinking(&self) -> bool {
        self.power_indicator() == SLOT_POWER_INDICATOR_BLINKS
    }

    fn power_indicator(&self) -> u16 {
        self.space.u16(SLOT_CONTROL) & SLOT_POWER_INDICATOR
    }

    /// Whether the functions behind the port are connected to it.
    fn link(&self) -> bool {
        self.present
            && self.has_power()
            && self.space.u16(LINK_CONTROL) & LINK_DISABLE == 0
            && self.space.u16(BRIDGE_CONTROL) & BRIDGE_CONTROL_RESET == 0
    }

    fn show_link(&mut self) {
        let up = LINK_ACTIVE | u16::from(LINK_SPEED) | u16::from(LINK_WIDTH) << 4;
        let bits = if self.state.link { up } else { 0 };
        self.space.change_u16(LINK_STATUS, LINK_UP_BITS, bits);
    }

    /// Brings the status registers up to date, and gives what has changed for others.
    fn update(&mut self) -> Vec<PortEvent> {
        let before = self.state.clone();
        self.state.link = self.link();
        if self.state.link != before.link {
            self.show_link();
            self.space.change_u16(SLOT_STATUS, SLOT_LINK_CHANGED, SLOT_LINK_CHANGED);
        }
        // In D3hot a bridge forwards nothing (PCIe 6.0 §5.3.1.4.1).
        let forwards = self.state.link && self.is_awake();
        self.state.exchange = self.permits_exchange();
        self.state.buses = self.buses().filter(|_| forwards);
        self.state.windows = if forwards { self.windows() } else { PortWindows::default() };
        self.state.interrupt = self.interrupt();
        self.state.error = self.error();

        let now = &self.state;
        let mut events = Vec::new();
        // What closes, first; and nothing leads to functions when they are reset.
        if now.buses != before.buses {
            events.push(PortEvent::Buses(now.buses.clone()));
        }
        if now.windows != before.windows {
            events.push(PortEvent::Windows(now.windows.clone()));
        }
        if before.link && !now.link && self.present {
            events.push(PortEvent::LinkDown);
        }
        if now.exchange != before.exchange {
            events.push(PortEvent::Exchange(now.exchange));
        }
        if now.interrupt && !before.interrupt || now.error && !before.error {
            events.push(PortEvent::Interrupt(self.message()));
        }
        events
    }

    fn is_awake(&self) -> bool {
        self.space.u16(POWER_CONTROL) & POWER_STATE == 0
    }

    fn command(&self, bit: u16) -> bool {
        self.space.u16(COMMAND) & bit != 0
    }

    /// Bus 0 is the port's own, so it is never behind it.
    fn buses(&self) -> Option<RangeInclusive<u8>> {
        let (secondary, subordinate) = (self.space.u8(SECONDARY_BUS), self.space.u8(SUBORDINATE_BUS));
        (secondary != 0 && secondary <= subordinate).then_some(secondary..=subordinate)
    }

    fn windows(&self) -> PortWindows {
        let space = &self.space;
        let word = |offset| u64::from(space.u16(offset) & 0xfff0) << 16;
        let upper = |offset| u64::from(space.u32(offset)) << 32;
        let port = |offset| u64::from(space.u8(offset) & 0xf0) << 8;
        let memory = (word(MEMORY_BASE), word(MEMORY_LIMIT));
        let prefetchable = (
            word(PREFETCHABLE_BASE) | upper(PREFETCHABLE_BASE_UPPER),
            word(PREFETCHABLE_LIMIT) | upper(PREFETCHABLE_LIMIT_UPPER),
        );
        let io = (port(IO_BASE), port(IO_LIMIT));
        let decodes_memory = self.command(COMMAND_MEMORY);
        PortWindows {
            io: range(io, IO_UNIT).filter(|_| self.command(COMMAND_IO)),
            memory: range(memory, MEMORY_UNIT).filter(|_| decodes_memory),
            prefetchable: range(prefetchable, MEMORY_UNIT).filter(|_| decodes_memory),
        }
    }

    /// Whether an event waits and may be told: a message is sent each time this becomes so (PCIe 6.0 §6.7.3.4).
    fn interrupt(&self) -> bool {
        let (control, status) = (self.space.u16(SLOT_CONTROL), self.space.u16(SLOT_STATUS));
        let waits = [
            (SLOT_ENABLE_BUTTON, SLOT_BUTTON),
            (SLOT_ENABLE_PRESENCE, SLOT_PRESENCE_CHANGED),
            (SLOT_ENABLE_LINK, SLOT_LINK_CHANGED),
        ]
        .iter()
        .any(|(enable, event)| control & enable != 0 && status & event != 0);
        waits && control & SLOT_ENABLE_INTERRUPT != 0 && self.sends_messages()
    }

    /// Whether an error was received and may be told; again, a message is sent each time this becomes so.
    fn error(&self) -> bool {
        self.space.u32(ROOT_ERROR_COMMAND) & REPORT_FATAL != 0
            && self.space.u32(ROOT_ERROR_STATUS) & FATAL_RECEIVED != 0
            && self.sends_messages()
    }

    fn sends_messages(&self) -> bool {
        self.space.u16(MSI_CONTROL) & MSI_ENABLE != 0 && self.command(COMMAND_BUS_MASTER) && self.is_awake()
    }

    fn message(&self) -> MsiMessage {
        let address =
            u64::from(self.space.u32(MSI_ADDRESS)) | u64::from(self.space.u32(MSI_ADDRESS + 4)) << 32;
        MsiMessage { address, data: self.space.u16(MSI_DATA).into() }
    }
}

/// First and last unit of a window, as base and limit registers have them.
fn bounds(window: &Option<Range<u64>>, unit: u64) -> Option<(u64, u64)> {
    let window = window.as_ref().filter(|window| !window.is_empty())?;
    Some((window.start & !(unit - 1), (window.end - 1) & !(unit - 1)))
}

/// The window from base to limit, which names its last unit; none when the base is above it (PCIe 6.0 §7.5.1.3.8).
fn range((base, limit): (u64, u64), unit: u64) -> Option<Range<u64>> {
    (base <= limit).then(|| base..limit.saturating_add(unit))
}
