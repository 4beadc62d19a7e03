//! Which BAR answers where, when a guest has the say.
//!
//! A guest may put a BAR on top of RAM, of another BAR, or where no host bridge leads. A BAR that would overlap one that
//! answers already, or that is not wholly inside a window of its bus, answers nowhere until what stands in its way
//! moves; the one that was there first stays.
//!
//! Memory is mapped by pages. A BAR that is smaller than a page can be mapped only while the page is its own: it begins the
//! page, the whole page is inside the windows, and nothing else answers in it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
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
    /// BAR 0 to 5, or [`crate::pci::bar::ROM`].
    pub bar: u8,
    /// Memory or I/O.
    pub space: Space,
    /// Where.
    pub range: Range<u64>,
    /// The pages that it touches are its own: nothing else can be reached through them.
    pub whole_pages: bool,
}

/// What a change amounts to: first everything of `remove` goes, then everything of `add` comes. A BAR whose page becomes
/// its own, or no longer is, goes and comes again at the same address.
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
#[derive(Debug)]
pub struct Layout {
    windows: BTreeMap<OwnerId, Arc<Windows>>,
    placed: BTreeMap<(Space, u64), Placed>,
    /// Where in `placed` each BAR is.
    answering: BTreeMap<(OwnerId, u8), (Space, u64)>,
    /// In the order in which they were made; each BAR is here once at most.
    waiting: Vec<Placed>,
    page: u64,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            windows: BTreeMap::new(),
            placed: BTreeMap::new(),
            answering: BTreeMap::new(),
            waiting: Vec::new(),
            page: 4096,
        }
    }
}

impl Layout {
    /// Lets an owner's BARs answer inside `windows`.
    pub fn add_owner(&mut self, owner: OwnerId, windows: Arc<Windows>) {
        self.windows.insert(owner, windows);
    }

    /// Pages have at least this many bytes, a power of two. 4096 if nobody says more.
    pub fn coarsen(&mut self, page: u64) {
        if page.is_power_of_two() {
            self.page = self.page.max(page);
        }
    }

    /// Changes the windows in which an owner's BARs answer. Those that stay inside are not disturbed; those that fell
    /// outside wait, and those that waited are placed where they now can be.
    pub fn set_windows(&mut self, owner: OwnerId, windows: Arc<Windows>) -> Changes {
        let mut changes = Changes::default();
        if self.windows.get(&owner).is_none_or(|old| *old == windows) {
            return changes;
        }
        let mut pages = BTreeSet::new();
        for bar in self.bars(owner) {
            let Some(placed) = self.answering.get(&(owner, bar)).and_then(|key| self.placed.get(key)) else {
                continue;
            };
            if windows.contains(placed.space, &placed.range) {
                pages.extend(self.shared_page(placed));
            } else if let Some(placed) = self.take(owner, bar) {
                self.waiting.push(Placed { whole_pages: false, ..placed.clone() });
                changes.remove.push(placed);
            }
        }
        self.windows.insert(owner, windows);
        self.place_waiting(&mut changes);
        self.settle_pages(&mut changes, pages);
        changes.refused = self.waiting.iter().filter(|p| p.owner == owner).cloned().collect();
        changes
    }

    /// Takes away all that an owner has.
    pub fn remove_owner(&mut self, owner: OwnerId) -> Changes {
        self.windows.remove(&owner);
        self.waiting.retain(|p| p.owner != owner);
        let mut changes = Changes::default();
        changes.remove.extend(self.bars(owner).into_iter().filter_map(|bar| self.take(owner, bar)));
        self.place_waiting(&mut changes);
        self.settle_pages(&mut changes, BTreeSet::new());
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
            let Placement { bar, space, .. } = *change;
            self.waiting.push(Placed { owner, bar, space, range, whole_pages: false });
        }
        self.place_waiting(&mut changes);
        self.settle_pages(&mut changes, BTreeSet::new());
        let refused = |p: &&Placed| p.owner == owner && moves.iter().any(|m| m.bar == p.bar);
        changes.refused = self.waiting.iter().filter(refused).cloned().collect();
        changes
    }

    /// A BAR of an owner, where it answers now.
    pub fn get(&self, owner: OwnerId, bar: u8) -> Option<&Placed> {
        self.placed.get(self.answering.get(&(owner, bar))?)
    }

    /// The BARs of an owner that answer.
    pub fn bars(&self, owner: OwnerId) -> Vec<u8> {
        self.answering.range((owner, 0)..=(owner, u8::MAX)).map(|((_, bar), _)| *bar).collect()
    }

    fn take(&mut self, owner: OwnerId, bar: u8) -> Option<Placed> {
        let key = self.answering.remove(&(owner, bar))?;
        self.placed.remove(&key)
    }

    fn place_waiting(&mut self, changes: &mut Changes) {
        let waiting = std::mem::take(&mut self.waiting);
        for mut placed in waiting {
            let inside =
                self.windows.get(&placed.owner).is_some_and(|w| w.contains(placed.space, &placed.range));
            if inside && self.is_free(placed.space, &placed.range) {
                let key = (placed.space, placed.range.start);
                placed.whole_pages = placed.space == Space::Memory && self.shared_page(&placed).is_none();
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

    /// The page that a BAR may have to share, being smaller: sizes are powers of two and addresses multiples of them.
    fn shared_page(&self, placed: &Placed) -> Option<u64> {
        let len = placed.range.end - placed.range.start;
        (placed.space == Space::Memory && len < self.page).then(|| placed.range.start & !(self.page - 1))
    }

    /// Sets who has a page of its own, in `pages` and those that `changes` concern.
    fn settle_pages(&mut self, changes: &mut Changes, mut pages: BTreeSet<u64>) {
        pages.extend(changes.remove.iter().chain(&changes.add).filter_map(|p| self.shared_page(p)));
        for page in pages {
            let range = page..page.saturating_add(self.page);
            let here: Vec<u64> = self
                .placed
                .range((Space::Memory, range.start)..(Space::Memory, range.end))
                .map(|((_, start), _)| *start)
                .collect();
            for start in &here {
                let Some(placed) = self.placed.get_mut(&(Space::Memory, *start)) else { continue };
                let whole = here.len() == 1
                    && *start == range.start
                    && self.windows.get(&placed.owner).is_some_and(|w| w.contains(Space::Memory, &range));
                let (owner, bar) = (placed.owner, placed.bar);
                if placed.range.end - start >= self.page || placed.whole_pages == whole {
                    continue;
                }
                let before = placed.clone();
                placed.whole_pages = whole;
                match changes.add.iter_mut().find(|p| (p.owner, p.bar) == (owner, bar)) {
                    Some(new) => new.whole_pages = whole,
                    None => {
                        changes.add.push(placed.clone());
                        changes.remove.push(before);
                    }
                }
            }
        }
    }
}
