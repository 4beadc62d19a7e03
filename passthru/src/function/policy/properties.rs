//! Random configuration spaces: capabilities of every kind in every order, at every distance, with any bytes. Whatever
//! they hold, nothing shows or takes more than its rule lets it.

use proptest::prelude::*;

use super::*;
use crate::function::registers::Register;
use crate::pci::capability::{read_u32, walk, walk_extended};
use crate::pci::registers::express::{INITIATE_FLR, INTEGRATED_ENDPOINT};

/// Bits of the header that are ever forwarded: status errors.
const HEADER_FORWARD: u32 = 0xf900 << 16;

/// A configuration space; printed as a dump without lines of zeros.
#[derive(Clone)]
struct Space(Vec<u8>);

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} bytes", self.0.len())?;
        for (line, bytes) in self.0.chunks(16).enumerate().filter(|(_, bytes)| bytes.iter().any(|b| *b != 0))
        {
            writeln!(f, "{:03x}: {bytes:02x?}", line * 16)?;
        }
        Ok(())
    }
}

/// A configuration space whose lists lead through random capabilities.
fn space() -> impl Strategy<Value = Space> {
    // A prime number of bytes over and over is as good as so many random ones, and sooner made.
    let some = prop::collection::vec(any::<u8>(), 211)
        .prop_map(|bytes| bytes.into_iter().cycle().take(EXPRESS_SIZE).collect());
    let fill = prop_oneof![Just(vec![0; EXPRESS_SIZE]), Just(vec![0xff; EXPRESS_SIZE]), some];
    let known = prop::sample::select((0x00..=0x16u8).collect::<Vec<_>>());
    let frequent = prop::sample::select(vec![0x01u8, 0x03, 0x05, 0x09, 0x10, 0x11, 0x13]);
    let id = prop_oneof![2 => known, 3 => frequent, 1 => any::<u8>()];
    // Mostly apart, sometimes on each other; the first bytes of the body are often such as make sense.
    let capability = (id, 0x10u8..0x40, any::<Option<u16>>());
    let standard = prop::collection::vec(capability, 0..14);
    let id =
        prop_oneof![2 => 0u16..0x38, 2 => prop::sample::select(vec![0x1u16, 0x3, 0xb]), 1 => any::<u16>()];
    let extended = prop::collection::vec((id, 0x40u16..0x400, any::<Option<u16>>()), 0..10);
    let first = prop::sample::select(vec![0x0u16, 0x1, 0x3, 0xb, 0x10]);
    (fill, standard, first, extended, any::<bool>()).prop_map(
        |(mut config, standard, first, extended, conventional)| {
            config[usize::from(STATUS)] |= STATUS_CAPABILITIES as u8;
            let mut link = usize::from(CAPABILITIES);
            for (id, dword, body) in standard {
                let offset = usize::from(dword) * 4;
                config[link] = offset as u8;
                config[offset] = id;
                if let Some(body) = body {
                    config[offset + 2..offset + 4].copy_from_slice(&body.to_le_bytes());
                }
                link = offset + 1;
            }
            config[link] = 0;
            let (mut at, mut id) = (0x100, first);
            for (next_id, dword, body) in extended {
                let next = usize::from(dword) * 4;
                config[at..at + 4]
                    .copy_from_slice(&((next as u32) << 20 | 1 << 16 | u32::from(id)).to_le_bytes());
                if let (Some(body), Some(bytes)) = (body, config.get_mut(at + 6..at + 8)) {
                    bytes.copy_from_slice(&body.to_le_bytes());
                }
                (at, id) = (next, next_id);
            }
            config[at..at + 4].copy_from_slice(&(1 << 16 | u32::from(id)).to_le_bytes());
            if conventional {
                config.truncate(CONVENTIONAL_SIZE);
            }
            Space(config)
        },
    )
}

fn shape() -> impl Strategy<Value = Shape> {
    let port = (any::<u8>(), any::<u8>()).prop_map(|(speed, width)| Place::BehindPort { speed, width });
    (any::<bool>(), prop_oneof![Just(Place::RootBus), port]).prop_map(|(multi_function, place)| Shape {
        multi_function,
        place,
        ..Shape::default()
    })
}

fn offer() -> impl Strategy<Value = Offer> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(reset, intx, power_states)| Offer {
        reset,
        intx,
        power_states,
    })
}

