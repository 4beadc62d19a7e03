//! RAM, as the loader's memory map tells it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::paging;
use crate::window::Window;

/// More regions than this are ignored.
const MOST_REGIONS: usize = 32;
const FOUR_GIB: u64 = 1 << 32;

#[derive(Clone, Copy, Debug, Default)]
pub struct Region {
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// 1 is RAM, as in E820.
    pub kind: u32,
}

pub struct MemoryMap {
    regions: [Region; MOST_REGIONS],
    used: usize,
    /// Everything between the image and here has been given out.
    given: AtomicU64,
}

impl MemoryMap {
    #[must_use]
    pub fn new(regions: impl Iterator<Item = Region>) -> Self {
        let mut map =
            Self { regions: Default::default(), used: 0, given: AtomicU64::new(paging::image().end) };
        for (place, region) in map.regions.iter_mut().zip(regions) {
            *place = region;
            map.used += 1;
        }
        map
    }

    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.used]
    }

    fn ram(&self) -> impl Iterator<Item = &Region> {
        self.regions().iter().filter(|region| region.kind == 1)
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ram().map(|region| region.length).sum()
    }

    /// A buffer that nothing else uses, from the RAM behind the image, wholly below `limit`. `alignment` is a power
    /// of two. `None` if that RAM does not hold it. Buffers are never given back; their contents are undefined.
    #[must_use]
    pub fn buffer(&self, length: u64, alignment: u64, limit: u64) -> Option<Window> {
        let home = paging::image().start;
        let region = self.ram().find(|r| r.address <= home && home - r.address < r.length)?;
        let given = self.given.load(Ordering::Relaxed);
        let address = given.checked_next_multiple_of(alignment)?;
        let end = address.checked_add(length)?;
        if end > limit || end > region.address + region.length {
            return None;
        }
        self.given.store(end, Ordering::Relaxed);
        Some(Window::ram(address, length))
    }

    /// The last `length` bytes of the RAM above 4 GiB, if there are as many.
    #[must_use]
    pub fn high_buffer(&self, length: u64) -> Option<Window> {
        let region = self.ram().filter(|r| r.address >= FOUR_GIB && r.length >= length).last()?;
        Some(Window::ram(region.address + region.length - length, length))
    }

    /// Whether the range holds any byte that the map speaks of.
    #[must_use]
    pub fn touches(&self, address: u64, length: u64) -> bool {
        self.regions().iter().any(|r| address < r.address + r.length && r.address < address + length)
    }
}
