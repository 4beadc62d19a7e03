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
    /// Reads take no exit: the guest reads memory of this process, which always holds the MSI-X table as the guest wrote it
    /// and the pending bits, and zero elsewhere. Writes exit, for this reason, and are answered here or by the host.
    ReadOnly(Reason),
    /// Accesses exit and are answered here or by the host.
    Trapped(Reason),
}

impl Backing {
    /// Why accesses exit, or only writes.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Backing::Mapped => None,
            Backing::ReadOnly(reason) | Backing::Trapped(reason) => Some(reason),
        }
    }

    /// Reads take no exit, and writes do.
    pub fn is_read_only(self) -> bool {
        matches!(self, Backing::ReadOnly(_))
    }
}

/// Why a part of a BAR is trapped, as a whole or for writes.
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
    /// The page holds MSI-X structures and registers of the function's own, which the guest may read; or it may hold
    /// some, since it does not begin with a structure.
    MsixShared,
    /// The page holds MSI-X pending bits, and the host does not tell of them as they change.
    PendingUntold,
    /// The page holds MSI-X structures, and reads of it are to exit.
    Asked,
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

/// What decides whether reads of the pages that hold MSI-X structures exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsixReads {
    /// The guest sees MSI-X: there is something to read in them.
    pub shown: bool,
    /// They hold registers of the function's own as well, against PCI 3.0 §6.8.2, and behind the structures too. Those in
    /// front of them need not be known: what does not begin with a structure is taken to hold some.
    pub shared: bool,
    /// Reads of them are to exit.
    pub trap: bool,
}

/// Pages of a BAR that are not mapped.
struct Kept {
    pages: Range<u64>,
    /// The first byte of what is in them.
    first: u64,
    what: What,
}

impl Kept {
    /// Where what is said of these pages may change: the first of them may have something else in front, the others begin
    /// with what is in them.
    fn places(&self, page: u64) -> [u64; 3] {
        let Range { start, end } = self.pages;
        [start, start.saturating_add(page).min(end), end]
    }

    /// What is in these pages is there from byte `at` on, where one of them begins.
    fn begins(&self, at: u64) -> bool {
        self.first <= at
    }
}

/// What is in such a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Table,
    Pending,
    Quirk,
}

/// The pages of which the specification keeps other registers away from MSI-X structures (PCI 3.0 §6.8.2). Larger ones of
/// a host may have some.
const MSIX_PAGE: u64 = 4096;

/// Divides the BARs into pieces. All that can be mapped is mapped, except the pages that hold the MSI-X table, pending
/// bits, or one of the ranges `quirks`, and except the expansion ROM; if the host allows fewer mappings than that takes,
/// the smallest are trapped, first those that it can read and write in another way. The guest reads pages of the table and
/// the pending bits without an exit, unless `reads` or the host speak against that, or something is in front of them: a
/// function that keeps PCI 3.0 §6.8.2 has no reason to leave room there, and one that does not has its registers there.
pub fn plan(
    bars: &[Bar],
    description: &Description,
    msix: Option<&MsixStructures>,
    reads: MsixReads,
    quirks: &[BarRange],
    report: &Report,
) -> Vec<Piece> {
    let structures = msix.into_iter().flat_map(|m| [(m.table, What::Table), (m.pending, What::Pending)]);
    let kept: Vec<(BarRange, What)> = structures
        .chain(quirks.iter().map(|range| (*range, What::Quirk)))
        .filter(|(r, _)| r.len > 0)
        .collect();
    let mut pieces = Vec::new();
    for bar in bars {
        plan_bar(bar, description, &kept, reads, report, &mut pieces);
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

/// What becomes of pages that hold all of this, and begin with a structure or not; the reason against reads without an exit
/// that says most is given.
fn backing_of(what: &[What], begins: bool, reads: MsixReads, report: &Report) -> Backing {
    let structure = if what.contains(&What::Table) { Reason::MsixTable } else { Reason::MsixPending };
    if what.contains(&What::Quirk) {
        Backing::Trapped(Reason::Quirk)
    } else if !reads.shown {
        Backing::Trapped(structure)
    } else if reads.trap {
        Backing::Trapped(Reason::Asked)
    } else if reads.shared || !begins || report.granularity > MSIX_PAGE {
        Backing::Trapped(Reason::MsixShared)
    } else if what.contains(&What::Pending) && !report.keeps_pending {
        Backing::Trapped(Reason::PendingUntold)
    } else {
        Backing::ReadOnly(structure)
    }
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
        Backing::Mapped | Backing::ReadOnly(_) => false,
        Backing::Trapped(reason) => {
            matches!(reason, Reason::NotMappable | Reason::SubPage | Reason::Limit | Reason::Failed)
        }
    };
    let is_lost = move |piece: &&Piece| is_host(piece) && !is_accessible(description, piece);
    pieces.iter().filter(is_lost).map(|piece| piece.range)
}

fn plan_bar(
    bar: &Bar,
    description: &Description,
    kept: &[(BarRange, What)],
    reads: MsixReads,
    report: &Report,
    pieces: &mut Vec<Piece>,
) {
    let page = report.granularity.max(1);
    let mut push = |range: Range<u64>, backing| {
        if range.start < range.end {
            let range = BarRange { bar: bar.index, offset: range.start, len: range.end - range.start };
            match pieces.last_mut() {
                // Both structures, or a structure and its neighbour, as one.
                Some(Piece { range: last, backing: same })
                    if last.bar == range.bar && *same == backing && backing != Backing::Mapped =>
                {
                    last.len += range.len;
                }
                _ => pieces.push(Piece { range, backing }),
            }
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
    let kept: Vec<Kept> = kept
        .iter()
        .filter(|(range, _)| range.bar == bar.index)
        .map(|(range, what)| Kept { pages: pages(range, page, bar.size), first: range.offset, what: *what })
        .filter(|kept| kept.pages.start < kept.pages.end)
        .collect();
    if bar.size < page {
        let whole = mappable.iter().any(|area| area.start == 0 && area.end >= page);
        let backing = match kept.first().map(|kept| kept.what) {
            Some(What::Quirk) => Backing::Trapped(Reason::Quirk),
            // Whatever else is in its page is not kept away from it.
            Some(What::Table) => Backing::Trapped(Reason::MsixTable),
            Some(What::Pending) => Backing::Trapped(Reason::MsixPending),
            // The host has the rest of the page to give as well: nothing else is in it there.
            None if whole => Backing::Mapped,
            None => Backing::Trapped(Reason::SubPage),
        };
        return push(0..bar.size, backing);
    }

    // Between two of these places everything is alike.
    let mut places: Vec<u64> = kept.iter().flat_map(|kept| kept.places(page)).collect();
    places.extend([0, bar.size]);
    places.sort_unstable();
    places.dedup();
    for (start, end) in places.iter().copied().zip(places.iter().copied().skip(1)) {
        let inside = || kept.iter().filter(|kept| kept.pages.contains(&start));
        let what: Vec<What> = inside().map(|kept| kept.what).collect();
        let begins = inside().any(|kept| kept.begins(start));
        match what.as_slice() {
            [] => plan_plain(start..end, mappable, page, &mut push),
            what => push(start..end, backing_of(what, begins, reads, report)),
        }
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
mod tests;
