//! What one function has in the address space: mappings and traps, and where.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use log::{debug, warn};

use super::layout::Placed;
use super::mapping::{Behind, Mapping};
use super::read_only::ReadOnlyPages;
use crate::function::pieces::{Backing, Piece, Reason};
use crate::host::{BarRange, Cause, HostFunction};
use crate::pci::{Slot, Space};
use crate::ports::{BarAccess, MemoryPort, PortError, Trap};

pub(super) struct Owner {
    pub(super) host: Arc<dyn HostFunction>,
    access: Arc<dyn BarAccess>,
    slot: Slot,
    pieces: Vec<Piece>,
    /// What the guest reads in the place of the read-only ones.
    pages: Vec<ReadOnlyPages>,
    /// Pieces that could be mapped and are not where their BAR is now, and why; they are trapped there.
    exceptions: HashMap<BarRange, Reason>,
    /// A mapping failed before, and that was said.
    warned: bool,
    /// The function did not answer before, and that was said.
    withdrawn: bool,
    mapped: Vec<Mapping>,
    /// What is trapped and where.
    trapped: Vec<(u8, Space, Range<u64>)>,
}

impl Owner {
    pub(super) fn new(
        host: Arc<dyn HostFunction>,
        access: Arc<dyn BarAccess>,
        slot: Slot,
        pieces: Vec<Piece>,
        pages: Vec<ReadOnlyPages>,
    ) -> Owner {
        Owner {
            host,
            access,
            slot,
            pieces,
            pages,
            exceptions: HashMap::new(),
            warned: false,
            withdrawn: false,
            mapped: Vec::new(),
            trapped: Vec::new(),
        }
    }

    /// Something of the function itself is mapped.
    pub(super) fn reaches_host(&self) -> bool {
        self.mapped.iter().any(Mapping::reaches_host)
    }

    #[cfg(test)]
    pub(super) fn pages(&self) -> &[ReadOnlyPages] {
        &self.pages
    }

    #[cfg(test)]
    pub(super) fn mappings(&self) -> &[Mapping] {
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

    /// Unmaps a BAR, as far as that can be done.
    pub(super) fn unmap(&mut self, bar: u8, memory: &dyn MemoryPort, stuck: &mut Vec<Mapping>) {
        self.unmap_those(|mapping| mapping.range.bar == bar, memory, stuck);
    }

    fn unmap_those(
        &mut self,
        is_one: impl Fn(&Mapping) -> bool,
        memory: &dyn MemoryPort,
        stuck: &mut Vec<Mapping>,
    ) {
        let mapped: Vec<Mapping> = self.mapped.extract_if(.., |mapping| is_one(mapping)).collect();
        for mapping in mapped {
            if let Err(error) = mapping.unmap(memory) {
                self.say(format_args!("{error}; the guest may reach it there until that succeeds"));
                stuck.push(mapping);
            }
        }
    }

    /// What is behind a piece that takes no exit, or none for reads.
    fn behind(&self, piece: &Piece) -> Option<Behind> {
        match piece.backing {
            Backing::Mapped => Some(Behind::Host(self.host.clone())),
            Backing::ReadOnly(_) => {
                let pages = self.pages.iter().find(|pages| pages.range() == piece.range)?;
                Some(Behind::Pages(self.host.name().clone(), pages.clone()))
            }
            Backing::Trapped(_) => None,
        }
    }

    /// Maps what can be mapped of a BAR. What fails is trapped there: slower, but it works.
    pub(super) fn map(&mut self, placed: &Placed, memory: &dyn MemoryPort, stuck: &[Mapping]) {
        self.exceptions.retain(|range, _| range.bar != placed.bar);
        let page = self.host.report().granularity.max(1);
        let of_bar = self.pieces.iter().filter(|p| p.range.bar == placed.bar);
        let pieces: Vec<(BarRange, Behind)> =
            of_bar.filter_map(|piece| Some((piece.range, self.behind(piece)?))).collect();
        for (piece, behind) in pieces {
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
                    other.name()
                );
                self.say(format_args!("{what}"));
                self.exceptions.insert(piece, Reason::Failed);
                continue;
            }
            match Mapping::new(behind, range, guest, memory) {
                Ok(mapping) => self.mapped.push(mapping),
                Err(error) => {
                    // A VMM that cannot map memory at all need not hear that each time.
                    match &error.source {
                        Cause::Port(PortError { source, .. })
                            if source.kind() == io::ErrorKind::Unsupported =>
                        {
                            debug!("{error}; every access to this part will exit")
                        }
                        _ => self.say(format_args!(
                            "{error}; every access to this part will exit while it is there"
                        )),
                    }
                    self.exceptions.insert(piece, Reason::Failed);
                }
            }
        }
    }

    /// Reads of this part exit from now on, wherever its BAR is, which took none before. The trap that has its writes has
    /// them as well: nothing changes but that there is no mapping over it.
    pub(super) fn trap_reads(
        &mut self,
        range: BarRange,
        reason: Reason,
        memory: &dyn MemoryPort,
        stuck: &mut Vec<Mapping>,
    ) {
        let piece = self.pieces.iter_mut().find(|piece| piece.range == range);
        let Some(piece) = piece.filter(|piece| piece.backing.is_read_only()) else { return };
        piece.backing = Backing::Trapped(reason);
        self.exceptions.remove(&range);
        self.unmap_those(|mapping| mapping.range == range, memory, stuck);
    }

    /// The function does not answer: whatever could be mapped of this BAR is trapped.
    pub(super) fn withdraw(&mut self, bar: u8) {
        if !std::mem::replace(&mut self.withdrawn, true) {
            warn!(
                "{}: does not answer; its BARs read all-ones until the guest enables them again",
                self.host.name()
            );
        }
        let mappable = |p: &&Piece| p.range.bar == bar && !matches!(p.backing, Backing::Trapped(_));
        let ranges: Vec<BarRange> = self.pieces.iter().filter(mappable).map(|p| p.range).collect();
        self.exceptions.extend(ranges.into_iter().map(|range| (range, Reason::Unanswered)));
    }

    /// What a BAR traps where it is; of what is read-only, the writes.
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
