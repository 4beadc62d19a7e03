//! The rules, bit by bit: what a guest finds of capabilities whose bits are all ones.

mod express;

use super::*;
use crate::function::registers::Register;
use crate::pci::capability::{read_u32, walk, walk_extended};

const ALL: Offer = Offer { reset: true, intx: true, power_states: true };

/// Where the tests have their capability.
const BASE: u16 = 0x50;

/// A configuration space of zeros with one capability: its id, and what follows id and pointer.
fn space(id: u8, body: &[u8]) -> Vec<u8> {
    let mut config = vec![0; EXPRESS_SIZE];
    config[usize::from(STATUS)] = STATUS_CAPABILITIES as u8;
    config[usize::from(CAPABILITIES)] = BASE as u8;
    config[usize::from(BASE)] = id;
    config[usize::from(BASE) + 2..][..body.len()].copy_from_slice(body);
    config
}

fn built_as(config: &[u8], place: Place, offer: Offer, quirks: &Quirks) -> Built {
    let (list, extended) = (walk(config).0, walk_extended(config).0);
    let shape = Shape { place, ..Shape::default() };
    build(config, &[], &list, &extended, shape, offer, quirks, |_| true)
}

fn built(config: &[u8]) -> Built {
    built_as(config, Place::RootBus, ALL, &Quirks::default())
}

fn shows(built: &Built) -> bool {
    built.registers.dword(CAPABILITIES).shadow != 0
}

/// What a guest reads at `at` of the capability, with live bits as ones, and what it can write or has forwarded.
fn bits(built: &Built, at: u16) -> (u32, u32, u32) {
    let r = built.registers.dword(BASE + at);
    (r.shadow | r.live, r.writable, r.forward)
}

#[test]
fn capabilities_that_are_not_in_the_table_are_hidden_with_their_bodies() {
    use capability_id::*;
    let shown = [POWER, VPD, MSI, PCI_X, VENDOR, DEBUG_PORT, SUBSYSTEM, MSIX, SATA, ADVANCED_FEATURES];
    for id in 0..=0xff {
        let config = space(id, &[0xff; 0xae]);
        let built = built(&config);
        // All ones say that an Express capability is of no type that there is.
        assert_eq!(shows(&built), shown.contains(&id), "{id:#x}");
        if !shows(&built) {
            for offset in (BASE..BASE + walk(&config).0[0].len).step_by(4) {
                assert_eq!(built.registers.dword(offset), Register::default(), "{id:#x} at {offset:#x}");
            }
            assert_eq!(built.registers.dword(STATUS).shadow >> 16 & 0x10, 0, "no list");
        }
    }
}

#[test]
fn extended_capabilities_that_are_not_in_the_table_are_hidden_with_their_bodies() {
    for id in (0..=0x40).chain([0x7fff, 0xfffe]) {
        let mut config = vec![0xff; EXPRESS_SIZE];
        config[0x100..0x104].copy_from_slice(&(1 << 16 | u32::from(id)).to_le_bytes());
        let built = built(&config);
        let (len, live) = match id {
            extended_id::AER => (0x48, u32::MAX),
            extended_id::SERIAL_NUMBER => (0x0c, 0),
            extended_id::VENDOR => (0xf00, u32::MAX),
            _ => (0, 0),
        };
        for offset in (0x104..0x1000).step_by(4) {
            let r = built.registers.dword(offset);
            let inside = offset < 0x100 + len;
            assert_eq!(
                (r.shadow != 0, r.live),
                (inside, if inside { live } else { 0 }),
                "{id:#x} {offset:#x}"
            );
            assert_eq!((r.writable, r.forward), (0, 0), "{id:#x} at {offset:#x} is read-only");
        }
        assert_eq!(built.registers.dword(0x100).shadow as u16, if len == 0 { 0 } else { id }, "{id:#x}");
    }
}

#[test]
fn the_header_shows_and_takes_these_bits() {
    let mut config = vec![0xff; EXPRESS_SIZE];
    config[usize::from(INTERRUPT_PIN)] = 4;
    for (name, offset, read, write, forward) in [
        ("ids", 0x00, u32::MAX, 0, 0),
        ("command and status", 0x04, 0xffa8_0000 & !0x10_0000, 0x0544, 0xf900_0000),
        ("class", 0x08, u32::MAX, 0, 0),
        ("cache line; no latency timer, multi-function bit or self-test", 0x0c, 0x007f_0000, 0xff, 0),
        ("no ROM without a BAR for it", 0x30, 0, 0, 0),
        ("pointer to capabilities", 0x34, 0, 0, 0),
        ("reserved", 0x38, 0, 0, 0),
        ("interrupt line and pin", 0x3c, 0xffff_0400, 0xff, 0),
    ] {
        let r = build(&config, &[], &[], &[], Shape::default(), ALL, &Quirks::default(), |_| true).registers;
        let r = r.dword(offset);
        assert_eq!((r.shadow | r.live, r.writable, r.forward), (read, write, forward), "{name}");
    }
}