/// What a guest finds by following the list: offsets and ids.
fn guest_list(registers: &Registers) -> Result<Vec<(u16, u8)>, TestCaseError> {
    let mut found: Vec<(u16, u8)> = Vec::new();
    let mut next = registers.dword(CAPABILITIES).shadow as u16;
    while next != 0 {
        prop_assert!((0x40..0x100).contains(&next) && next.is_multiple_of(4), "{next:#x}");
        prop_assert!(found.iter().all(|(offset, _)| *offset != next), "the list comes back to {next:#x}");
        let header = registers.dword(next);
        prop_assert_eq!((header.live | header.forward | header.writable) & 0xffff, 0, "the list is constant");
        found.push((next, header.shadow as u8));
        next = (header.shadow >> 8 & 0xff) as u16;
    }
    Ok(found)
}

/// What a dword of a capability may have at most: bits that are read from the function, sent to it, and writable.
fn bounds(id: u8, at: u16) -> (u32, u32, u32) {
    use capability_id::*;
    match (id, at) {
        (POWER, 4) => (0, 0, 0x3),
        (EXPRESS, 0x08) => (0x002f_0000, 0x000f_0000, 0x79ff),
        (EXPRESS, 0x28) => (0, 0, 0x1f),
        (ADVANCED_FEATURES, 4) => (0x100, 0, 0),
        (PCI_X, 0) => (0, 0, 0x007f_0000),
        (VPD, 0) => (0xffff_0000, 0xffff_0000, 0),
        (VPD, 4) => (u32::MAX, u32::MAX, 0),
        (VENDOR, 0) => (0xff00_0000, 0xff00_0000, 0),
        (VENDOR, _) => (u32::MAX, u32::MAX, 0),
        _ => (0, 0, 0),
    }
}

