//! Guest RAM out of host memory.

use std::io;
use std::ops::Range;

use super::region::RamRegion;
use super::reserved_pages::{POOL, pool_state};
use super::{GuestMemory, HUGE_PAGE, RamSize};
use crate::layout;

/// What host memory guest RAM is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Anonymous memory, as transparent huge pages where the host has them.
    #[default]
    Transparent,
    /// 2 MiB pages reserved on the host beforehand.
    ReservedHugePages,
}

/// Why guest RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// mmap or madvise failed.
    #[error("guest memory of {size}: cannot map {} MiB for guest address {:#x}: {source}", (.range.end - .range.start) >> 20, .range.start)]
    Map { size: RamSize, range: Range<u64>, source: io::Error },
    /// The pool of reserved huge pages is too small.
    #[error(
        "guest memory of {size}: {needed} huge pages of 2 MiB are needed, {available} of the {total} reserved ones \
         are free; reserve more with: echo {} | sudo tee {POOL}/nr_hugepages", .total + .needed - .available
    )]
    TooFewHugePages { size: RamSize, needed: u64, available: u64, total: u64 },
    /// The host has no pool of 2 MiB pages.
    #[error(
        "guest memory of {size}: this kernel has no reserved huge pages of 2 MiB ({POOL} is not there); run without --hugepages"
    )]
    NoHugePages { size: RamSize },
    /// The ranges are not in order, which the layout rules out.
    #[error("guest memory of {size}: {source}")]
    Collection { size: RamSize, source: vm_memory::GuestRegionCollectionError },
}

/// Guest-physical ranges of `size` bytes of RAM: below [`layout::LOW_RAM_END`] first, the rest from 4 GiB on.
pub(crate) fn ranges(size: RamSize) -> Vec<Range<u64>> {
    let low = size.bytes().min(layout::LOW_RAM_END);
    let high = size.bytes() - low;
    let mut ranges = vec![0..low];
    if high > 0 {
        ranges.push(layout::HIGH_RAM_START..layout::HIGH_RAM_START + high);
    }
    ranges
}

/// Maps `size` bytes of guest RAM, all of it zero. Pages are taken from the host when first touched.
pub fn allocate(size: RamSize, backing: Backing) -> Result<GuestMemory, Error> {
    let mut regions = Vec::new();
    for range in ranges(size) {
        let length = (range.end - range.start) as usize;
        let region = match backing {
            Backing::Transparent => RamRegion::transparent(range.start, length),
            Backing::ReservedHugePages => RamRegion::reserved(range.start, length),
        };
        match region {
            Ok(region) => regions.push(region),
            Err(source) => {
                // Pages promised to the regions before are not missing; give them back before counting.
                drop(regions);
                return Err(explain(size, backing, range, source));
            }
        }
    }
    GuestMemory::from_regions(regions).map_err(|source| Error::Collection { size, source })
}

fn explain(size: RamSize, backing: Backing, range: Range<u64>, source: io::Error) -> Error {
    if backing == Backing::Transparent {
        return Error::Map { size, range, source };
    }
    let needed = size.bytes() / HUGE_PAGE;
    match pool_state() {
        None => Error::NoHugePages { size },
        Some(pool) if pool.available < needed => {
            Error::TooFewHugePages { size, needed, available: pool.available, total: pool.total }
        }
        // The pool would do; another limit, such as a control group's, is in the way.
        Some(_) => Error::Map { size, range, source },
    }
}
