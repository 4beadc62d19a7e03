use std::sync::Arc;

use passthru::pci::capability;
use passthru::pci::registers::COMMAND;
use proptest::prelude::*;

use super::registers::*;
use super::*;

fn windows() -> PortWindows {
    PortWindows {
        io: Some(0x2000..0x3000),
        memory: Some(0xc400_0000..0xc800_0000),
        prefetchable: Some(0x10_0000_0000..0x10_4000_0000),
    }
}

/// A port as the guest finds it at its start, with a card or without.
fn port(card: bool) -> Port {
    let mut port = Port::new(3);
    port.set_present(card);
    port.reset();
    port.preset(3, &windows());
    port
}

fn read(port: &Port, offset: u16, length: usize) -> u32 {
    let mut data = [0; 4];
    port.read(offset, &mut data[..length]);
    u32::from_le_bytes(data)
}

fn read16(port: &Port, offset: u16) -> u16 {
    read(port, offset, 2) as u16
}

fn write16(port: &mut Port, offset: u16, value: u16) -> Vec<PortEvent> {
    port.write(offset, &value.to_le_bytes())
}

fn write8(port: &mut Port, offset: u16, value: u8) -> Vec<PortEvent> {
    port.write(offset, &[value])
}

fn write32(port: &mut Port, offset: u16, value: u32) -> Vec<PortEvent> {
    port.write(offset, &value.to_le_bytes())
}

/// Sets and clears bits of a word.
fn change(port: &mut Port, offset: u16, clear: u16, set: u16) -> Vec<PortEvent> {
    let value = read16(port, offset) & !clear | set;
    write16(port, offset, value)
}

/// As Linux' pciehp does: events of button and link, and the message.
fn enable_events(port: &mut Port) {
    write32(port, MSI_ADDRESS, 0xfee0_1000);
    write32(port, MSI_ADDRESS + 4, 0);
    write16(port, MSI_DATA, 0x41);
    change(port, MSI_CONTROL, 0, MSI_ENABLE);
    change(port, SLOT_CONTROL, 0, SLOT_ENABLE_BUTTON | SLOT_ENABLE_LINK | SLOT_ENABLE_INTERRUPT);
}

const MESSAGE: PortEvent = PortEvent::Interrupt(MsiMessage { address: 0xfee0_1000, data: 0x41 });

#[test]
fn who_it_is() {
    let port = port(true);
    for (offset, length, value) in [
        (0x00, 4, 0x000c_1b36),
        (0x06, 2, 0x0010),
        (0x08, 4, 0x0604_0000),
        (0x0e, 1, 0x01),
        // No BARs, no ROM, no INTx pin.
        (0x10, 4, 0),
        (0x14, 4, 0),
        (0x38, 4, 0),
        (0x3d, 1, 0),
        // Version 2, root port, slot.
        (EXPRESS + 2, 2, 0x0142),
        (EXPRESS + 4, 4, 0x8000),
        // 16 GT/s x16, DLL active reporting, port 3.
        (EXPRESS + 0x0c, 4, 0x0350_0104),
        (LINK_STATUS, 2, 0x3104),
        // Slot 3: button, power, both indicators, surprise, hot-plug, no command completed.
        (EXPRESS + 0x14, 4, 3 << 19 | 0x0004_007b),
        (EXPRESS + 0x2c, 4, 0x1e),
        (EXPRESS + 0x30, 2, 4),
        // Advanced error reporting, version 2, and no other extended capability.
        (0x100, 4, 0x0002_0001),
        (0x10c, 4, 0x0046_2030),
        (0x12c, 4, 0),
        (0xffc, 4, 0),
    ] {
        assert_eq!(read(&port, offset, length), value, "{offset:#x}");
    }
    let mut bytes = vec![0; 256];
    port.read(0, &mut bytes);
    let found: Vec<(u8, u16)> =
        capability::walk(&bytes).0.iter().map(|found| (found.id, found.offset)).collect();
    assert_eq!(found, [(0x10, 0x40), (0x05, 0x80), (0x01, 0x90)]);
}

