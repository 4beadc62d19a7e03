//! Guest RAM is taken from the host by several processors at once.
//!
//! VFIO takes all of it when it maps it for DMA, page by page on one processor, and most of that time goes into clearing pages.
//! What is there already it only has to look up.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle, available_parallelism};

use log::debug;
use vm_memory::GuestMemoryBackend;

use super::GuestMemory;
use super::region::RamRegion;

/// Taken in one call: a few milliseconds, after which a thread sees that it is to stop.
const CHUNK: usize = 32 << 20;
/// More threads than this only wait for each other.
const MOST_THREADS: usize = 16;

/// Threads that touch guest RAM. When this is dropped they have ended.
pub struct Prefault {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
}

struct Work {
    memory: GuestMemory,
    chunks: usize,
    /// How many have been begun.
    begun: AtomicUsize,
    stop: AtomicBool,
}

impl Prefault {
    /// Begins to touch all of the RAM. What fails here is of no importance: whoever needs the memory will say so.
    pub fn start(memory: &GuestMemory) -> Prefault {
        let chunks = memory.iter().map(|region| region.length().div_ceil(CHUNK)).sum();
        let work = Arc::new(Work {
            memory: memory.clone(),
            chunks,
            begun: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let count = available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS).min(chunks);
        let threads = (0..count).filter_map(|_| {
            let work = work.clone();
            Builder::new().name("memory".to_owned()).spawn(move || work.run()).ok()
        });
        Prefault { threads: threads.collect(), work }
    }

    /// Until all of it was touched.
    pub fn wait(mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Prefault {
    fn drop(&mut self) {
        self.work.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Work {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let begun = self.begun.fetch_add(1, Ordering::Relaxed);
            // From the end on: VFIO maps from the start on meanwhile.
            let Some(number) = self.chunks.checked_sub(begun + 1) else { return };
            let Some((region, offset)) = self.chunk(number) else { return };
            if let Err(error) = region.populate(offset, CHUNK) {
                // Linux before 5.14 has no such call.
                debug!("guest memory is not touched beforehand: {error}");
                return self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn chunk(&self, mut number: usize) -> Option<(&RamRegion, usize)> {
        for region in self.memory.iter() {
            let chunks = region.length().div_ceil(CHUNK);
            if number < chunks {
                return Some((region, number * CHUNK));
            }
            number -= chunks;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Backing, allocate};
    use super::*;

    /// Bytes of a region that are there.
    fn resident(region: &RamRegion) -> usize {
        let address = format!("{:x}-", region.host_address().as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let own = maps.split_once(&address).unwrap().1;
        let rss = own.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    #[test]
    fn all_of_it_is_there_afterwards() {
        // The last chunk of it is not a whole one.
        let memory = allocate("98M".parse().unwrap(), Backing::Transparent).unwrap();
        let region = memory.iter().next().unwrap();
        assert_eq!(resident(region), 0);
        Prefault::start(&memory).wait();
        assert_eq!(resident(region), 98 << 20);
    }

    #[test]
    fn it_can_be_left_in_the_middle() {
        let memory = allocate("3G".parse().unwrap(), Backing::Transparent).unwrap();
        drop(Prefault::start(&memory));
        drop(memory);
    }
}