#[test]
fn the_interrupt_pin_shows_where_intx_works() {
    let broken = Quirks { no_intx: true, ..Quirks::default() };
    for (name, pin, offer, quirks, shown) in [
        ("INTA", 1, ALL, Quirks::default(), 1),
        ("INTD", 4, ALL, Quirks::default(), 4),
        ("none", 0, ALL, Quirks::default(), 0),
        ("a fifth", 5, ALL, Quirks::default(), 0),
        ("not offered", 1, Offer { intx: false, ..ALL }, Quirks::default(), 0),
        ("broken", 1, ALL, broken, 0),
    ] {
        let mut config = space(capability_id::NULL, &[]);
        config[usize::from(INTERRUPT_PIN)] = pin;
        let registers = built_as(&config, Place::RootBus, offer, &quirks).registers;
        assert_eq!(registers.dword(INTERRUPT_PIN).shadow >> 8 & 0xff, shown, "{name}");
        let live = registers.dword(STATUS).live >> 16 & u32::from(STATUS_INTERRUPT);
        assert_eq!(live != 0, shown != 0, "{name}: the status is the function's");
    }
    let unmaskable = Quirks { intx_unmaskable: true, ..Quirks::default() };
    let registers = built_as(&space(0, &[]), Place::RootBus, ALL, &unmaskable).registers;
    assert_eq!(
        registers.dword(COMMAND).writable & 0x400,
        0,
        "a disable bit that does not work cannot be set"
    );
}

#[test]
fn a_rom_bar_has_an_enable_bit() {
    use crate::pci::bar::{BarKind, ROM};
    let rom = Bar { index: ROM, kind: BarKind::Memory32 { prefetchable: false }, size: 0x8000 };
    let config = space(0, &[]);
    let none = Quirks::default();
    let registers = build(&config, &[rom], &[], &[], Shape::default(), ALL, &none, |_| true).registers;
    let r = registers.dword(ROM_BAR);
    assert_eq!((r.shadow, r.writable, r.live), (0, 0xffff_8001, 0));
    assert_eq!(registers.dword(COMMAND).writable & 0x3, u32::from(COMMAND_MEMORY));
}

#[test]
fn power_management_shows_states_and_nothing_that_wakes() {
    let config = space(capability_id::POWER, &[0xff; 6]);
    let passed = built(&config);
    assert_eq!(passed.controls.power, Some(BASE + 4));
    // Version, immediate readiness, device-specific initialization; no clock for PME, auxiliary current, D1, D2, PME.
    assert_eq!(bits(&passed, 0), (0x0037_0000 | 0x01, 0, 0));
    assert_eq!(bits(&passed, 4), (0x8, 0x3, 0), "no soft reset as the function has it, the state");
    let soft = space(capability_id::POWER, &[0; 6]);
    assert_eq!(bits(&built(&soft), 4), (0, 0x3, 0));
    let kept = Offer { power_states: false, ..ALL };
    let kept = built_as(&soft, Place::RootBus, kept, &Quirks::default());
    assert_eq!(bits(&kept, 4), (0x8, 0x3, 0), "a function that stays in D0 keeps its registers");
}

#[test]
fn function_level_reset_shows_where_it_works() {
    let lies = Quirks { no_flr: true, ..Quirks::default() };
    let no_reset = Offer { reset: false, ..ALL };
    let with = express::capability(2, 0);
    let mut without = with.clone();
    without[usize::from(BASE) + 7] &= !0x10;
    for (name, config, offer, quirks, shown) in [
        ("it has it", &with, ALL, Quirks::default(), true),
        ("it has none", &without, ALL, Quirks::default(), false),
        ("the host cannot", &with, no_reset, Quirks::default(), false),
        ("it lies", &with, ALL, lies, false),
    ] {
        let built = built_as(config, Place::RootBus, offer, &quirks);
        assert_eq!(bits(&built, 4).0 & 1 << 28 != 0, shown, "{name}");
        assert_eq!(built.controls.device_control, shown.then_some(BASE + 8), "{name}");
        assert_eq!(bits(&built, 8).1 & 0x8000, 0, "{name}: the bit that starts it never stays");
    }
    for (name, capabilities, offer, quirks, shown) in [
        ("it has it", 0x3, ALL, Quirks::default(), true),
        ("only pending transactions", 0x1, ALL, Quirks::default(), false),
        ("the host cannot", 0x3, no_reset, Quirks::default(), false),
        ("it lies", 0x3, ALL, lies, false),
    ] {
        let config = space(capability_id::ADVANCED_FEATURES, &[6, capabilities, 0xff, 0xff]);
        let built = built_as(&config, Place::RootBus, offer, &quirks);
        assert_eq!(shows(&built), shown, "{name}");
        assert_eq!(built.controls.advanced_features, shown.then_some(BASE + 4), "{name}");
        let expected = if shown { (0x0100, 0, 0) } else { (0, 0, 0) };
        assert_eq!(bits(&built, 4), expected, "{name}: transactions pending, and no bit to write");
    }
}