#[test]
fn errors_are_told_to_a_guest_that_listens() {
    let mut port = port(true);
    assert_eq!(port.signal_error(1), None);
    write32(&mut port, ROOT_ERROR_COMMAND, REPORT_FATAL);
    assert_eq!(port.signal_error(1), None, "no interrupts");
    enable_events(&mut port);
    change(&mut port, SLOT_STATUS, 0, u16::MAX);
    assert_eq!(port.signal_error(1), Some(vec![MESSAGE]));
    assert_eq!((read(&port, ROOT_ERROR_STATUS, 4), read(&port, 0x134, 4)), (0x54, 0x0301_0000));
    // The guest has not looked yet: one more, of which only that is known.
    assert_eq!(port.signal_error(0), Some(vec![]));
    assert_eq!((read(&port, ROOT_ERROR_STATUS, 4), read(&port, 0x134, 4)), (0x5c, 0x0301_0000));
    write32(&mut port, ROOT_ERROR_STATUS, 0x7f);
    assert_eq!(read(&port, ROOT_ERROR_STATUS, 4), 0);
    assert_eq!(port.signal_error(0), Some(vec![MESSAGE]));
    assert_eq!(read(&port, 0x134, 4), 0x0300_0000);
    // The bridge lets no errors through, or has no bus behind it.
    change(&mut port, BRIDGE_CONTROL, BRIDGE_CONTROL_SERR, 0);
    assert_eq!(port.signal_error(0), None);
    change(&mut port, BRIDGE_CONTROL, 0, BRIDGE_CONTROL_SERR | BRIDGE_CONTROL_RESET);
    assert_eq!(port.signal_error(0), None);
}

#[test]
fn preset_buses_and_windows_are_there_to_be_found() {
    let mut fresh = Port::new(3);
    fresh.set_present(true);
    assert_eq!(fresh.reset(), [PortEvent::Exchange(false)]);
    for (offset, length, value) in [
        (0x18, 4, 0),
        (0x1c, 2, 0x00f0),
        (0x20, 4, 0x0000_fff0),
        (0x24, 4, 0x0001_fff1),
        (0x28, 4, u32::MAX),
        (0x2c, 4, 0),
    ] {
        assert_eq!(read(&fresh, offset, length), value, "closed: {offset:#x}");
    }
    assert_eq!(fresh.preset(3, &windows()), [PortEvent::Buses(Some(3..=3)), PortEvent::Windows(windows())]);
    for (offset, length, value) in [
        (COMMAND, 2, 0x7),
        (0x18, 4, 0x0003_0300),
        (0x1c, 2, 0x2020),
        (0x20, 4, 0xc7f0_c400),
        (0x24, 4, 0x3ff1_0001),
        (0x28, 4, 0x10),
        (0x2c, 4, 0x10),
    ] {
        assert_eq!(read(&fresh, offset, length), value, "preset: {offset:#x}");
    }
    let events = fresh.reset();
    assert_eq!(events, [PortEvent::Buses(None), PortEvent::Windows(PortWindows::default())]);
    fresh.preset(3, &PortWindows { io: None, ..windows() });
    assert_eq!(read16(&fresh, IO_BASE), 0x00f0);
}

#[test]
fn buses_are_where_the_guest_says() {
    for (secondary, subordinate, buses) in [
        (5u8, 5u8, Some(5..=5)),
        (5, 9, Some(5..=9)),
        (255, 255, Some(255..=255)),
        (5, 4, None),
        (0, 0, None),
        (0, 9, None),
    ] {
        let mut port = port(true);
        let numbers = u32::from(secondary) << 8 | u32::from(subordinate) << 16;
        let events = write32(&mut port, PRIMARY_BUS, numbers);
        assert_eq!(events, [PortEvent::Buses(buses)], "{secondary} {subordinate}");
        assert_eq!(write32(&mut port, PRIMARY_BUS, numbers), [], "again");
    }
}

