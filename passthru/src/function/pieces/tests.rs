//! How BARs are divided, by tables.

use super::*;
use crate::function::test_support::report;
use crate::host::Region;

const KIND: BarKind = BarKind::Memory64 { prefetchable: false };
const SHOWN: MsixReads = MsixReads { shown: true, shared: false, trap: false };

fn shown(size: u64, mappable: &[Range<u64>], msix: Option<(u64, u64, u64, u64)>) -> Vec<String> {
    shown_with(size, mappable, msix, &[])
}

fn shown_with(
    size: u64,
    mappable: &[Range<u64>],
    msix: Option<(u64, u64, u64, u64)>,
    quirks: &[(u64, u64)],
) -> Vec<String> {
    let mut description = Description::default();
    description.bars[0] = Region { size, mappable: mappable.to_vec(), accessible: true };
    let range = |offset, len| BarRange { bar: 0, offset, len };
    let msix = msix.map(|(table, table_len, pending, pending_len)| MsixStructures {
        table: range(table, table_len),
        pending: range(pending, pending_len),
    });
    let bar = Bar { index: 0, kind: KIND, size };
    let quirks: Vec<BarRange> = quirks.iter().map(|(offset, len)| range(*offset, *len)).collect();
    texts(&plan(&[bar], &description, msix.as_ref(), SHOWN, &quirks, &report()))
}

fn texts(pieces: &[Piece]) -> Vec<String> {
    let text = |p: &Piece| {
        let (start, end) = (p.range.offset, p.range.offset + p.range.len);
        match p.backing {
            Backing::Mapped => format!("{start:x}-{end:x} mapped"),
            Backing::ReadOnly(reason) => format!("{start:x}-{end:x} read {reason:?}"),
            Backing::Trapped(reason) => format!("{start:x}-{end:x} {reason:?}"),
        }
    };
    pieces.iter().map(text).collect()
}

/// A BAR 0 of 64 KiB with a table at 0x2000, so many bytes long, and 16 bytes of pending bits.
fn with_msix(
    table_len: u64,
    pending: u64,
    pages: MsixReads,
    change: impl FnOnce(&mut Report),
) -> Vec<String> {
    with_table((0x2000, table_len), pending, pages, change)
}

/// The same with a table somewhere else.
fn with_table(
    (table, table_len): (u64, u64),
    pending: u64,
    pages: MsixReads,
    change: impl FnOnce(&mut Report),
) -> Vec<String> {
    let mut description = Description::default();
    description.bars[0] = Region { size: 0x10000, mappable: vec![0..0x10000], accessible: true };
    let bar = Bar { index: 0, kind: KIND, size: 0x10000 };
    let range = |offset, len| BarRange { bar: 0, offset, len };
    let msix = MsixStructures { table: range(table, table_len), pending: range(pending, 16) };
    let mut report = report();
    change(&mut report);
    texts(&plan(&[bar], &description, Some(&msix), pages, &[], &report))
}

#[test]
fn reads_of_msix_pages_exit_only_for_a_reason() {
    let as_usual = |_: &mut Report| {};
    let apart = |middle: &'static str, after: &'static str| {
        vec!["0-2000 mapped", middle, "3000-8000 mapped", after, "9000-10000 mapped"]
    };
    let untold = |report: &mut Report| report.keeps_pending = false;
    for (name, got, want) in [
        (
            "apart",
            with_msix(0x80, 0x8000, SHOWN, as_usual),
            apart("2000-3000 read MsixTable", "8000-9000 read MsixPending"),
        ),
        (
            "the guest sees no MSI-X",
            with_msix(0x80, 0x8000, MsixReads { shown: false, ..SHOWN }, as_usual),
            apart("2000-3000 MsixTable", "8000-9000 MsixPending"),
        ),
        (
            "registers beside them",
            with_msix(0x80, 0x8000, MsixReads { shared: true, ..SHOWN }, as_usual),
            apart("2000-3000 MsixShared", "8000-9000 MsixShared"),
        ),
        (
            "asked for",
            with_msix(0x80, 0x8000, MsixReads { trap: true, shared: true, ..SHOWN }, as_usual),
            apart("2000-3000 Asked", "8000-9000 Asked"),
        ),
        (
            "a host that does not tell of pending bits",
            with_msix(0x80, 0x8000, SHOWN, untold),
            apart("2000-3000 read MsixTable", "8000-9000 PendingUntold"),
        ),
        (
            "the same, with both in one page",
            with_msix(0x80, 0x2800, SHOWN, untold),
            vec!["0-2000 mapped", "2000-3000 PendingUntold", "3000-10000 mapped"],
        ),
        (
            "the same, where only the table's last page has pending bits",
            with_msix(0x1100, 0x3800, SHOWN, untold),
            vec!["0-2000 mapped", "2000-3000 read MsixTable", "3000-4000 PendingUntold", "4000-10000 mapped"],
        ),
        (
            "both in the table's last page",
            with_msix(0x1100, 0x3800, SHOWN, as_usual),
            vec!["0-2000 mapped", "2000-4000 read MsixTable", "4000-10000 mapped"],
        ),
        (
            "all vectors there can be",
            with_msix(0x8000, 0xb000, SHOWN, as_usual),
            vec![
                "0-2000 mapped",
                "2000-a000 read MsixTable",
                "a000-b000 mapped",
                "b000-c000 read MsixPending",
                "c000-10000 mapped",
            ],
        ),
        (
            "pages of 16 KiB, which may hold other registers",
            with_msix(0x80, 0x8000, SHOWN, |report| report.granularity = 0x4000),
            vec!["0-4000 MsixShared", "4000-8000 mapped", "8000-c000 MsixShared", "c000-10000 mapped"],
        ),
    ] {
        assert_eq!(got, want, "{name}");
    }
}

