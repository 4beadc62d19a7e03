//! Who answers a guest's access: an immutable sorted table, swapped when it changes.
//!
//! A vCPU looks accesses up in its own [`View`]: no lock, no write to shared memory, and the entry of the last hit is
//! tried first.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use devices::PortDevice;
use devices::pci::cf8::{self, Cf8};
use devices::pci::ecam::{self, Ecam};
use parking_lot::Mutex;
use passthru::pci::{Slot, Space};
use passthru::ports::{BarAccess, Trap};

use crate::page_times::PageTimes;

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
    /// Slots with a function, sorted.
    functions: Arc<[Slot]>,
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

    /// Says which slots have a function: configuration accesses are counted by these.
    pub fn set_functions(&self, slots: impl IntoIterator<Item = Slot>) {
        let mut slots: Vec<Slot> = slots.into_iter().collect();
        slots.sort_unstable();
        slots.dedup();
        let _changing = self.regions.lock();
        let table = Table { functions: slots.into(), ..Table::clone(&self.table.load()) };
        self.table.store(Arc::new(table));
    }

    /// What the counters of configuration accesses stand for, by index.
    pub fn functions(&self) -> Arc<[Slot]> {
        self.table.load().functions.clone()
    }

    /// Nobody answers any more, and nobody who did is held: a function that is reached through the bus may hold the bus
    /// in turn, by way of the memory that it does DMA to. Views keep the table that they used last.
    pub fn clear(&self) {
        let changing = self.regions.lock();
        let functions = self.functions();
        let old = self.table.swap(Arc::new(Table { functions, ..Table::default() }));
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
        View {
            table: Cache::new(self.table.clone()),
            last: Default::default(),
            configured: 0,
            counts: Counts::default(),
            times: None,
        }
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
    /// Adds an access.
    pub fn add(&mut self, is_read: bool) {
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
    /// Configuration accesses by function, as [`Bus::functions`] lists them.
    pub config: Vec<Count>,
    /// Configuration accesses to slots without a function.
    pub absent: Count,
    /// Memory accesses that nobody answered.
    pub unclaimed_memory: Count,
    /// Port accesses that nobody answered.
    pub unclaimed_io: Count,
}

impl Counts {
    fn region(&mut self, region: usize, is_read: bool) {
        add(&mut self.regions, region, is_read);
    }

    fn function(&mut self, function: Option<usize>, is_read: bool) {
        match function {
            Some(function) => add(&mut self.config, function, is_read),
            None => self.absent.add(is_read),
        }
    }

    /// Adds another vCPU's.
    pub fn merge(&mut self, other: &Counts) {
        for (to, from) in [(&mut self.regions, &other.regions), (&mut self.config, &other.config)] {
            if to.len() < from.len() {
                to.resize(from.len(), Count::default());
            }
            for (to, from) in to.iter_mut().zip(from) {
                to.merge(*from);
            }
        }
        self.absent.merge(other.absent);
        self.unclaimed_memory.merge(other.unclaimed_memory);
        self.unclaimed_io.merge(other.unclaimed_io);
    }
}

fn add(counts: &mut Vec<Count>, index: usize, is_read: bool) {
    if counts.len() <= index {
        counts.resize(index + 1, Count::default());
    }
    if let Some(count) = counts.get_mut(index) {
        count.add(is_read);
    }
}

/// A vCPU's way to the bus.
pub struct View {
    table: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    /// Index of the entry hit last, in memory and in I/O.
    last: [usize; 2],
    /// Index of the function configured last.
    configured: usize,
    /// What this vCPU accessed.
    pub counts: Counts,
    /// How long answering took, by trapped page; nothing unless it is asked for.
    pub times: Option<Box<PageTimes>>,
}

/// Bytes that are read or written.
enum Data<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

impl View {
    /// The same view, which from now on takes the time of accesses to trapped pages.
    pub fn timed(self) -> View {
        View { times: Some(Box::default()), ..self }
    }

    /// Lets go of those who answered earlier and do no longer: otherwise the next access does.
    pub fn reload(&mut self) {
        self.table.load();
    }

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
        let View { table, last, configured, counts, times } = self;
        let table = table.load();
        let entries = table.of(space);
        // A guest reads most of a function's registers before it goes on to another one.
        let mut function = |slot: Slot| {
            if table.functions.get(*configured) != Some(&slot) {
                *configured = table.functions.binary_search(&slot).ok()?;
            }
            Some(*configured)
        };
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
            (Target::Bar { access, bar, offset }, data) => {
                let started = times.is_some().then(Instant::now);
                match data {
                    Data::Read(data) => access.bar_read(*bar, offset + at, data),
                    Data::Write(data) => access.bar_write(*bar, offset + at, data),
                }
                if let (Some(times), Some(started)) = (times, started) {
                    times.add(entry.region, at, is_read, started.elapsed());
                }
            }
            (Target::Ports(device), Data::Read(data)) => device.read(at as u16, data),
            (Target::Ports(device), Data::Write(data)) => device.write(at as u16, data),
            (Target::Cf8(decoder), data) => {
                if at >= 4
                    && let Some((slot, _)) = cf8::decode(decoder.address())
                {
                    counts.function(function(slot), is_read);
                }
                match data {
                    Data::Read(data) => decoder.read(at as u16, data),
                    Data::Write(data) => decoder.write(at as u16, data),
                }
            }
            (Target::Ecam(decoder), data) => {
                if let Some((slot, _)) = ecam::decode(at) {
                    counts.function(function(slot), is_read);
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
    use devices::pci::topology::Topology;

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
    fn only_a_timed_view_takes_times_by_page_of_what_is_trapped() {
        let bus = Bus::new();
        let target = Arc::new(Bar(Mutex::default()));
        bus.trap(&[], &[trap(&target, 0x1_0000, 1, 0), trap(&target, 0x2_0000, 4, 0x8000)]).unwrap();
        let (mut plain, mut timed) = (bus.view(), bus.view().timed());
        for view in [&mut plain, &mut timed] {
            view.write(Space::Memory, 0x2_0ff8, &[1]);
            view.read(Space::Memory, 0x2_0ff8, &mut [0; 8]);
            view.read(Space::Memory, 0x3_0000, &mut [0; 8]);
        }
        assert!(plain.times.is_none());
        let times = timed.times.unwrap();
        assert!(times.of_region(0).is_empty());
        let [(page, took)] = times.of_region(1)[..] else { panic!("one page") };
        assert_eq!((page.number, took.count()), (Some(0), Count { reads: 1, writes: 1 }));
        assert!(took.sum() >= took.most() && took.most() >= took.least());
    }

    #[test]
    fn a_view_holds_what_it_saw_last_until_it_looks_again() {
        let bus = Bus::new();
        let mut view = bus.view();
        let target = Arc::new(Bar(Mutex::default()));
        let trap = trap(&target, 0xc000_0000, 0, 0);
        bus.trap(&[], std::slice::from_ref(&trap)).unwrap();
        view.read(Space::Memory, 0xc000_0000, &mut [0]);
        bus.trap(&[(trap.space, trap.range.clone())], &[]).unwrap();
        drop(trap);
        assert!(Arc::strong_count(&target) > 1);
        view.reload();
        assert_eq!(Arc::strong_count(&target), 1);
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
    fn configuration_accesses_are_counted_by_function_and_all_others_together() {
        let topology = Arc::new(Topology::builder().build().unwrap());
        let bus = Bus::new();
        let functions = [0x840, 0x8, 0].map(Slot::from_requester_id);
        bus.set_functions(functions);
        assert_eq!(bus.functions()[..], [0, 0x8, 0x840].map(Slot::from_requester_id));
        let cf8 = Arc::new(Cf8::new(topology.clone(), Arc::new(|_| {})));
        bus.add(Space::Io, 0xcf8..0xd00, "cf8", Target::Cf8(cf8)).unwrap();
        bus.add(Space::Memory, 0..ecam::SIZE, "ecam", Target::Ecam(Arc::new(Ecam::new(topology)))).unwrap();

        let (mut view, mut data) = (bus.view(), [0; 4]);
        for (slot, reads) in [(0x840, 3), (0x8, 1), (0x841, 2), (0x840, 1), (0xffff, 1), (0, 5)] {
            let at = ecam::offset_of(Slot::from_requester_id(slot));
            (0..reads).for_each(|_| view.read(Space::Memory, at, &mut data));
        }
        for (slot, value) in [(0x8u32, 1u32), (0x9, 2)] {
            view.write(Space::Io, 0xcf8, &(1 << 31 | slot << 8).to_le_bytes());
            view.write(Space::Io, 0xcfc, &value.to_le_bytes());
        }
        let mut all = Counts::default();
        all.merge(&view.counts);
        all.merge(&view.counts);
        let count = |reads, writes| Count { reads, writes };
        assert_eq!(all.config, [count(10, 0), count(2, 2), count(8, 0)]);
        assert_eq!(all.absent, count(6, 2));
    }

    #[test]
    fn a_cleared_bus_holds_nobody_and_answers_nobody() {
        let bus = Bus::new();
        let target = Arc::new(Bar(Mutex::default()));
        bus.trap(&[], &[trap(&target, 0x1000, 1, 0)]).unwrap();
        assert_eq!(Arc::strong_count(&target), 2);
        bus.clear();
        assert_eq!(Arc::strong_count(&target), 1);
        let mut data = [0];
        bus.view().read(Space::Memory, 0x1000, &mut data);
        assert_eq!(data, [0xff]);
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
