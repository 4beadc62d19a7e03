//! Random functions and random guests: whatever bytes a configuration space holds and whatever is written to it,
//! nothing panics, and no mapping leaves its BAR or lies on another.

use proptest::prelude::*;

use super::pieces::Backing;
use super::test_support::{put, report};
use super::*;
use crate::host::Region;
use crate::pci::Space;

/// An access by the guest.
#[derive(Clone, Debug)]
enum Step {
    Write { offset: u16, len: usize, value: u32 },
    Bar { index: u16, value: u32 },
    Command(u16),
    Table { offset: u64, data: [u8; 8], len: usize },
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let aligned = |offset: u16, len: usize| offset & !(len as u16 - 1);
    let len = prop::sample::select(vec![1usize, 2, 4]);
    prop_oneof![
        4 => (0u16..4096, len, any::<u32>()).prop_map(move |(offset, len, value)| {
            Step::Write { offset: aligned(offset, len), len, value }
        }),
        4 => (0u16..6, prop_oneof![any::<u32>(), Just(u32::MAX), (0u32..64).prop_map(|page| 0xc000_0000 + page * 0x1000)])
            .prop_map(|(index, value)| Step::Bar { index, value }),
        3 => any::<u16>().prop_map(Step::Command),
        4 => (0u64..0x9000, any::<[u8; 8]>(), 1usize..=8)
            .prop_map(|(offset, data, len)| Step::Table { offset, data, len }),
        1 => Just(Step::Reset),
    ]
}

/// A configuration space whose header is a type 0 function's and whose lists lead through random capabilities, with
/// BARs of random kinds and sizes.
fn description() -> impl Strategy<Value = Description> {
    let bytes = prop::collection::vec(any::<u8>(), 4096);
    let ids = prop::sample::select(vec![0x01u8, 0x03, 0x05, 0x08, 0x09, 0x10, 0x11, 0x12, 0x13, 0x14, 0x7f]);
    let capabilities = prop::collection::vec((ids, 0x10u8..0x3f), 0..12);
    let extended_ids = prop::sample::select(vec![0x1u32, 0x3, 0xb, 0xd, 0xe, 0xf, 0x10, 0x13, 0x15, 0x1b]);
    let extended = prop::collection::vec((extended_ids, 0x40u32..0x3ff), 0..8);
    let bars = prop::collection::vec((0u8..16, 0u32..24, any::<bool>()), 6);
    (bytes, capabilities, extended, bars, any::<bool>()).prop_map(
        |(mut config, capabilities, extended, bars, express)| {
            put(&mut config, 0x00, &[0x50, 0x53]);
            config[0x06] |= 0x10;
            config[0x0e] &= 0x80;
            let mut link = 0x34;
            for (id, dword) in capabilities {
                let offset = usize::from(dword) * 4;
                config[link] = offset as u8;
                config[offset] = id;
                link = offset + 1;
            }
            let mut link = 0x100;
            for (id, dword) in extended {
                let next = dword * 4;
                put(&mut config, link, &(next << 20 | 1 << 16 | id).to_le_bytes());
                link = next as usize;
            }
            let mut regions: [Region; 6] = Default::default();
            for (index, (kind, log, odd)) in bars.into_iter().enumerate() {
                put(&mut config, 0x10 + 4 * index, &[kind]);
                // One in two is a size that no BAR can have when it is small; a few are no powers of two.
                let size = if log == 0 { 0 } else { (1u64 << log) + u64::from(odd && log % 5 == 0) };
                regions[index] = Region { size, mappable: vec![0..size / 0x1000 * 0x1000], accessible: true };
            }
            if !express {
                config.truncate(256);
            }
            let rom =
                Region { size: if express { 0x1_0000 } else { 0 }, accessible: true, ..Region::default() };
            Description { config, bars: regions, rom }
        },
    )
}

fn check_pieces(function: &Function) -> Result<(), TestCaseError> {
    for bar in function.bars() {
        let mut at = 0;
        for piece in function.pieces().iter().filter(|p| p.range.bar == bar.index) {
            prop_assert_eq!(piece.range.offset, at, "pieces of a BAR have no gaps and no overlaps");
            prop_assert!(piece.range.len > 0);
            at += piece.range.len;
            if !matches!(piece.backing, Backing::Trapped(_)) {
                prop_assert_eq!((piece.range.offset | piece.range.len) % 0x1000, 0);
            }
            if piece.backing.is_read_only() {
                prop_assert!(function.msix_vectors() > 0, "there is something to read");
            }
            if piece.backing == Backing::Mapped {
                for range in function.msix_structures().iter().flat_map(|m| [m.table, m.pending]) {
                    let apart = range.bar != bar.index
                        || range.offset + range.len <= piece.range.offset
                        || piece.range.offset + piece.range.len <= range.offset;
                    prop_assert!(apart, "the MSI-X structures are not mapped");
                }
            }
        }
        prop_assert_eq!(at, bar.size, "pieces cover their BAR");
    }
    Ok(())
}

