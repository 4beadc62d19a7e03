//! Who answers a guest's access: an immutable sorted table, swapped when it changes.
//!
//! A vCPU looks accesses up in its own [`View`]: no lock, no write to shared memory, and the entry of the last hit is
//! tried first.

mod counts;
#[cfg(test)]
mod tests;
mod view;

use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use devices::PortDevice;
use devices::pci::cf8::Cf8;
use devices::pci::ecam::Ecam;
use parking_lot::Mutex;
use passthru::pci::{Slot, Space};
use passthru::ports::{BarAccess, Trap};

pub use counts::{Count, Counts};
pub use view::View;

/// Who answers a range of addresses.
#[derive(Clone)]
pub enum Target {
    /// A trapped part of a BAR that starts at `offset` in it.
    Bar {
        /// The function.
        access: Arc<dyn BarAccess>,
        /// BAR 0 to 5.
        bar: u8,
        /// Offset in the BAR of the range's first byte.
        offset: u64,
    },
    /// A device at I/O ports.
    Ports(Arc<dyn PortDevice>),
    /// CONFIG_ADDRESS and CONFIG_DATA.
    Cf8(Arc<Cf8>),
    /// Memory-mapped configuration space.
    Ecam(Arc<Ecam>),
}

#[derive(Clone)]
struct Entry {
    range: Range<u64>,
    target: Target,
    /// Which of the counters.
    region: usize,
}

#[derive(Clone, Default)]
struct Table {
    memory: Vec<Entry>,
    io: Vec<Entry>,
}

impl Table {
    #[inline]
    fn of(&self, space: Space) -> &Vec<Entry> {
        match space {
            Space::Memory => &self.memory,
            Space::Io => &self.io,
        }
    }

    fn of_mut(&mut self, space: Space) -> &mut Vec<Entry> {
        match space {
            Space::Memory => &mut self.memory,
            Space::Io => &mut self.io,
        }
    }
}

/// What accesses are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// A device of the machine.
    Device(&'static str),
    /// A trapped part of a function's BAR.
    Bar {
        /// The function.
        slot: Slot,
        /// BAR 0 to 5.
        bar: u8,
        /// Where the part starts in it.
        offset: u64,
    },
}

/// Ranges that do not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{space:?} range {:#x}..{:#x} overlaps another one", .range.start, .range.end)]
pub struct Overlap {
    space: Space,
    range: Range<u64>,
}

/// The guest's memory and port accesses that exit to user space.
#[derive(Default)]
pub struct Bus {
    table: Arc<ArcSwap<Table>>,
    /// Held while a new table is made of the old one.
    regions: Mutex<Vec<Region>>,
}

impl Bus {
    /// Nothing answers.
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Lets a device answer.
    pub fn add(
        &self,
        space: Space,
        range: Range<u64>,
        name: &'static str,
        target: Target,
    ) -> Result<(), Overlap> {
        self.change(&[], vec![(space, range, Region::Device(name), target)])
    }

    /// Takes trapped ranges of BARs away and adds others, as one change.
    pub fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), Overlap> {
        let entry = |trap: &Trap| {
            let Trap { slot, bar, offset, .. } = *trap;
            let target = Target::Bar { access: trap.target.clone(), bar, offset };
            (trap.space, trap.range.clone(), Region::Bar { slot, bar, offset }, target)
        };
        self.change(remove, add.iter().map(entry).collect())
    }

    /// Nobody answers any more, and nobody who did is held: a function that is reached through the bus may hold the bus
    /// in turn, by way of the memory that it does DMA to. Views keep the table that they used last.
    pub fn clear(&self) {
        let changing = self.regions.lock();
        let old = self.table.swap(Arc::new(Table::default()));
        // What is dropped here may end a thread that is about to change the table.
        drop(changing);
        drop(old);
    }

    fn change(
        &self,
        remove: &[(Space, Range<u64>)],
        add: Vec<(Space, Range<u64>, Region, Target)>,
    ) -> Result<(), Overlap> {
        let mut regions = self.regions.lock();
        let mut table = Table::clone(&self.table.load());
        for (space, range) in remove {
            table.of_mut(*space).retain(|entry| entry.range != *range);
        }
        for (space, range, region, target) in add {
            let index = match regions.iter().position(|known| *known == region) {
                Some(index) => index,
                None => {
                    regions.push(region);
                    regions.len() - 1
                }
            };
            let entries = table.of_mut(space);
            let at = entries.partition_point(|entry| entry.range.start < range.start);
            let before = at.checked_sub(1).and_then(|at| entries.get(at));
            let overlaps = |other: &Entry| other.range.start < range.end && range.start < other.range.end;
            if range.is_empty() || before.is_some_and(overlaps) || entries.get(at).is_some_and(overlaps) {
                return Err(Overlap { space, range });
            }
            entries.insert(at, Entry { range, target, region: index });
        }
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// A vCPU's view, with counters of its own.
    pub fn view(&self) -> View {
        View::new(self.table.clone())
    }

    /// What the counters of regions stand for, by index.
    pub fn regions(&self) -> Vec<Region> {
        self.regions.lock().clone()
    }
}
