//! What one function has in the address space: mappings and traps, and where.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use log::{debug, warn};

use super::layout::Placed;
use crate::function::pieces::{Backing, Piece, Reason};
use crate::host::{BarRange, HostFunction};
use crate::pci::{Slot, Space};
use crate::ports::{BarAccess, Trap};

pub(super) struct Owner {
    pub(super) host: Arc<dyn HostFunction>,
    access: Arc<dyn BarAccess>,
    slot: Slot,
    pieces: Vec<Piece>,
    /// Pieces that could be mapped and are not where their BAR is now, and why; they are trapped there.
    exceptions: HashMap<BarRange, Reason>,
    /// A mapping failed before, and that was said.
    warned: bool,
    /// The function did not answer before, and that was said.
    withdrawn: bool,
    /// What is mapped and where, so that exactly this is unmapped.
    mapped: Vec<(BarRange, u64)>,
    /// What is trapped and where.
    trapped: Vec<(u8, Space, Range<u64>)>,
}

/// A mapping that the host failed to take away, or took away in part. The guest, or other functions' DMA, may reach it
/// until it goes.
pub(super) struct Stuck {
    pub(super) host: Arc<dyn HostFunction>,
    pub(super) range: BarRange,
    pub(super) guest: u64,
}

impl Stuck {
    pub(super) fn overlaps(&self, guest: &Range<u64>) -> bool {
        self.guest < guest.end && guest.start < self.guest.saturating_add(self.range.len)
    }

    /// Tries again; says whether it is gone.
    pub(super) fn unmap(&self) -> bool {
        match self.host.unmap(self.range, self.guest) {
            Ok(()) => true,
            Err(error) => {
                debug!("{error}");
                false
            }
        }
    }
}

impl Owner {
    pub(super) fn new(
        host: Arc<dyn HostFunction>,
        access: Arc<dyn BarAccess>,
        slot: Slot,
        pieces: Vec<Piece>,
    ) -> Owner {
        Owner {
            host,
            access,
            slot,
            pieces,
            exceptions: HashMap::new(),
            warned: false,
            withdrawn: false,
            mapped: Vec::new(),
            trapped: Vec::new(),
        }
    }

    pub(super) fn is_mapped(&self) -> bool {
        !self.mapped.is_empty()
    }

    #[cfg(test)]
    pub(super) fn mappings(&self) -> &[(BarRange, u64)] {
        &self.mapped
    }

    /// How each part of the BARs reaches the guest, where they are now.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        self.pieces.iter().map(|piece| self.now(piece)).collect()
    }

    fn now(&self, piece: &Piece) -> Piece {
        match self.exceptions.get(&piece.range) {
            Some(reason) => Piece { backing: Backing::Trapped(*reason), ..*piece },
            None => *piece,
        }
    }

    /// A guest can make it fail as often as it likes: only the first time is worth a warning.
    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        if std::mem::replace(&mut self.warned, true) {
            debug!("{what}");
        } else {
            warn!("{what}");
        }
    }

    /// Unmaps a BAR, as far as the host does.
    pub(super) fn unmap(&mut self, bar: u8, stuck: &mut Vec<Stuck>) {
        let mapped: Vec<(BarRange, u64)> = self.mapped.extract_if(.., |m| m.0.bar == bar).collect();
        for (range, guest) in mapped {
            if let Err(error) = self.host.unmap(range, guest) {
                self.say(format_args!("{error}; the guest may reach it there until that succeeds"));
                stuck.push(Stuck { host: self.host.clone(), range, guest });
            }
        }
    }

    /// Maps what can be mapped of a BAR. What fails is trapped there: slower, but it works.
    pub(super) fn map(&mut self, placed: &Placed, stuck: &[Stuck]) {
        self.exceptions.retain(|range, _| range.bar != placed.bar);
        let page = self.host.report().granularity.max(1);
        let mappable = |p: &&Piece| p.range.bar == placed.bar && p.backing == Backing::Mapped;
        let pieces: Vec<BarRange> = self.pieces.iter().filter(mappable).map(|p| p.range).collect();
        for piece in pieces {
            if piece.len < page && !placed.whole_pages {
                self.exceptions.insert(piece, Reason::SubPage);
                continue;
            }
            let range = BarRange { len: piece.len.next_multiple_of(page), ..piece };
            let guest = placed.range.start + range.offset;
            let there = guest..guest + range.len;
            // Also when it is just this that could not be unmapped here: part of it may be gone, and nobody knows which.
            // The trap answers where it is, and what is left of the mapping leads to the same registers.
            if let Some(other) = stuck.iter().find(|s| s.overlaps(&there)) {
                let what = format!(
                    "{}: {piece} is not mapped at {guest:#x}: {} of {} could not be unmapped there",
                    self.host.name(),
                    other.range,
                    other.host.name()
                );
                self.say(format_args!("{what}"));
                self.exceptions.insert(piece, Reason::Failed);
            } else if let Err(error) = self.host.map(range, guest) {
                self.say(format_args!("{error}; every access to this part will exit while it is there"));
                self.exceptions.insert(piece, Reason::Failed);
            } else {
                self.mapped.push((range, guest));
            }
        }
    }

    /// The function does not answer: whatever could be mapped of this BAR is trapped.
    pub(super) fn withdraw(&mut self, bar: u8) {
        if !std::mem::replace(&mut self.withdrawn, true) {
            warn!(
                "{}: does not answer; its BARs read all-ones until the guest enables them again",
                self.host.name()
            );
        }
        let mappable = |p: &&Piece| p.range.bar == bar && p.backing == Backing::Mapped;
        let ranges: Vec<BarRange> = self.pieces.iter().filter(mappable).map(|p| p.range).collect();
        self.exceptions.extend(ranges.into_iter().map(|range| (range, Reason::Unanswered)));
    }

    /// What a BAR traps where it is.
    pub(super) fn traps(&self, placed: &Placed) -> impl Iterator<Item = Trap> {
        let trapped = |p: &Piece| p.range.bar == placed.bar && p.backing != Backing::Mapped;
        self.pieces.iter().map(|p| self.now(p)).filter(trapped).map(|p| {
            let start = placed.range.start + p.range.offset;
            Trap {
                space: placed.space,
                range: start..start + p.range.len,
                target: self.access.clone(),
                slot: self.slot,
                bar: placed.bar,
                offset: p.range.offset,
            }
        })
    }

    /// Notes that a range is trapped.
    pub(super) fn note_trap(&mut self, trap: &Trap) {
        self.trapped.push((trap.bar, trap.space, trap.range.clone()));
    }

    /// Forgets what a BAR traps, and gives it.
    pub(super) fn take_traps(&mut self, bar: u8) -> impl Iterator<Item = (Space, Range<u64>)> {
        self.trapped.extract_if(.., move |t| t.0 == bar).map(|(_, space, range)| (space, range))
    }
}