fn check_effects(
    function: &Function,
    effects: &[Effect],
    vectors_on: &mut Option<MessageKind>,
) -> Result<(), TestCaseError> {
    for effect in effects {
        match effect {
            Effect::Place(moves) => {
                for placement in moves {
                    let bar = function.bars().iter().find(|b| b.index == placement.bar);
                    let bar = bar.ok_or_else(|| TestCaseError::fail("a BAR that is not there"))?;
                    prop_assert_eq!((placement.size, placement.space), (bar.size, bar.kind.space()));
                    if let Some(base) = placement.base {
                        prop_assert_eq!(base % bar.size, 0, "an address is a multiple of the size");
                        prop_assert!(placement.space == Space::Memory || base <= u64::from(u32::MAX));
                    }
                }
            }
            Effect::WriteHost(write) => {
                let end = write.offset + u16::from(write.len);
                prop_assert!(end <= 0x100, "the extended space is never written");
                prop_assert!(
                    !(0x08..0x40).contains(&write.offset),
                    "nor BARs and what else is in the header"
                );
                if write.offset == 0x04 && write.len == 2 {
                    prop_assert_eq!(write.value & 0x400, 0x400, "INTx stays off");
                }
            }
            Effect::SetIntx(on) => {
                prop_assert!(!on || vectors_on.is_none(), "one kind of interrupt at a time");
            }
            Effect::Reset => {}
            Effect::SetVectors(kind, count, changes) => {
                let most = match kind {
                    MessageKind::Msi => 32,
                    MessageKind::Msix => function.msix_vectors(),
                };
                prop_assert!(*count <= most && changes.iter().all(|c| c.vector < *count));
                prop_assert!(
                    *vectors_on
                        != Some(match kind {
                            MessageKind::Msi => MessageKind::Msix,
                            MessageKind::Msix => MessageKind::Msi,
                        }),
                    "two kinds at once"
                );
                *vectors_on = Some(*kind);
            }
            Effect::DisableVectors(kind) => {
                prop_assert!(vectors_on.is_none_or(|on| on == *kind));
                *vectors_on = None;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_function_and_any_guest(description in description(), steps in prop::collection::vec(step(), 0..80)) {
        let (mut function, _) = Function::new(&description, &report(), Shape::default()).unwrap();
        check_pieces(&function)?;
        let mut vectors_on = None;
        let mut effects = Vec::new();
        function.start(&mut effects);
        check_effects(&function, &effects, &mut vectors_on)?;
        for step in steps {
            effects.clear();
            match step {
                Step::Write { offset, len, value } => {
                    let ids = function.read_config(0, 4, |_, _| true).value;
                    function.write_config(offset, &value.to_le_bytes()[..len], &mut effects);
                    let _ = function.read_config(offset, len, |_, _| true);
                    prop_assert_eq!(function.read_config(0, 4, |_, _| true).value, ids);
                }
                Step::Bar { index, value } => {
                    function.write_config(0x10 + 4 * index, &value.to_le_bytes(), &mut effects);
                }
                Step::Command(value) => function.write_config(0x04, &value.to_le_bytes(), &mut effects),
                Step::Table { offset, data, len } => {
                    function.write_msix_table(offset, &data[..len], &mut effects);
                    let mut back = [0; 8];
                    function.read_msix_table(offset, &mut back[..len]);
                    let end = u64::from(function.msix_vectors()) * 16;
                    for (at, (got, put)) in (offset..).zip(back.iter().zip(data).take(len)) {
                        prop_assert_eq!(*got, if at < end { put } else { 0 });
                    }
                    function.read_msix_pending(offset, &mut back, |_, _| true);
                }
                Step::Reset => function.reset(&mut effects),
            }
            check_effects(&function, &effects, &mut vectors_on)?;
        }
        effects.clear();
        function.reset(&mut effects);
        check_effects(&function, &effects, &mut vectors_on)?;
        prop_assert_eq!(vectors_on, None, "a reset leaves no vector armed");
    }

    #[test]
    fn any_bytes_at_all(config in prop::collection::vec(any::<u8>(), 0..4097)) {
        let description = Description { config, ..Description::default() };
        if let Ok((mut function, _)) = Function::new(&description, &report(), Shape::default()) {
            let mut effects = Vec::new();
            for offset in (0..4096).step_by(4) {
                function.write_config(offset, &[0xff; 4], &mut effects);
                let _ = function.read_config(offset, 4, |_, _| true);
            }
        }
    }

    #[test]
    fn the_lists_that_a_guest_finds_end_and_show_nothing_hidden(description in description()) {
        let (function, _) = Function::new(&description, &report(), Shape::default()).unwrap();
        let byte = |offset| function.read_config(offset, 1, |_, _| false).value;
        let (mut next, mut seen) = (byte(CAPABILITIES) as u16, Vec::new());
        while next != 0 {
            prop_assert!(next >= 0x40 && next % 4 == 0 && !seen.contains(&next));
            seen.push(next);
            let header = function.registers().dword(next);
            prop_assert_eq!((header.writable | header.live | header.forward) & 0xffff, 0, "{:#x} can change", next);
            prop_assert!(!matches!(byte(next) as u8, 0x00 | 0x02 | 0x04 | 0x06 | 0x08 | 0x0b | 0x0c | 0x0e | 0x0f));
            prop_assert!(byte(next) as u8 <= capability_id::ADVANCED_FEATURES, "{:#x}", byte(next));
            let emulated = [capability_id::MSI, capability_id::MSIX, capability_id::POWER];
            for offset in (next..next + 12).step_by(4).take(if byte(next) == 1 { 2 } else { 3 }) {
                let register = function.registers().dword(offset);
                let passed = emulated.contains(&(byte(next) as u8)) && register.live | register.forward != 0;
                prop_assert!(!passed, "{offset:#x}: {register:?}");
            }
            next = byte(next + 1) as u16;
        }
        let header = |offset| function.read_config(offset, 4, |_, _| false).value;
        let (mut next, mut seen) = (EXTENDED_CAPABILITIES, Vec::new());
        while next != 0 && header(next) != 0 && header(next) != u32::MAX {
            prop_assert!(next >= 0x100 && !seen.contains(&next));
            seen.push(next);
            let id = header(next) as u16;
            let shown = [0, extended_id::AER, extended_id::SERIAL_NUMBER, extended_id::VENDOR];
            prop_assert!(shown.contains(&id), "{id:#x} at {next:#x}");
            next = (header(next) >> 20) as u16;
        }
    }
}
