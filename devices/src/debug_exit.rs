//! A port that ends the program with an exit status, for guests that test themselves.

use crate::{EventSink, MachineEvent, PortDevice};

/// One port, usually 0xf4; the value `v` written there sends [`MachineEvent::Exit`] of `v << 1 | 1`, so that
/// a guest cannot report what looks like success by the host's conventions.
///
/// That is the rule of QEMU's isa-debug-exit. An exit status has eight bits: of `v`, of whatever width, the
/// low seven arrive. Reads zero.
pub struct DebugExit {
    events: EventSink,
}

impl DebugExit {
    /// A port whose writes go to `events`.
    pub fn new(events: EventSink) -> DebugExit {
        DebugExit { events }
    }
}

impl PortDevice for DebugExit {
    fn read(&self, _offset: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        // Little-endian: the first byte has the low bits at any width.
        if let (0, Some(low)) = (offset, data.first()) {
            (self.events)(MachineEvent::Exit(low << 1 | 1));
        }
    }

    fn reset(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::recorder;

    #[test]
    fn exit_status() {
        for (data, code) in [
            (&[0][..], 1),
            (&[0x10], 0x21),
            (&[0x7f], 0xff),
            (&[0x80], 1),
            (&[0x10, 0xff], 0x21),
            (&[0x11, 0xff, 0xff, 0xff], 0x23),
        ] {
            let (events, seen) = recorder();
            DebugExit::new(events).write(0, data);
            assert_eq!(*seen.lock(), [MachineEvent::Exit(code)], "{data:x?}");
        }
    }

    #[test]
    fn other_offsets_and_reads_do_nothing() {
        let (events, seen) = recorder();
        let port = DebugExit::new(events);
        port.write(1, &[0]);
        port.write(0, &[]);
        port.read(0, &mut [0]);
        assert!(seen.lock().is_empty());
    }
}