fn within(register: Register, (live, forward, writable): (u32, u32, u32)) -> bool {
    register.live & !live == 0 && register.forward & !forward == 0 && register.writable & !writable == 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nothing_shows_or_takes_more_than_its_rule(Space(config) in space(), shape in shape(), offer in offer()) {
        let (list, _) = walk(&config);
        let (extended, _) = walk_extended(&config);
        let none = Quirks::default();
        let Built { registers, controls } =
            build(&config, &[], &list, &extended, shape, offer, &none, |_| true);
        let found = guest_list(&registers)?;
        use capability_id::*;
        for (_, id) in &found {
            let allowed = [
                POWER, VPD, MSI, PCI_X, VENDOR, DEBUG_PORT, SUBSYSTEM, EXPRESS, MSIX, SATA, ADVANCED_FEATURES,
            ];
            prop_assert!(allowed.contains(id), "{id:#x}");
        }
        for offset in (0..CONVENTIONAL_SIZE as u16).step_by(4) {
            let register = registers.dword(offset);
            let claims: Vec<_> = list.iter().filter(|c| (c.offset..c.offset + c.len).contains(&offset)).collect();
            // A link that is made up is behind the end of the function's capability.
            let linked = |at: u16| match (registers.word(at + 2) & 0xf, shape.place) {
                (_, Place::RootBus) => 0,
                (1, _) => 0x14,
                _ => 0x34,
            };
            let express = found.iter().any(|(at, id)| *id == EXPRESS && (*at..*at + linked(*at)).contains(&offset));
            let shown = |c: &Capability| found.contains(&(c.offset, c.id));
            match claims.as_slice() {
                _ if offset < 0x40 => prop_assert_eq!(register.forward & !HEADER_FORWARD, 0, "{:#x}", offset),
                [] if express => prop_assert!(within(register, (0, 0, 0)), "{offset:#x}"),
                [] => prop_assert_eq!(register, standard::own(), "{:#x} is of no capability", offset),
                [one] if shown(one) => {
                    let bounds = bounds(one.id, offset - one.offset);
                    prop_assert!(within(register, bounds), "{:?} at {offset:#x}: {register:?}", one);
                }
                // Of those that share registers MSI and MSI-X may stand, and put themselves in later.
                several => {
                    let standing = several.iter().find(|c| shown(c));
                    prop_assert!(standing.is_none_or(|c| matches!(c.id, MSI | MSIX)));
                    let link = if standing.is_some_and(|c| c.offset == offset) { 0xffff } else { 0 };
                    prop_assert_eq!(
                        Register { shadow: register.shadow & !link, ..register },
                        Register::default(),
                        "{:#x} is hidden", offset
                    );
                }
            }
        }

        let at = |id| found.iter().find(|(_, other)| *other == id).map(|(offset, _)| *offset);
        prop_assert_eq!(controls.power, at(POWER).map(|o| o + 4));
        let raw_flr = at(EXPRESS).is_some_and(|o| read_u32(&config, o + 4) & 1 << 28 != 0);
        prop_assert_eq!(controls.device_control.is_some(), raw_flr && offer.reset);
        if let Some(express) = at(EXPRESS) {
            let flr = registers.dword(express + 4).shadow & 1 << 28 != 0;
            prop_assert_eq!(flr.then_some(express + 8), controls.device_control);
            let kind = registers.word(express + 2) >> 4 & 0xf;
            let behind_port = shape.place != Place::RootBus;
            prop_assert_eq!(kind == INTEGRATED_ENDPOINT, !behind_port);
            if behind_port {
                let status = registers.word(express + 0x12);
                prop_assert!(matches!(status & 0xf, 1..=6) && matches!(status >> 4 & 0x3f, 1..=32));
                let most = registers.word(express + 0x0c);
                prop_assert!(status & 0xf <= most & 0xf && status >> 4 & 0x3f <= most >> 4 & 0x3f);
            }
        }
        prop_assert_eq!(controls.advanced_features, at(ADVANCED_FEATURES).map(|o| o + 4));
        prop_assert!(offer.reset || controls.advanced_features.is_none());
    }

    #[test]
    fn the_extended_space_is_read_only_and_shows_what_is_named(Space(config) in space()) {
        let (list, _) = walk_extended(&config);
        let shape = Shape::default();
        let none = Quirks::default();
        let registers =
            build(&config, &[], &[], &list, shape, Offer::default(), &none, |_| true).registers;
        let mut found: Vec<u16> = Vec::new();
        let mut next = EXTENDED_CAPABILITIES;
        while next != 0 && registers.dword(next).shadow != 0 {
            prop_assert!(next >= 0x100 && next.is_multiple_of(4) && !found.contains(&next), "{next:#x}");
            found.push(next);
            let header = registers.dword(next).shadow;
            let id = header as u16;
            prop_assert!(matches!(id, 0 | extended_id::AER | extended_id::SERIAL_NUMBER | extended_id::VENDOR));
            prop_assert!(id != 0 || next == 0x100, "a null capability is only in front");
            next = (header >> 20) as u16;
        }
        for offset in (0x100..registers.len() as u16).step_by(4) {
            let register = registers.dword(offset);
            prop_assert_eq!((register.forward, register.writable), (0, 0));
            let claims: Vec<_> = list.iter().filter(|c| (c.offset..c.offset + c.len).contains(&offset)).collect();
            let visible = |id| matches!(id, extended_id::AER | extended_id::SERIAL_NUMBER | extended_id::VENDOR);
            let alone = matches!(claims.as_slice(), [one] if found.contains(&one.offset) && visible(one.id));
            if !alone && offset != 0x100 {
                prop_assert_eq!(register, Register::default(), "{:#x} is hidden", offset);
            }
            if found.contains(&offset) {
                prop_assert_eq!(register.live, 0, "headers are constant");
            }
        }
    }

    #[test]
    fn no_write_changes_what_must_not_change(
        Space(config) in space(),
        shape in shape(),
        writes in prop::collection::vec((0u16..1024, any::<u32>()), 1..60),
    ) {
        let (list, _) = walk(&config);
        let (extended, _) = walk_extended(&config);
        let offer = Offer { reset: true, intx: true, power_states: true };
        let none = Quirks::default();
        let Built { mut registers, controls } =
            build(&config, &[], &list, &extended, shape, offer, &none, |_| true);
        let before = guest_list(&registers)?;
        let initial = registers.clone();
        for (dword, value) in writes {
            registers.write(dword * 4, &value.to_le_bytes());
            if let Some(control) = controls.device_control {
                registers.write(control, &(value as u16).to_le_bytes());
            }
        }
        prop_assert_eq!(guest_list(&registers)?, before, "the list is as it was");
        for offset in (0..registers.len() as u16).step_by(4) {
            let (was, is) = (initial.dword(offset), registers.dword(offset));
            prop_assert_eq!(is.shadow & !was.writable, was.shadow & !was.writable, "{:#x}", offset);
        }
        if let Some(control) = controls.device_control {
            let word = registers.word(control);
            prop_assert_eq!(word & INITIATE_FLR, 0, "what starts a reset does not stay");
            let able = registers.word(control - 4) & 0x7;
            prop_assert!(word >> 5 & 0x7 <= able, "payloads are no larger than the guest was told");
            prop_assert!(word >> 12 & 0x7 <= 5);
        }
    }
}