#[test]
fn windows_are_where_the_guest_says() {
    let whole = windows();
    let with = |change: fn(&mut PortWindows)| {
        let mut windows = windows();
        change(&mut windows);
        windows
    };
    for (writes, want) in [
        (&[(MEMORY_BASE, 4, 0xc41f_c410u32)][..], with(|w| w.memory = Some(0xc410_0000..0xc420_0000))),
        (&[(MEMORY_BASE, 4, 0x0000_fff0)], with(|w| w.memory = None)),
        (&[(MEMORY_BASE, 4, 0xffff_0000)], with(|w| w.memory = Some(0..1 << 32))),
        (&[(IO_BASE, 2, 0xf0f0)], with(|w| w.io = Some(0xf000..0x1_0000))),
        (&[(IO_BASE, 2, 0x00f0)], with(|w| w.io = None)),
        (
            &[(PREFETCHABLE_BASE_UPPER, 4, 0), (PREFETCHABLE_LIMIT_UPPER, 4, 0x20)],
            with(|w| w.prefetchable = Some(0..0x20_4000_0000)),
        ),
        (&[(PREFETCHABLE_LIMIT_UPPER, 4, 0)], with(|w| w.prefetchable = None)),
        (
            &[(PREFETCHABLE_LIMIT_UPPER, 4, u32::MAX), (PREFETCHABLE_BASE, 4, 0xffff_0000)],
            with(|w| w.prefetchable = Some(0x10_0000_0000..u64::MAX)),
        ),
        (&[(COMMAND, 2, 0x6)], with(|w| w.io = None)),
        (&[(COMMAND, 2, 0x5)], PortWindows { io: whole.io.clone(), ..PortWindows::default() }),
    ] {
        let mut port = port(true);
        let mut last = None;
        for (offset, length, value) in writes {
            last = port.write(*offset, &value.to_le_bytes()[..*length]).pop();
        }
        assert_eq!(last, Some(PortEvent::Windows(want)), "{writes:x?}");
    }
}

#[test]
fn a_reset_of_the_bus_takes_the_functions_away_while_it_lasts() {
    let mut port = port(true);
    let closed = [PortEvent::Buses(None), PortEvent::Windows(PortWindows::default()), PortEvent::LinkDown];
    assert_eq!(change(&mut port, BRIDGE_CONTROL, 0, BRIDGE_CONTROL_RESET), closed);
    assert_eq!(read16(&port, LINK_STATUS), LINK_SLOT_CLOCK);
    assert_eq!(change(&mut port, BRIDGE_CONTROL, 0, BRIDGE_CONTROL_RESET), [], "still");
    let open = [PortEvent::Buses(Some(3..=3)), PortEvent::Windows(windows())];
    assert_eq!(change(&mut port, BRIDGE_CONTROL, BRIDGE_CONTROL_RESET, 0), open);
    assert_eq!(read16(&port, LINK_STATUS), 0x3104);
    assert_eq!(read16(&port, SLOT_STATUS), SLOT_PRESENT | SLOT_LINK_CHANGED);

    assert_eq!(change(&mut port, LINK_CONTROL, 0, LINK_DISABLE), closed);
    assert_eq!(change(&mut port, LINK_CONTROL, LINK_DISABLE, 0), open);
    // Asleep it forwards nothing, but its link stays as it is.
    assert_eq!(change(&mut port, POWER_CONTROL, 0, 3), closed[..2]);
    assert_eq!(change(&mut port, POWER_CONTROL, 3, 0), open);
}

/// What Linux' pciehp does from the button to the empty slot, and back.
#[test]
fn a_card_is_asked_for_and_given() {
    let mut port = port(true);
    enable_events(&mut port);
    assert_eq!(port.press_attention(), [MESSAGE]);
    assert_eq!(read16(&port, SLOT_STATUS), SLOT_PRESENT | SLOT_BUTTON);
    assert_eq!(write16(&mut port, SLOT_STATUS, SLOT_BUTTON), []);
    assert_eq!(read16(&port, SLOT_STATUS), SLOT_PRESENT);
    // The power indicator blinks for five seconds; then the power goes.
    assert_eq!(change(&mut port, SLOT_CONTROL, 3 << 8, 2 << 8), []);
    assert!(port.is_blinking() && !port.permits_exchange());
    let events = change(&mut port, SLOT_CONTROL, 0, SLOT_POWER_OFF);
    let closed = [PortEvent::Buses(None), PortEvent::Windows(PortWindows::default()), PortEvent::LinkDown];
    assert_eq!(events[..3], closed);
    assert_eq!(events[3..], [MESSAGE]);
    assert!(port.is_present() && !port.has_power() && !port.permits_exchange());
    write16(&mut port, SLOT_STATUS, SLOT_LINK_CHANGED);
    // A second later the power indicator goes off.
    assert_eq!(change(&mut port, SLOT_CONTROL, 0, 3 << 8), [PortEvent::Exchange(true)]);

    assert_eq!(port.set_present(false), [], "with a button Linux wants no message for that");
    assert_eq!(read16(&port, SLOT_STATUS), SLOT_PRESENCE_CHANGED);
    write16(&mut port, SLOT_STATUS, SLOT_PRESENCE_CHANGED);

    assert_eq!(port.set_present(true), [MESSAGE]);
    assert_eq!(read16(&port, SLOT_STATUS), SLOT_PRESENT | SLOT_PRESENCE_CHANGED | SLOT_BUTTON);
    assert_eq!(port.set_present(true), [], "it is there");
    write16(&mut port, SLOT_STATUS, SLOT_PRESENCE_CHANGED | SLOT_BUTTON);
    let open =
        [PortEvent::Buses(Some(3..=3)), PortEvent::Windows(windows()), PortEvent::Exchange(false), MESSAGE];
    assert_eq!(change(&mut port, SLOT_CONTROL, SLOT_POWER_OFF, 0), open);
    // The indicator alone changes nothing.
    assert_eq!(change(&mut port, SLOT_CONTROL, 3 << 8, 1 << 8), []);
}

