//! Who answers a guest's access: an immutable sorted table, swapped when it changes.
//!
//! A vCPU looks accesses up in its own [`View`]: no lock, no write to shared memory, and the entry of the last hit is
//! tried first.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use devices::PortDevice;
use devices::pci::cf8::{self, Cf8};
use devices::pci::ecam::{self, Ecam};
use parking_lot::Mutex;
use passthru::pci::{Slot, Space};
use passthru::ports::{BarAccess, Trap};

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
        View { table: Cache::new(self.table.clone()), last: Default::default(), counts: Counts::default() }
    }

    /// What the counters of regions stand for, by index.
    pub fn regions(&self) -> Vec<Region> {
        self.regions.lock().clone()
    }
}

/// Reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// Accesses that read.
    pub reads: u64,
    /// Accesses that write.
    pub writes: u64,
}

impl Count {
    fn add(&mut self, is_read: bool) {
        if is_read { self.reads += 1 } else { self.writes += 1 }
    }

    /// Adds another one's.
    pub fn merge(&mut self, other: Count) {
        self.reads += other.reads;
        self.writes += other.writes;
    }
}

/// Accesses by whom they reached.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By region, as [`Bus::regions`] lists them.
    pub regions: Vec<Count>,
    /// Configuration accesses, by the slot they named.
    pub config: HashMap<Slot, Count>,
    /// Memory accesses that nobody answered.
    pub unclaimed_memory: Count,
    /// Port accesses that nobody answered.
    pub unclaimed_io: Count,
}

impl Counts {
    fn region(&mut self, region: usize, is_read: bool) {
        if self.regions.len() <= region {
            self.regions.resize(region + 1, Count::default());
        }
        if let Some(count) = self.regions.get_mut(region) {
            count.add(is_read);
        }
    }

    /// Adds another vCPU's.
    pub fn merge(&mut self, other: &Counts) {
        if self.regions.len() < other.regions.len() {
            self.regions.resize(other.regions.len(), Count::default());
        }
        for (to, from) in self.regions.iter_mut().zip(&other.regions) {
            to.merge(*from);
        }
        for (slot, count) in &other.config {
            self.config.entry(*slot).or_default().merge(*count);
        }
        self.unclaimed_memory.merge(other.unclaimed_memory);
        self.unclaimed_io.merge(other.unclaimed_io);
    }
}

/// A vCPU's way to the bus.
pub struct View {
    table: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    /// Index of the entry hit last, in memory and in I/O.
    last: [usize; 2],
    /// What this vCPU accessed.
    pub counts: Counts,
}

/// Bytes that are read or written.
enum Data<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

impl View {
    /// Reads; all-ones where nobody answers.
    #[inline]
    pub fn read(&mut self, space: Space, address: u64, data: &mut [u8]) {
        self.access(space, address, Data::Read(data));
    }

    /// Writes; nothing happens where nobody answers.
    #[inline]
    pub fn write(&mut self, space: Space, address: u64, data: &[u8]) {
        self.access(space, address, Data::Write(data));
    }

