//! How each part of a BAR reaches the guest: mapped, without exits, or trapped, and why.

use std::ops::Range;

use crate::host::{BarRange, Description, Report};
use crate::pci::bar::{self, Bar, BarKind};

/// A part of a BAR and how it reaches the guest. The pieces of a BAR cover it without gaps or overlaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which part.
    pub range: BarRange,
    /// How it reaches the guest.
    pub backing: Backing,
}

/// How a part of a BAR reaches the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The host's memory is the guest's: accesses take no exit. A BAR that is smaller than a page is mapped with the rest of
    /// its page, and only while the page is its own; elsewhere it is trapped.
    Mapped,
    /// Accesses exit and are answered here or by the host.
    Trapped(Reason),
}

/// Why a part of a BAR is trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// I/O ports cannot be mapped.
    Io,
    /// The host cannot map it.
    NotMappable,
    /// The BAR is smaller than a page, and the page is not its own: in the host, or where the guest put it.
    SubPage,
    /// The page holds part of the MSI-X table.
    MsixTable,
    /// The page holds MSI-X pending bits.
    MsixPending,
    /// The host allows no more mappings.
    Limit,
    /// A mapping failed when it was made.
    Failed,
    /// The expansion ROM: it is read seldom and never written.
    Rom,
    /// The page holds registers that must not reach the function, such as a mirror of its configuration space.
    Quirk,
    /// The function did not answer when it was accessed, and was taken out of the guest's address space.
    Unanswered,
}

/// Where the function has its MSI-X structures, all of them: also those of vectors that the guest does not see, and also
/// when it sees no MSI-X. They are never the guest's to touch, since whoever writes the table chooses where the function's
/// messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixStructures {
    /// The table: 16 bytes an entry.
    pub table: BarRange,
    /// The pending bits: 8 bytes for each 64 entries begun.
    pub pending: BarRange,
}

/// Divides the BARs into pieces. All that can be mapped is mapped, except the pages that hold the MSI-X table, pending
/// bits, or one of the ranges `quirks`, and except the expansion ROM; if the host allows fewer mappings than that takes,
/// the smallest are trapped, first those that it can read and write in another way.
pub fn plan(
    bars: &[Bar],
    description: &Description,
    msix: Option<&MsixStructures>,
    quirks: &[BarRange],
    report: &Report,
) -> Vec<Piece> {
    let structures =
        msix.into_iter().flat_map(|m| [(m.table, Reason::MsixTable), (m.pending, Reason::MsixPending)]);
    let trapped: Vec<(BarRange, Reason)> = structures
        .chain(quirks.iter().map(|range| (*range, Reason::Quirk)))
        .filter(|(r, _)| r.len > 0)
        .collect();
    let mut pieces = Vec::new();
    for bar in bars {
        plan_bar(bar, description, &trapped, report.granularity.max(1), &mut pieces);
    }
    if let Some(limit) = report.mappings {
        let mut mapped: Vec<&mut Piece> =
            pieces.iter_mut().filter(|p| p.backing == Backing::Mapped).collect();
        mapped.sort_by_key(|p| (is_accessible(description, p), std::cmp::Reverse(p.range.len)));
        for piece in mapped.into_iter().skip(limit as usize) {
            piece.backing = Backing::Trapped(Reason::Limit);
        }
    }
    pieces
}

fn is_accessible(description: &Description, piece: &Piece) -> bool {
    match piece.range.bar {
        bar::ROM => description.rom.accessible,
        index => description.bars.get(usize::from(index)).is_some_and(|region| region.accessible),
    }
}

/// The pieces that are neither mapped nor answered by anybody.
pub fn unreachable<'a>(
    pieces: &'a [Piece],
    description: &'a Description,
) -> impl Iterator<Item = BarRange> + 'a {
    let is_host = |piece: &Piece| match piece.backing {
        Backing::Mapped
        | Backing::Trapped(
            Reason::Io | Reason::Rom | Reason::MsixTable | Reason::MsixPending | Reason::Quirk,
        ) => false,
        Backing::Trapped(_) => true,
    };
    let is_lost = move |piece: &&Piece| is_host(piece) && !is_accessible(description, piece);
    pieces.iter().filter(is_lost).map(|piece| piece.range)
}