#[test]
fn other_capabilities_show_and_take_these_bits() {
    use capability_id::*;
    for (name, id, expected) in [
        ("product data, to be read", VPD, vec![(0xffff_0003, 0, 0x7fff_0000), (u32::MAX, 0, 0)]),
        ("vendor's, length constant", VENDOR, vec![(0xffff_0009, 0, 0xff00_0000), (u32::MAX, 0, u32::MAX)]),
        (
            "PCI-X, without errors and the host's bus",
            PCI_X,
            vec![(0x007f_0007, 0x007f_0000, 0), (0xdff3_fff8, 0, 0)],
        ),
        ("SATA", SATA, vec![(0xffff_0012, 0, 0), (u32::MAX, 0, 0)]),
        ("subsystem", SUBSYSTEM, vec![(0xffff_000d, 0, 0), (u32::MAX, 0, 0)]),
        ("debug port", DEBUG_PORT, vec![(0xffff_000a, 0, 0)]),
        ("MSI, before it puts itself in", MSI, vec![(0x0000_0005, 0, 0), (0, 0, 0)]),
        ("MSI-X, before it puts itself in", MSIX, vec![(0x0000_0011, 0, 0), (0, 0, 0)]),
    ] {
        let built = built(&space(id, &[0xff; 0x80]));
        for (at, expected) in (0..).step_by(4).zip(expected) {
            assert_eq!(bits(&built, at), expected, "{name} at {at:#x}");
        }
    }
}

#[test]
fn of_capabilities_that_software_looks_for_once_the_first_shows() {
    use capability_id::*;
    for (id, both) in [(POWER, false), (VPD, false), (EXPRESS, false), (VENDOR, true)] {
        let mut config = express::capability(2, 0);
        config[usize::from(BASE)] = id;
        config[usize::from(BASE) + 1] = 0xa0;
        config[0xa0..0xa4].copy_from_slice(&[id, 0, 0x02, 0x00]);
        let registers = built(&config).registers;
        assert_eq!(registers.dword(BASE).shadow >> 8 & 0xff != 0, both, "{id:#x}");
        let hidden = registers.dword(0xa0);
        assert_eq!(hidden == Register::default(), !both, "{id:#x}: body and all");
    }
}

#[test]
fn capabilities_that_overlap_show_nothing_of_each_other() {
    // Product data that reaches into power management, and both into MSI-X, which stands.
    let mut config = space(capability_id::VPD, &[]);
    for (offset, bytes) in
        [(0x51, &[0x54][..]), (0x54, &[1, 0x58, 0xff, 0xff]), (0x58, &[0x11, 0, 0xff, 0xff])]
    {
        config[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    config[0x5c..0x64].fill(0xff);
    let (list, problems) = walk(&config);
    assert_eq!(problems.len(), 2);
    assert_eq!(list.iter().map(|c| c.intact).collect::<Vec<_>>(), [false, false, true]);
    let registers = built(&config).registers;
    assert_eq!(registers.dword(CAPABILITIES).shadow, 0x58);
    for offset in [0x50, 0x54, 0x5c, 0x60] {
        assert_eq!(registers.dword(offset), Register::default(), "{offset:#x}");
    }
}

#[test]
fn bytes_of_no_capability_are_the_functions_own() {
    let config = space(capability_id::POWER, &[0; 6]);
    let registers = built(&config).registers;
    for offset in [0x40, 0x4c, 0x58, 0xfc] {
        assert_eq!(registers.dword(offset), standard::own(), "{offset:#x}");
    }
    assert_eq!(read_u32(&config, 0x100), 0);
    assert_eq!(registers.dword(0x100), Register::default(), "but none of the extended space");
}
