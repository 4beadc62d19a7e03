//! Which BAR answers where, when a guest has the say.
//!
//! A guest may put a BAR on top of RAM, of another BAR, or where no host bridge leads. A BAR that would overlap one that
//! answers already, or that is not wholly inside a window of its bus, answers nowhere until what stands in its way
//! moves; the one that was there first stays.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::function::Placement;
use crate::pci::Space;

/// A function in the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u32);

/// Ranges in which the BARs of a bus can answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Memory addresses.
    pub memory: Vec<Range<u64>>,
    /// Ports.
    pub io: Vec<Range<u64>>,
}

impl Windows {
    fn contains(&self, space: Space, range: &Range<u64>) -> bool {
        let windows = match space {
            Space::Memory => &self.memory,
            Space::Io => &self.io,
        };
        windows.iter().any(|w| w.start <= range.start && range.end <= w.end)
    }
}

/// A BAR that answers somewhere, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Whose it is.
    pub owner: OwnerId,
    /// BAR 0 to 5.
    pub bar: u8,
    /// Memory or I/O.
    pub space: Space,
    /// Where.
    pub range: Range<u64>,
}

/// What a change amounts to: first everything of `remove` goes, then everything of `add` comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// BARs that no longer answer there.
    pub remove: Vec<Placed>,
    /// BARs that answer there from now on.
    pub add: Vec<Placed>,
    /// BARs that were put where they cannot answer.
    pub refused: Vec<Placed>,
}

/// Who answers where. Pure: nothing is mapped here.
#[derive(Debug, Default)]
pub struct Layout {
    windows: BTreeMap<OwnerId, Arc<Windows>>,
    placed: BTreeMap<(Space, u64), Placed>,
    /// Where in `placed` each BAR is.
    answering: BTreeMap<(OwnerId, u8), (Space, u64)>,
    /// In the order in which they were made.
    waiting: Vec<Placed>,
}

impl Layout {
    /// Lets an owner's BARs answer inside `windows`.
    pub fn add_owner(&mut self, owner: OwnerId, windows: Arc<Windows>) {
        self.windows.insert(owner, windows);
    }

    /// Takes away all that an owner has.
    pub fn remove_owner(&mut self, owner: OwnerId) -> Changes {
        self.windows.remove(&owner);
        self.waiting.retain(|p| p.owner != owner);
        let mut changes = Changes::default();
        let bars: Vec<u8> =
            self.answering.range((owner, 0)..=(owner, u8::MAX)).map(|((_, bar), _)| *bar).collect();
        changes.remove.extend(bars.into_iter().filter_map(|bar| self.take(owner, bar)));
        self.place_waiting(&mut changes);
        changes
    }

    /// Moves BARs of an owner.
    pub fn place(&mut self, owner: OwnerId, moves: &[Placement]) -> Changes {
        let mut changes = Changes::default();
        for change in moves {
            self.waiting.retain(|p| (p.owner, p.bar) != (owner, change.bar));
            changes.remove.extend(self.take(owner, change.bar));
        }
        for change in moves {
            let Some(base) = change.base else { continue };
            let range = base..base.saturating_add(change.size);
            self.waiting.push(Placed { owner, bar: change.bar, space: change.space, range });
        }
        self.place_waiting(&mut changes);
        let refused = |p: &&Placed| p.owner == owner && moves.iter().any(|m| m.bar == p.bar);
        changes.refused = self.waiting.iter().filter(refused).cloned().collect();
        changes
    }

    fn take(&mut self, owner: OwnerId, bar: u8) -> Option<Placed> {
        let key = self.answering.remove(&(owner, bar))?;
        self.placed.remove(&key)
    }

    fn place_waiting(&mut self, changes: &mut Changes) {
        let waiting = std::mem::take(&mut self.waiting);
        for placed in waiting {
            let inside =
                self.windows.get(&placed.owner).is_some_and(|w| w.contains(placed.space, &placed.range));
            if inside && self.is_free(placed.space, &placed.range) {
                let key = (placed.space, placed.range.start);
                self.answering.insert((placed.owner, placed.bar), key);
                self.placed.insert(key, placed.clone());
                changes.add.push(placed);
            } else {
                self.waiting.push(placed);
            }
        }
    }