#[test]
fn a_card_that_is_pulled_out_is_not_reset() {
    let mut port = port(true);
    enable_events(&mut port);
    let events = port.set_present(false);
    assert_eq!(events, [PortEvent::Buses(None), PortEvent::Windows(PortWindows::default()), MESSAGE]);
    assert_eq!(read16(&port, SLOT_STATUS), SLOT_PRESENCE_CHANGED | SLOT_LINK_CHANGED);
    // One goes in while the power is on: the link comes up by itself.
    write16(&mut port, SLOT_STATUS, 0xffff);
    let open = [PortEvent::Buses(Some(3..=3)), PortEvent::Windows(windows()), MESSAGE];
    assert_eq!(port.set_present(true), open);
    assert_eq!(read16(&port, SLOT_STATUS), SLOT_PRESENT | SLOT_PRESENCE_CHANGED | SLOT_LINK_CHANGED);
}

#[test]
fn an_empty_slot_starts_without_power_and_a_full_one_with_it() {
    let (empty, full) = (port(false), port(true));
    assert_eq!(read16(&empty, SLOT_CONTROL), 0x7c0);
    assert_eq!(read16(&full, SLOT_CONTROL), 0x1c0);
    assert_eq!((read16(&empty, SLOT_STATUS), read16(&full, SLOT_STATUS)), (0, SLOT_PRESENT));
    assert_eq!((empty.has_power(), full.has_power()), (false, true));
    let mut taken = full.clone();
    change(&mut taken, SLOT_CONTROL, 0, SLOT_POWER_OFF);
    taken.reset();
    assert!(taken.has_power(), "a guest that starts anew finds its functions");
}

#[test]
fn a_message_is_sent_when_the_first_event_comes_and_it_may() {
    let mut port = port(true);
    enable_events(&mut port);
    assert_eq!(port.press_attention(), [MESSAGE]);
    assert_eq!(port.press_attention(), [], "one waits already");
    for (offset, bit) in [
        (SLOT_CONTROL, SLOT_ENABLE_INTERRUPT),
        (SLOT_CONTROL, SLOT_ENABLE_BUTTON),
        (MSI_CONTROL, MSI_ENABLE),
        (COMMAND, 1 << 2),
    ] {
        assert_eq!(change(&mut port, offset, bit, 0), [], "{offset:#x}");
        assert_eq!(change(&mut port, offset, 0, bit), [MESSAGE], "{offset:#x}");
    }
    assert_eq!(write16(&mut port, SLOT_STATUS, SLOT_PRESENCE_CHANGED), [], "another event's bit");
    assert_eq!(write16(&mut port, SLOT_STATUS, SLOT_BUTTON), []);
    assert_eq!(port.press_attention(), [MESSAGE]);
}

#[test]
fn bytes_are_written_as_well() {
    let mut port = port(true);
    assert_eq!(
        write8(&mut port, BRIDGE_CONTROL, BRIDGE_CONTROL_RESET as u8).last(),
        Some(&PortEvent::LinkDown)
    );
    write8(&mut port, SUBORDINATE_BUS, 7);
    assert_eq!(write8(&mut port, BRIDGE_CONTROL, 0)[0], PortEvent::Buses(Some(3..=7)),);
}

