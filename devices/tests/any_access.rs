//! Whatever a guest does at a device, it neither panics nor hangs.

// clippy.toml's exception for tests does not reach their helpers in this folder.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use devices::acpi_pm::{Pm1, PmTimer, TimerWidth};
use devices::debug_exit::DebugExit;
use devices::pci::{Cf8, Ecam, Topology};
use devices::reset::ResetPort;
use devices::rtc::Rtc;
use devices::serial::Serial;
use devices::{EventSink, PortDevice};
use passthru::pci::{ConfigAccess, Slot};
use proptest::prelude::*;

/// A function that checks what decoders promise it.
struct Strict;

impl Strict {
    fn check(offset: u16, length: usize) {
        assert!(offset < 4096 && matches!(length, 1 | 2 | 4), "{length} bytes at {offset:#x}");
        assert!(usize::from(offset % 4) + length <= 4, "{length} bytes at {offset:#x} cross a dword");
    }
}

impl ConfigAccess for Strict {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        Strict::check(offset, data.len());
        data.fill(0x5a);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        Strict::check(offset, data.len());
    }
}

fn topology() -> Arc<Topology> {
    let mut builder = Topology::builder();
    for (bus, device, function) in [(0, 8, 0), (0, 8, 1), (3, 0, 0), (255, 31, 0), (255, 31, 7)] {
        builder.add(Slot::new(bus, device, function).unwrap(), Arc::new(Strict));
    }
    Arc::new(builder.build().unwrap())
}

fn devices() -> Vec<Box<dyn PortDevice>> {
    let events: EventSink = Arc::new(|_| {});
    let pm1 = Pm1::new(5, events.clone(), |_| {});
    let serial = Serial::new(|| {}, std::io::sink(), || {});
    serial.enqueue(&[0x41; 100]);
    vec![
        Box::new(Cf8::new(topology(), events.clone())),
        Box::new(serial),
        Box::new(Rtc::new()),
        Box::new(Rtc::with_clock(|| Duration::MAX)),
        Box::new(pm1.event_block()),
        Box::new(pm1.control_block()),
        Box::new(PmTimer::new(TimerWidth::Bits32)),
        Box::new(PmTimer::with_clock(TimerWidth::Bits24, || Duration::MAX)),
        Box::new(ResetPort::acpi(1, events.clone())),
        Box::new(ResetPort::keyboard(events.clone())),
        Box::new(DebugExit::new(events)),
    ]
}

#[derive(Clone, Debug)]
enum Access {
    Read(u16, usize),
    Write(u16, Vec<u8>),
    Reset,
}

fn any_access() -> impl Strategy<Value = Access> {
    let offset = || prop_oneof![8 => 0..9u16, 1 => any::<u16>(), 1 => 0xfff8..=u16::MAX];
    // Lengths beyond what an I/O instruction has, too.
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 1),
        prop::collection::vec(any::<u8>(), 2),
        prop::collection::vec(any::<u8>(), 4),
        prop::collection::vec(any::<u8>(), 0..10),
        // CONFIG_ADDRESS with the enable bit, of slots that are there among others.
        (any::<bool>(), any::<u8>())
            .prop_map(|(there, register)| { vec![register, if there { 0x40 } else { 0x50 }, 0, 0x80] }),
    ];
    prop_oneof![
        10 => (offset(), prop_oneof![8 => prop::sample::select(vec![1usize, 2, 4]), 1 => 0..10usize])
            .prop_map(|(offset, length)| Access::Read(offset, length)),
        10 => (offset(), data).prop_map(|(offset, data)| Access::Write(offset, data)),
        1 => Just(Access::Reset),
    ]
}

proptest! {
    #[test]
    fn at_ports(accesses in prop::collection::vec(any_access(), 1..200)) {
        for device in devices() {
            for access in &accesses {
                match access {
                    Access::Read(offset, length) => device.read(*offset, &mut vec![0; *length]),
                    Access::Write(offset, data) => device.write(*offset, data),
                    Access::Reset => device.reset(),
                }
            }
        }
    }

    #[test]
    fn in_ecam(
        offset in prop_oneof![0..0x50_0000u64, any::<u64>(), (256u64 << 20) - 8..=256 << 20, u64::MAX - 8..=u64::MAX],
        length in 0..20usize,
    ) {
        let ecam = Ecam::new(topology());
        let mut data = vec![0; length];
        ecam.read(offset, &mut data);
        ecam.write(offset, &data);
        for (at, byte) in (offset..=u64::MAX).zip(&data) {
            let slot = devices::pci::ecam::decode(at).map(|(slot, _)| slot);
            let strict = slot.is_some_and(|slot| {
                slot.requester_id() != 0 && topology().routes().get(slot).is_some()
            });
            prop_assert_eq!(*byte == 0x5a, strict, "{:#x}", at);
        }
    }
}
