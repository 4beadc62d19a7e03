//! How many accesses reached whom.

use passthru::pci::Slot;

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
    #[inline]
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
    /// By region, as [`Bus::regions`](super::Bus::regions) lists them.
    pub regions: Vec<Count>,
    /// Configuration accesses by the slot of the function that they reached, sorted. A slot is a function's place in the
    /// slot map, whichever number the guest gave its bus.
    pub config: Vec<(Slot, Count)>,
    /// Configuration accesses that reached no function.
    pub absent: Count,
    /// Memory accesses that nobody answered.
    pub unclaimed_memory: Count,
    /// Port accesses that nobody answered.
    pub unclaimed_io: Count,
}

impl Counts {
    #[inline]
    pub(super) fn region(&mut self, region: usize, is_read: bool) {
        add(&mut self.regions, region, is_read);
    }

    /// Configuration accesses to a function.
    pub fn of_function(&self, slot: Slot) -> Count {
        let found = self.config.binary_search_by_key(&slot, |(slot, _)| *slot);
        found.ok().and_then(|index| self.config.get(index)).map_or(Count::default(), |(_, count)| *count)
    }

    /// Where a function is counted. There are at most as many as there are slots, whatever a guest accesses.
    fn index(&mut self, slot: Slot) -> usize {
        self.config.binary_search_by_key(&slot, |(slot, _)| *slot).unwrap_or_else(|index| {
            self.config.insert(index, (slot, Count::default()));
            index
        })
    }

    /// An access to a function's configuration space, or to nobody's. `last` is where the function is counted that was
    /// accessed last.
    #[inline]
    pub(super) fn function(&mut self, slot: Option<Slot>, last: &mut usize, is_read: bool) {
        let Some(slot) = slot else { return self.absent.add(is_read) };
        // A guest reads most of a function's registers before it goes on to another one.
        if self.config.get(*last).is_none_or(|(known, _)| *known != slot) {
            *last = self.index(slot);
        }
        if let Some((_, count)) = self.config.get_mut(*last) {
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
        for (slot, from) in &other.config {
            let index = self.index(*slot);
            if let Some((_, to)) = self.config.get_mut(index) {
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
