//! ECAM where no function is: memory that the guest reads without exits.
//!
//! A guest that looks for functions mostly looks where none is. All-ones in memory slots that it can only read give what a bus
//! without an answer gives, and writes exit as before, to nobody. Where there is no such slot, because one could not be had or
//! is being changed, accesses exit and find the same.

use std::ops::Range;
use std::sync::Arc;

use devices::pci::ecam;
use devices::pci::topology::{Routes, Topology};
use log::{debug, warn};
use parking_lot::Mutex;
use passthru::ports::{Access, MemoryPort, PortError};

use crate::layout;
use crate::memory::AllOnes;

/// The memory slots behind ECAM's empty parts.
pub struct AbsentFunctions {
    ones: Arc<AllOnes>,
    memory: Arc<dyn MemoryPort>,
    /// As many parts get memory; the others take exits. Memory slots are for BARs first.
    most: usize,
    /// Offsets in ECAM, in ascending order.
    mapped: Mutex<Vec<Range<u64>>>,
}

impl AbsentFunctions {
    /// From now on the empty parts of ECAM, at most `most` of them, are memory. Without it each access to them exits, so what
    /// fails here is not said to anybody who did not ask.
    pub fn follow(topology: &Topology, memory: Arc<dyn MemoryPort>, most: usize) {
        let ones = match AllOnes::new(ecam::SIZE) {
            Ok(ones) => Arc::new(ones),
            Err(error) => return debug!("ECAM: no memory for its empty parts: {error}"),
        };
        let absent = AbsentFunctions { ones, memory, most, mapped: Mutex::default() };
        topology.watch(move |routes| absent.update(routes));
    }

    fn update(&self, routes: &Routes) {
        let mut wanted = ecam::absent(routes);
        if wanted.len() > self.most {
            wanted.sort_by_key(|range| std::cmp::Reverse(range.end - range.start));
            wanted.truncate(self.most);
            wanted.sort_by_key(|range| range.start);
        }
        let mut mapped = self.mapped.lock();
        mapped.retain(|range| is_in(&wanted, range) || !self.unmap(range));
        // What is there already, or could not be taken away.
        wanted.retain(|range| {
            let after = mapped.partition_point(|there| there.end <= range.start);
            mapped.get(after).is_none_or(|there| there.start >= range.end)
        });
        for range in wanted {
            if let Err(error) = self.map(&range) {
                debug!("ECAM: empty parts take exits: {error}");
                break;
            }
            mapped.push(range);
        }
        mapped.sort_by_key(|range| range.start);
    }

    fn map(&self, range: &Range<u64>) -> Result<(), PortError> {
        let (guest, len) = (layout::ECAM.start + range.start, range.end - range.start);
        // SAFETY: the memory lies in `ones`, which is unmapped after the slots are.
        unsafe { self.memory.map(guest, self.ones.at(range.start), len, Access::ReadOnly) }
    }

    /// Whether it is gone.
    fn unmap(&self, range: &Range<u64>) -> bool {
        let (guest, len) = (layout::ECAM.start + range.start, range.end - range.start);
        match self.memory.unmap(guest, len) {
            Ok(()) => true,
            Err(error) => {
                warn!("ECAM: functions that came to {guest:#x} cannot be seen there: {error}");
                false
            }
        }
    }
}

fn is_in(sorted: &[Range<u64>], range: &Range<u64>) -> bool {
    let found = sorted.binary_search_by_key(&range.start, |one| one.start);
    found.ok().and_then(|index| sorted.get(index)) == Some(range)
}