#[test]
fn events_arrive_in_order() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let port = RootPort::new(3, Box::new(move |event| tell.lock().push(event)));
    port.set_present(true);
    port.reset();
    port.preset(3, &windows());
    port.config_write(BRIDGE_CONTROL, &BRIDGE_CONTROL_RESET.to_le_bytes());
    let mut data = [0; 2];
    port.config_read(LINK_STATUS, &mut data);
    assert_eq!(
        (port.is_present(), port.is_powered(), u16::from_le_bytes(data)),
        (true, true, LINK_SLOT_CLOCK)
    );
    assert_eq!(
        *told.lock(),
        [
            PortEvent::Exchange(false),
            PortEvent::Buses(Some(3..=3)),
            PortEvent::Windows(windows()),
            PortEvent::Buses(None),
            PortEvent::Windows(PortWindows::default()),
            PortEvent::LinkDown,
        ]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Read(u16, usize),
    Write(u16, Vec<u8>),
    Present(bool),
    Press,
    Reset,
    Error(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let offset = || prop_oneof![8 => 0..0x100u16, 1 => 0..0x1000u16, 1 => any::<u16>()];
    prop_oneof![
        8 => (offset(), 0..5usize).prop_map(|(offset, length)| Step::Read(offset, length)),
        16 => (offset(), prop::collection::vec(any::<u8>(), 0..5))
            .prop_map(|(offset, data)| Step::Write(offset, data)),
        1 => any::<bool>().prop_map(Step::Present),
        1 => Just(Step::Press),
        1 => Just(Step::Reset),
        1 => any::<u8>().prop_map(Step::Error),
    ]
}

proptest! {
    /// Whatever is written, read-only bits keep their value, and what was told is what the registers say.
    #[test]
    fn any_guest(card in any::<bool>(), steps in prop::collection::vec(any_step(), 0..200)) {
        let mut port = port(card);
        let fixed: Vec<u8> = (0..256).map(|at| match at as u16 {
            // Who it is and what it can; without command, buses, windows, interrupt line, controls and status.
            0x04 | 0x05 | 0x0c | 0x18..=0x1d | 0x20..=0x2f | 0x3c | 0x3e => 0,
            0x48 | 0x50..=0x53 | 0x58..=0x5b | 0x70 | 0x82 | 0x84..=0x8d | 0x94 => 0,
            _ => 0xff,
        }).collect();
        let read = |port: &Port| {
            let mut bytes = vec![0; 256];
            port.read(0, &mut bytes);
            bytes
        };
        let start = read(&port);
        let (mut buses, mut forwarded) = (if card { Some(3..=3) } else { None }, PortWindows::default());
        if card {
            forwarded = windows();
        }
        for step in steps {
            let events = match step {
                Step::Read(offset, length) => {
                    port.read(offset, &mut vec![0; length]);
                    vec![]
                }
                Step::Write(offset, data) => port.write(offset, &data),
                Step::Present(present) => port.set_present(present),
                Step::Press => port.press_attention(),
                Step::Reset => port.reset(),
                Step::Error(devfn) => port.signal_error(devfn).unwrap_or_default(),
            };
            prop_assert!(events.len() <= 5);
            for event in events {
                match event {
                    PortEvent::Buses(now) => buses = now,
                    PortEvent::Windows(now) => forwarded = now,
                    PortEvent::LinkDown => prop_assert!(port.is_present() && buses.is_none()),
                    PortEvent::Exchange(now) => prop_assert_eq!(now, port.permits_exchange()),
                    PortEvent::Interrupt(message) => prop_assert_eq!(message.address & 3, 0),
                }
            }
            let now = read(&port);
            for (at, ((old, new), mask)) in start.iter().zip(&now).zip(&fixed).enumerate() {
                prop_assert_eq!(old & mask, new & mask, "{:#x}", at);
            }
            let link = u16::from_le_bytes([now[0x52], now[0x53]]) & LINK_ACTIVE != 0;
            prop_assert!(link || buses.is_none() && forwarded == PortWindows::default());
            if let Some(buses) = &buses {
                prop_assert_eq!((*buses.start(), *buses.end()), (now[0x19], now[0x1a]));
                prop_assert!(*buses.start() != 0 && !buses.is_empty());
            }
            for window in [&forwarded.io, &forwarded.memory, &forwarded.prefetchable].into_iter().flatten() {
                prop_assert!(!window.is_empty());
            }
        }
    }
}