    fn access(&mut self, space: Space, address: u64, data: Data<'_>) {
        let View { table, last, counts } = self;
        let entries = table.load().of(space);
        let [memory, io] = last;
        let last = if space == Space::Memory { memory } else { io };
        let is_read = matches!(data, Data::Read(_));
        let hit = match entries.get(*last) {
            Some(entry) if entry.range.contains(&address) => Some(entry),
            _ => {
                let found = entries.binary_search_by(|entry| {
                    if entry.range.end <= address {
                        Ordering::Less
                    } else if entry.range.start > address {
                        Ordering::Greater
                    } else {
                        Ordering::Equal
                    }
                });
                found.ok().and_then(|index| {
                    *last = index;
                    entries.get(index)
                })
            }
        };
        let Some(entry) = hit else {
            let count =
                if space == Space::Memory { &mut counts.unclaimed_memory } else { &mut counts.unclaimed_io };
            count.add(is_read);
            if let Data::Read(data) = data {
                data.fill(0xff);
            }
            return;
        };
        counts.region(entry.region, is_read);
        let at = address - entry.range.start;
        match (&entry.target, data) {
            (Target::Bar { access, bar, offset }, Data::Read(data)) => {
                access.bar_read(*bar, offset + at, data)
            }
            (Target::Bar { access, bar, offset }, Data::Write(data)) => {
                access.bar_write(*bar, offset + at, data);
            }
            (Target::Ports(device), Data::Read(data)) => device.read(at as u16, data),
            (Target::Ports(device), Data::Write(data)) => device.write(at as u16, data),
            (Target::Cf8(decoder), data) => {
                if at >= 4
                    && let Some((slot, _)) = cf8::decode(decoder.address())
                {
                    counts.config.entry(slot).or_default().add(is_read);
                }
                match data {
                    Data::Read(data) => decoder.read(at as u16, data),
                    Data::Write(data) => decoder.write(at as u16, data),
                }
            }
            (Target::Ecam(decoder), data) => {
                if let Some((slot, _)) = ecam::decode(at) {
                    counts.config.entry(slot).or_default().add(is_read);
                }
                match data {
                    Data::Read(data) => decoder.read(at, data),
                    Data::Write(data) => decoder.write(at, data),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bar(Mutex<Vec<(u8, u64, Vec<u8>)>>);

    impl BarAccess for Bar {
        fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
            data.fill(bar + offset as u8);
        }

        fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
            self.0.lock().push((bar, offset, data.to_vec()));
        }
    }

    fn trap(target: &Arc<Bar>, start: u64, bar: u8, offset: u64) -> Trap {
        let slot = Slot::from_requester_id(0x40);
        Trap { space: Space::Memory, range: start..start + 0x1000, target: target.clone(), slot, bar, offset }
    }

    #[test]
    fn accesses_reach_who_is_there_and_are_counted() {
        let bus = Bus::new();
        let mut view = bus.view();
        let target = Arc::new(Bar(Mutex::default()));
        bus.trap(&[], &[trap(&target, 0xc000_2000, 4, 0x8000), trap(&target, 0xc000_0000, 0, 0)]).unwrap();

        let mut data = [0; 4];
        for (address, value) in [(0xc000_0003, 3), (0xc000_2001, 5), (0xc000_1000, 0xff), (0xc000_3000, 0xff)]
        {
            view.read(Space::Memory, address, &mut data);
            assert_eq!(data, [value; 4], "{address:#x}");
        }
        view.write(Space::Memory, 0xc000_2010, &[7]);
        assert_eq!(*target.0.lock(), [(4, 0x8010, vec![7])]);
        view.read(Space::Io, 0xc000_0000, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(view.counts.unclaimed_memory, Count { reads: 2, writes: 0 });
        assert_eq!(view.counts.unclaimed_io, Count { reads: 1, writes: 0 });
        let slot = Slot::from_requester_id(0x40);
        assert_eq!(bus.regions()[0], Region::Bar { slot, bar: 4, offset: 0x8000 });
        assert_eq!(view.counts.regions[0], Count { reads: 1, writes: 1 });
    }

    #[test]
    fn a_moved_range_is_found_where_it_went_and_counted_on() {
        let bus = Bus::new();
        let mut view = bus.view();
        let target = Arc::new(Bar(Mutex::default()));
        bus.trap(&[], &[trap(&target, 0x1000, 1, 0)]).unwrap();
        view.write(Space::Memory, 0x1000, &[1]);
        bus.trap(&[(Space::Memory, 0x1000..0x2000)], &[trap(&target, 0x5000, 1, 0)]).unwrap();
        view.write(Space::Memory, 0x1000, &[2]);
        view.write(Space::Memory, 0x5000, &[3]);
        assert_eq!(target.0.lock().iter().map(|w| w.2[0]).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(view.counts.regions, [Count { reads: 0, writes: 2 }]);
    }

    #[test]
    fn overlaps_are_refused_and_change_nothing() {
        let bus = Bus::new();
        let target = Arc::new(Bar(Mutex::default()));
        bus.trap(&[], &[trap(&target, 0x1000, 1, 0)]).unwrap();
        for start in [0x1, 0x1000, 0x1fff] {
            assert!(bus.trap(&[(Space::Memory, 0x9000..0xa000)], &[trap(&target, start, 2, 0)]).is_err());
        }
        let mut data = [0];
        bus.view().read(Space::Memory, 0x1800, &mut data);
        assert_eq!(data, [1]);
    }
}
