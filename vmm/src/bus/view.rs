//! How a vCPU's access finds who answers it.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use devices::pci::topology::RoutesView;
use passthru::pci::Space;

use super::counts::Counts;
use super::{Table, Target};
use crate::page_times::PageTimes;

/// A vCPU's way to the bus.
pub struct View {
    table: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    /// Where configuration accesses lead.
    routes: RoutesView,
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
    pub(super) fn new(table: Arc<ArcSwap<Table>>) -> View {
        View {
            table: Cache::new(table),
            routes: RoutesView::default(),
            last: Default::default(),
            configured: 0,
            counts: Counts::default(),
            times: None,
        }
    }

    /// The same view, which from now on takes the time of accesses to trapped pages.
    pub fn timed(self) -> View {
        View { times: Some(Box::default()), ..self }
    }

    /// Lets go of those who answered earlier and do no longer: otherwise the next access does.
    pub fn reload(&mut self) {
        self.table.load();
        self.routes.reload();
    }

    /// Reads; all-ones where nobody answers.
    pub fn read(&mut self, space: Space, address: u64, data: &mut [u8]) {
        self.access(space, address, Data::Read(data));
    }

    /// Writes; nothing happens where nobody answers.
    pub fn write(&mut self, space: Space, address: u64, data: &[u8]) {
        self.access(space, address, Data::Write(data));
    }

    /// Twice: reads ask nowhere whether they are reads.
    #[inline(always)]
    fn access(&mut self, space: Space, address: u64, data: Data<'_>) {
        let View { table, routes, last, configured, counts, times } = self;
        let table = table.load();
        let entries = table.of(space);
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
                let routes = routes.of(decoder.topology());
                let reached = match data {
                    Data::Read(data) => decoder.read_by(routes, at as u16, data),
                    Data::Write(data) => decoder.write_by(routes, at as u16, data),
                };
                if let Some(slot) = reached {
                    counts.function(slot, configured, is_read);
                }
            }
            (Target::Ecam(decoder), data) => {
                let routes = routes.of(decoder.topology());
                let slot = match data {
                    Data::Read(data) => decoder.read_by(routes, at, data),
                    Data::Write(data) => decoder.write_by(routes, at, data),
                };
                counts.function(slot, configured, is_read);
            }
        }
    }
}