impl Drop for AbsentFunctions {
    fn drop(&mut self) {
        for range in std::mem::take(self.mapped.get_mut()) {
            if !self.unmap(&range) {
                // KVM still has it.
                std::mem::forget(self.ones.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;

    use passthru::pci::{ConfigAccess, Slot, Space};
    use passthru::ports::{DmaRegion, PortOperation, Trap};

    use super::*;

    struct Present;

    impl ConfigAccess for Present {
        fn config_read(&self, _: u16, data: &mut [u8]) {
            data.fill(0);
        }

        fn config_write(&self, _: u16, _: &[u8]) {}
    }

    /// Guest addresses by their start, with their ends; there is room for so many, and what is in `stuck` stays.
    #[derive(Default)]
    struct Book {
        mapped: Mutex<BTreeMap<u64, u64>>,
        changes: Mutex<u32>,
        room: Mutex<usize>,
        stuck: Mutex<Option<u64>>,
    }

    impl MemoryPort for Book {
        unsafe fn map(&self, guest: u64, host: *mut u8, len: u64, access: Access) -> Result<(), PortError> {
            assert_eq!(access, Access::ReadOnly);
            for at in [0, len - 1] {
                // SAFETY: as promised.
                assert_eq!(unsafe { host.add(at as usize).read_volatile() }, 0xff);
            }
            let mut mapped = self.mapped.lock();
            assert!(mapped.iter().all(|(start, end)| guest + len <= *start || *end <= guest), "{guest:#x}");
            *self.changes.lock() += 1;
            if mapped.len() == *self.room.lock() {
                let full = io::Error::from_raw_os_error(libc::ENOSPC);
                return Err(full).map_err(PortOperation::Map { guest, len }.failed());
            }
            mapped.insert(guest, guest + len);
            Ok(())
        }

        fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
            *self.changes.lock() += 1;
            if *self.stuck.lock() == Some(guest) {
                let busy = io::Error::from_raw_os_error(libc::EBUSY);
                return Err(busy).map_err(PortOperation::Unmap { guest, len }.failed());
            }
            assert_eq!(self.mapped.lock().remove(&guest), Some(guest + len));
            Ok(())
        }

        fn trap(&self, _: &[(Space, Range<u64>)], _: &[Trap]) -> Result<(), PortError> {
            Ok(())
        }

        fn dma_regions(&self) -> Vec<DmaRegion> {
            Vec::new()
        }
    }

    impl Book {
        fn with_room(room: usize) -> Arc<Book> {
            Arc::new(Book { room: Mutex::new(room), ..Book::default() })
        }

        /// Which slots are memory: the first and the last of each part.
        fn parts(&self) -> Vec<(String, String)> {
            let name = |at: u64| ecam::decode(at - layout::ECAM.start).unwrap().0.to_string();
            self.mapped.lock().iter().map(|(start, end)| (name(*start), name(end - 1))).collect()
        }

        fn changes(&self) -> u32 {
            std::mem::take(&mut self.changes.lock())
        }
    }

    fn slot(text: &str) -> Slot {
        text.parse().unwrap()
    }

    /// A function at 0:8:0 and one behind the port of bus 1.
    fn topology() -> Topology {
        let mut builder = Topology::builder();
        builder.add(slot("0:8:0"), Arc::new(Present));
        builder.add(slot("1:0:0"), Arc::new(Present));
        builder.add_port(1, Arc::new(Present));
        builder.build().unwrap()
    }

    fn parts<const N: usize>(parts: [(&str, &str); N]) -> Vec<(String, String)> {
        parts.map(|(first, last)| (first.to_owned(), last.to_owned())).to_vec()
    }

    const FIRST: [(&str, &str); 2] = [("0:0:1", "0:7:7"), ("0:8:1", "0:15:7")];

    #[test]
    fn functions_come_to_light_wherever_the_guest_puts_their_bus() {
        let (book, topology) = (Book::with_room(100), topology());
        AbsentFunctions::follow(&topology, book.clone(), 100);
        let [first, second] = FIRST;
        assert_eq!(book.parts(), parts([first, second, ("0:16:1", "255:31:7")]));
        assert_eq!(book.changes(), 3);
        topology.set_buses(1, Some(7..=7));
        assert_eq!(book.parts(), parts([first, second, ("0:16:1", "6:31:7"), ("7:0:1", "255:31:7")]));
        assert_eq!(book.changes(), 3, "one goes, two come, the others are left alone");
        topology.set_buses(1, Some(7..=9));
        assert_eq!(book.changes(), 0);
        topology.plug(slot("1:0:3"), Arc::new(Present)).unwrap();
        let seven = [("7:0:1", "7:0:2"), ("7:0:4", "255:31:7")];
        assert_eq!(book.parts(), parts([first, second, ("0:16:1", "6:31:7"), seven[0], seven[1]]));
        topology.unplug(slot("1:0:3")).unwrap();
        topology.set_buses(1, None);
        assert_eq!(book.parts(), parts([first, second, ("0:16:1", "255:31:7")]));
        drop(topology);
        assert_eq!(book.parts(), []);
    }

    #[test]
    fn the_largest_parts_get_memory_as_far_as_there_is_some() {
        for (most, room, there) in [
            (2, 100, parts([FIRST[0], ("0:16:1", "255:31:7")])),
            (100, 1, parts([FIRST[0]])),
            (0, 100, parts([])),
        ] {
            let (book, topology) = (Book::with_room(room), topology());
            AbsentFunctions::follow(&topology, book.clone(), most);
            assert_eq!(book.parts(), there, "{most} {room}");
        }
        // And later, when there is room again.
        let (book, topology) = (Book::with_room(1), topology());
        AbsentFunctions::follow(&topology, book.clone(), 100);
        *book.room.lock() = 100;
        topology.set_buses(1, Some(255..=255));
        assert_eq!(
            book.parts(),
            parts([FIRST[0], FIRST[1], ("0:16:1", "254:31:7"), ("255:0:1", "255:31:7")])
        );
    }

    #[test]
    fn what_cannot_be_taken_away_is_tried_again_with_the_next_change() {
        let (book, topology) = (Book::with_room(100), topology());
        AbsentFunctions::follow(&topology, book.clone(), 100);
        *book.stuck.lock() = Some(layout::ECAM.start + ecam::offset_of(slot("0:16:1")));
        topology.set_buses(1, Some(7..=7));
        assert_eq!(book.parts(), parts([FIRST[0], FIRST[1], ("0:16:1", "255:31:7")]));
        *book.stuck.lock() = None;
        topology.set_buses(1, Some(8..=8));
        assert_eq!(book.parts(), parts([FIRST[0], FIRST[1], ("0:16:1", "7:31:7"), ("8:0:1", "255:31:7")]));
    }
}