    fn is_free(&self, space: Space, range: &Range<u64>) -> bool {
        let below = self.placed.range((space, 0)..(space, range.end)).next_back();
        below.is_none_or(|(_, p)| p.range.end <= range.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: OwnerId = OwnerId(1);
    const B: OwnerId = OwnerId(2);

    fn layout() -> Layout {
        let mut layout = Layout::default();
        let windows = Windows {
            memory: vec![0xc000_0000..0xe000_0000, 0x1_0000_0000..0x2_0000_0000],
            io: vec![0x1000..0x1_0000],
        };
        for owner in [A, B] {
            layout.add_owner(owner, Arc::new(windows.clone()));
        }
        layout
    }

    fn at(bar: u8, base: u64, size: u64) -> Placement {
        Placement { bar, space: Space::Memory, size, base: Some(base) }
    }

    fn bars(placed: &[Placed]) -> Vec<(OwnerId, u8)> {
        placed.iter().map(|p| (p.owner, p.bar)).collect()
    }

    #[test]
    fn bars_answer_in_windows_only() {
        for (base, answers) in [
            (0xc000_0000, true),
            (0xdfff_f000, true),
            (0xdfff_f800, false),
            (0xe000_0000, false),
            (0, false),
            (0x1_0000_0000, true),
            (u64::MAX - 0xfff, false),
        ] {
            let changes = layout().place(A, &[at(0, base, 0x1000)]);
            assert_eq!(changes.add.len() == 1, answers, "{base:#x}");
            assert_eq!(changes.refused.len() == 1, !answers, "{base:#x}");
        }
        let io = Placement { bar: 1, space: Space::Io, size: 0x20, base: Some(0xfffffff0) };
        assert_eq!(layout().place(A, &[io]).add, []);
    }

    #[test]
    fn the_first_stays_and_the_second_waits() {
        let mut layout = layout();
        layout.place(A, &[at(0, 0xc000_0000, 0x4000)]);
        let changes = layout.place(B, &[at(2, 0xc000_3000, 0x1000)]);
        assert_eq!((bars(&changes.add), bars(&changes.refused)), (vec![], vec![(B, 2)]));
        let changes = layout.place(A, &[at(0, 0xc001_0000, 0x4000)]);
        assert_eq!((bars(&changes.remove), bars(&changes.add)), (vec![(A, 0)], vec![(B, 2), (A, 0)]));
        let changes = layout.remove_owner(B);
        assert_eq!((bars(&changes.remove), changes.add), (vec![(B, 2)], vec![]));
    }

    #[test]
    fn bars_that_swap_in_one_change_both_answer() {
        let mut layout = layout();
        layout.place(A, &[at(0, 0xc000_0000, 0x1000), at(1, 0xc000_1000, 0x1000)]);
        let changes = layout.place(A, &[at(0, 0xc000_1000, 0x1000), at(1, 0xc000_0000, 0x1000)]);
        assert_eq!((changes.remove.len(), changes.add.len(), changes.refused.len()), (2, 2, 0));
    }

    proptest! {
        #[test]
        fn what_answers_never_overlaps_and_is_what_the_changes_say(
            steps in prop::collection::vec((any::<bool>(), 0u8..3, prop::option::of(0u64..64), 0u32..4), 0..60)
        ) {
            let mut layout = layout();
            let mut answering: Vec<Placed> = Vec::new();
            for (second, bar, page, log) in steps {
                let size = 0x1000u64 << log;
                let base = page.map(|p| (0xbfff_0000 + p * 0x1000) & !(size - 1));
                let owner = if second { B } else { A };
                let changes = layout.place(owner, &[Placement { bar, space: Space::Memory, size, base }]);
                for gone in &changes.remove {
                    let before = answering.len();
                    answering.retain(|p| p != gone);
                    prop_assert_eq!(answering.len(), before - 1);
                }
                for new in changes.add {
                    prop_assert!(new.range.start >= 0xc000_0000);
                    prop_assert!(answering.iter().all(|p| p.range.end <= new.range.start || new.range.end <= p.range.start));
                    answering.push(new);
                }
            }
        }
    }
}