/// PCI 3.0 §6.8.2 says no more than that other registers should not be there: Linux' pci-epf-test has the table at 0x80, behind
/// its own.
#[test]
fn reads_of_a_page_exit_where_something_is_in_front_of_its_structures() {
    let as_usual = |_: &mut Report| {};
    for (name, table, pending, want) in [
        (
            "the table behind registers, with the pending bits",
            (0x80, 0x200),
            0x280,
            vec!["0-1000 MsixShared", "1000-10000 mapped"],
        ),
        (
            "pending bits first, then the table",
            (0x2010, 0x80),
            0x2000,
            vec!["0-2000 mapped", "2000-3000 read MsixTable", "3000-10000 mapped"],
        ),
        (
            "a gap between them",
            (0x2800, 0x80),
            0x2000,
            vec!["0-2000 mapped", "2000-3000 read MsixTable", "3000-10000 mapped"],
        ),
        (
            "pending bits behind registers, in a page of their own",
            (0x2000, 0x80),
            0x3800,
            vec!["0-2000 mapped", "2000-3000 read MsixTable", "3000-4000 MsixShared", "4000-10000 mapped"],
        ),
        (
            "a table that begins behind registers and goes on over the next pages",
            (0x2ff0, 0x2000),
            0x8000,
            vec![
                "0-2000 mapped",
                "2000-3000 MsixShared",
                "3000-5000 read MsixTable",
                "5000-8000 mapped",
                "8000-9000 read MsixPending",
                "9000-10000 mapped",
            ],
        ),
        (
            "the same, with the pending bits in its first page",
            (0x2800, 0x1000),
            0x2400,
            vec!["0-2000 mapped", "2000-3000 MsixShared", "3000-4000 read MsixTable", "4000-10000 mapped"],
        ),
        (
            "a table that ends in the page of the pending bits",
            (0x2000, 0x1080),
            0x3100,
            vec!["0-2000 mapped", "2000-4000 read MsixTable", "4000-10000 mapped"],
        ),
        (
            "pending bits that end where the table begins",
            (0x3010, 0x80),
            0x2ff8,
            vec!["0-2000 mapped", "2000-3000 MsixShared", "3000-4000 read MsixTable", "4000-10000 mapped"],
        ),
        (
            "one entry in the last 16 bytes of a page",
            (0x2ff0, 0x10),
            0x8000,
            vec![
                "0-2000 mapped",
                "2000-3000 MsixShared",
                "3000-8000 mapped",
                "8000-9000 read MsixPending",
                "9000-10000 mapped",
            ],
        ),
    ] {
        assert_eq!(with_table(table, pending, SHOWN, as_usual), want, "{name}");
    }
    let behind = |reads, change: fn(&mut Report)| with_table((0x80, 0x200), 0x280, reads, change).remove(0);
    let other = |_: &mut Report| {};
    assert_eq!(behind(MsixReads { trap: true, ..SHOWN }, other), "0-1000 Asked");
    assert_eq!(behind(MsixReads { shown: false, ..SHOWN }, other), "0-1000 MsixTable");
    assert_eq!(behind(SHOWN, |report| report.keeps_pending = false), "0-1000 MsixShared");
}