fn plan_bar(
    bar: &Bar,
    description: &Description,
    trapped: &[(BarRange, Reason)],
    page: u64,
    pieces: &mut Vec<Piece>,
) {
    let mut push = |range: Range<u64>, backing| {
        if range.start < range.end {
            let range = BarRange { bar: bar.index, offset: range.start, len: range.end - range.start };
            pieces.push(Piece { range, backing });
        }
    };
    if bar.kind == BarKind::Io {
        return push(0..bar.size, Backing::Trapped(Reason::Io));
    }
    if bar.index == bar::ROM {
        return push(0..bar.size, Backing::Trapped(Reason::Rom));
    }
    let none = Vec::new();
    let mappable = description.bars.get(usize::from(bar.index)).map_or(&none, |r| &r.mappable);
    let mut trapped: Vec<(Range<u64>, Reason)> = trapped
        .iter()
        .filter(|(range, _)| range.bar == bar.index)
        .map(|(range, reason)| (pages(range, page, bar.size), *reason))
        .filter(|(range, _)| range.start < range.end)
        .collect();
    trapped.sort_by_key(|(range, _)| range.start);
    if bar.size < page {
        let backing = match trapped.first() {
            Some((_, reason)) => Backing::Trapped(*reason),
            // The host has the rest of the page to give as well: nothing else is in it there.
            None if mappable.iter().any(|area| area.start == 0 && area.end >= page) => Backing::Mapped,
            None => Backing::Trapped(Reason::SubPage),
        };
        return push(0..bar.size, backing);
    }

    let mut at = 0;
    for (range, reason) in trapped.into_iter().chain([(bar.size..bar.size, Reason::NotMappable)]) {
        // Several may be in one page.
        let start = range.start.max(at);
        plan_plain(at..start, mappable, page, &mut push);
        push(start..range.end, Backing::Trapped(reason));
        at = range.end.max(start);
    }
}

/// The whole pages that a structure touches, cut off at the BAR's end.
fn pages(range: &BarRange, page: u64, size: u64) -> Range<u64> {
    let end = range.offset.saturating_add(range.len);
    let start = range.offset / page * page;
    start.min(size)..end.checked_next_multiple_of(page).unwrap_or(u64::MAX).min(size)
}

fn plan_plain(
    part: Range<u64>,
    mappable: &[Range<u64>],
    page: u64,
    push: &mut impl FnMut(Range<u64>, Backing),
) {
    let mut at = part.start;
    for area in mappable {
        let Some(start) = area.start.max(at).checked_next_multiple_of(page) else { continue };
        let end = area.end.min(part.end) / page * page;
        if start >= end {
            continue;
        }
        push(at..start, Backing::Trapped(Reason::NotMappable));
        push(start..end, Backing::Mapped);
        at = end;
    }
    push(at..part.end, Backing::Trapped(Reason::NotMappable));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::test_support::report;
    use crate::host::Region;

    const KIND: BarKind = BarKind::Memory64 { prefetchable: false };

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
        plan(&[bar], &description, msix.as_ref(), &quirks, &report())
            .iter()
            .map(|p| {
                let end = p.range.offset + p.range.len;
                match p.backing {
                    Backing::Mapped => format!("{:x}-{end:x} mapped", p.range.offset),
                    Backing::Trapped(reason) => format!("{:x}-{end:x} {reason:?}", p.range.offset),
                }
            })
            .collect()
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
                vec!["0-1000 MsixTable", "1000-3000 mapped", "3000-4000 Quirk"],
            ),
            (
                "a quirk that covers the BAR",
                shown_with(0x2000, &all(0x2000), None, &[(0, u64::MAX)]),
                vec!["0-2000 Quirk"],
            ),
            (
                "QEMU's NVMe: table and pending bits in pages of their own at the end",
                shown(0x4000, &all(0x4000), Some((0x2000, 0x410, 0x3000, 0x10))),
                vec!["0-2000 mapped", "2000-3000 MsixTable", "3000-4000 MsixPending"],
            ),
            (
                "table first, pending bits in the middle",
                shown(0x10000, &all(0x10000), Some((0, 0x1000, 0x8000, 0x20))),
                vec!["0-1000 MsixTable", "1000-8000 mapped", "8000-9000 MsixPending", "9000-10000 mapped"],
            ),
            (
                "both in one page",
                shown(0x4000, &all(0x4000), Some((0x1000, 0x50, 0x1800, 8))),
                vec!["0-1000 mapped", "1000-2000 MsixTable", "2000-4000 mapped"],
            ),
            (
                "pending bits straddle a page, before the table",
                shown(0x8000, &all(0x8000), Some((0x4000, 0x10, 0x1ff8, 0x10))),
                vec![
                    "0-1000 mapped",
                    "1000-3000 MsixPending",
                    "3000-4000 mapped",
                    "4000-5000 MsixTable",
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
        let pieces = plan(&bars, &description, None, &[], &report);
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
            let pieces = plan(&[bar], &description, None, &[], &report());
            let range = BarRange { bar: bar::ROM, offset: 0, len: 0x800 };
            assert_eq!(pieces, [Piece { range, backing: Backing::Trapped(Reason::Rom) }]);
            assert_eq!(unreachable(&pieces, &description).count(), 0);
        }
    }
}
