//! Ports at which the write of one value resets the machine.

use crate::{EventSink, MachineEvent, PortDevice};

/// Command of the keyboard controller that pulses output line 0, which a PC wires to the processor's reset
/// (IBM PS/2 Hardware Interface Technical Reference, keyboard controller command 0xFE).
const PULSE_RESET: u8 = 0xfe;

/// One port; the right byte written there sends [`MachineEvent::Reset`]. It reads zero.
pub struct ResetPort {
    value: u8,
    events: EventSink,
}

impl ResetPort {
    /// The FADT's RESET_REG (ACPI 6.5 §4.8.3.6): `value` is the FADT's RESET_VALUE.
    pub fn acpi(value: u8, events: EventSink) -> ResetPort {
        ResetPort { value, events }
    }

    /// The keyboard controller's command port, usually 0x64, of which nothing but the reset pulse is there.
    ///
    /// Its status reads zero: ready for a command (Linux waits for that before it pulses), no key.
    pub fn keyboard(events: EventSink) -> ResetPort {
        ResetPort { value: PULSE_RESET, events }
    }
}

impl PortDevice for ResetPort {
    fn read(&self, _offset: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        if offset == 0 && data.first() == Some(&self.value) {
            (self.events)(MachineEvent::Reset);
        }
    }

    fn reset(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::recorder;

    #[test]
    fn only_the_value_resets() {
        let (events, seen) = recorder();
        let keyboard = ResetPort::keyboard(events.clone());
        let acpi = ResetPort::acpi(1, events);
        for (port, offset, data, resets) in [
            (&acpi, 0, &[1][..], true),
            (&acpi, 0, &[1, 0, 0, 0], true),
            (&acpi, 0, &[0], false),
            (&acpi, 0, &[0xfe], false),
            (&acpi, 1, &[1], false),
            (&acpi, 0, &[], false),
            (&keyboard, 0, &[0xfe], true),
            (&keyboard, 0, &[0xd1], false),
            (&keyboard, 0, &[1], false),
        ] {
            seen.lock().clear();
            port.write(offset, data);
            assert_eq!(!seen.lock().is_empty(), resets, "{offset} {data:x?}");
        }
    }

    #[test]
    fn the_keyboard_controller_is_ready_for_the_pulse() {
        let mut status = [0xff];
        ResetPort::keyboard(recorder().0).read(0, &mut status);
        assert_eq!(status, [0]);
    }
}