#[test]
fn what_is_mapped_and_what_is_not() {
    let all = |size| vec![0..size];
    for (name, got, want) in [
        ("plain", shown(0x4000, &all(0x4000), None), vec!["0-4000 mapped"]),
        ("nothing mappable", shown(0x4000, &[], None), vec!["0-4000 NotMappable"]),
        ("sub-page, shared in the host", shown(0x800, &[], None), vec!["0-800 SubPage"]),
        ("sub-page, alone in the host", shown(0x800, &all(0x1000), None), vec!["0-800 mapped"]),
        (
            "sub-page with the MSI-X table",
            shown(0x800, &all(0x1000), Some((0x400, 0x40, 0x600, 8))),
            vec!["0-800 MsixTable"],
        ),
        (
            "mirrors of configuration space: in a page of the table's, at the end, and beyond",
            shown_with(
                0x4000,
                &all(0x4000),
                Some((0, 0x40, 0x800, 8)),
                &[(0x400, 0x100), (0x3f00, 0x100), (0x8000, 0x1000), (0x1800, 0)],
            ),
            vec!["0-1000 Quirk", "1000-3000 mapped", "3000-4000 Quirk"],
        ),
        (
            "a quirk that covers the BAR",
            shown_with(0x2000, &all(0x2000), None, &[(0, u64::MAX)]),
            vec!["0-2000 Quirk"],
        ),
        (
            "QEMU's NVMe: table and pending bits in pages of their own at the end",
            shown(0x4000, &all(0x4000), Some((0x2000, 0x410, 0x3000, 0x10))),
            vec!["0-2000 mapped", "2000-3000 read MsixTable", "3000-4000 read MsixPending"],
        ),
        (
            "table first, pending bits in the middle",
            shown(0x10000, &all(0x10000), Some((0, 0x1000, 0x8000, 0x20))),
            vec![
                "0-1000 read MsixTable",
                "1000-8000 mapped",
                "8000-9000 read MsixPending",
                "9000-10000 mapped",
            ],
        ),
        (
            "both in one page",
            shown(0x4000, &all(0x4000), Some((0x1000, 0x50, 0x1800, 8))),
            vec!["0-1000 mapped", "1000-2000 read MsixTable", "2000-4000 mapped"],
        ),
        (
            "pending bits straddle a page, before the table",
            shown(0x8000, &all(0x8000), Some((0x4000, 0x10, 0x1ff8, 0x10))),
            vec![
                "0-1000 mapped",
                "1000-2000 MsixShared",
                "2000-3000 read MsixPending",
                "3000-4000 mapped",
                "4000-5000 read MsixTable",
                "5000-8000 mapped",
            ],
        ),
        (
            "sparse areas, one unaligned",
            shown(0x8000, &[0..0x1000, 0x2000..0x3800, 0x5000..0x8000], None),
            vec![
                "0-1000 mapped",
                "1000-2000 NotMappable",
                "2000-3000 mapped",
                "3000-5000 NotMappable",
                "5000-8000 mapped",
            ],
        ),
        (
            "areas that lie beyond the BAR",
            shown(0x2000, &[0x1000..0x9000], None),
            vec!["0-1000 NotMappable", "1000-2000 mapped"],
        ),
    ] {
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn a_limit_on_mappings_keeps_what_cannot_be_reached_otherwise_and_then_the_largest() {
    let region = |mappable, accessible| Region { size: 0x8000, mappable, accessible };
    let mut description = Description::default();
    description.bars[0] = region(vec![0..0x1000, 0x2000..0x4000, 0x5000..0x8000], true);
    description.bars[2] = region(vec![0..0x1000], false);
    let bars = [0, 2].map(|index| Bar { index, kind: KIND, size: 0x8000 });
    let mut report = report();
    report.mappings = Some(2);
    let pieces = plan(&bars, &description, None, SHOWN, &[], &report);
    let mapped = pieces.iter().filter(|p| p.backing == Backing::Mapped);
    let mapped: Vec<(u8, u64)> = mapped.map(|p| (p.range.bar, p.range.offset)).collect();
    assert_eq!(mapped, [(0, 0x5000), (2, 0)]);
    let lost: Vec<BarRange> = unreachable(&pieces, &description).collect();
    assert_eq!(lost, [BarRange { bar: 2, offset: 0x1000, len: 0x7000 }]);
}

#[test]
fn a_rom_is_trapped_and_never_missed() {
    let bar = Bar { index: bar::ROM, kind: BarKind::Memory32 { prefetchable: false }, size: 0x800 };
    let mut description = Description::default();
    // One that the host cannot read was given instead of the function's own.
    for accessible in [true, false] {
        description.rom = Region { size: 0x800, mappable: vec![], accessible };
        let pieces = plan(&[bar], &description, None, SHOWN, &[], &report());
        let range = BarRange { bar: bar::ROM, offset: 0, len: 0x800 };
        assert_eq!(pieces, [Piece { range, backing: Backing::Trapped(Reason::Rom) }]);
        assert_eq!(unreachable(&pieces, &description).count(), 0);
    }
}
