//! Where boot data lies in guest memory.
//!
//! | address | what |
//! |---|---|
//! | 0x1000 | GDT |
//! | 0x2000 | zero page, PVH start info or multiboot information |
//! | 0x3000 | their lists: modules and memory map |
//! | 0x4000 to 0x9fff | page tables that map the first 4 GiB |
//! | 0x10000 to 0x1ffff | command line |
//!
//! All of it is RAM in the memory map: a guest has read it before it gives the memory to anything else.

use std::ops::Range;

use super::error::Error;
use super::image::Image;
use crate::layout;
use crate::memory::{MapEntry, MapKind};

pub(super) const GDT: u64 = 0x1000;
pub(super) const PARAMETERS: u64 = 0x2000;
pub(super) const LISTS: u64 = 0x3000;
pub(super) const PAGE_TABLES: u64 = 0x4000;
pub(super) const COMMAND_LINE: Range<u64> = 0x1_0000..0x2_0000;
/// All boot data; no kernel may load here.
pub(super) const BOOT_DATA: Range<u64> = GDT..COMMAND_LINE.end;

/// Alignment of an initrd or module: a page, as multiboot 1 §3.1.1 and Linux' freeing of the initrd want it.
const PAGE: u64 = 0x1000;

/// Fails unless all of `range` is RAM, outside the boot data.
pub(super) fn check_free(image: &Image, map: &[MapEntry], range: Range<u64>) -> Result<(), Error> {
    let clear_of_boot_data = range.end <= BOOT_DATA.start || range.start >= BOOT_DATA.end;
    let in_ram = map.iter().any(|entry| {
        entry.kind == MapKind::Ram && entry.range.start <= range.start && range.end <= entry.range.end
    });
    if in_ram && clear_of_boot_data {
        return Ok(());
    }
    let path = image.path().to_owned();
    let ram_end = low_ram_end(map);
    if range.start >= layout::LEGACY_HOLE.end && (ram_end + 1..=layout::LOW_RAM_END).contains(&range.end) {
        return Err(Error::DoesNotFit { path, range, ram_end });
    }
    Err(Error::NotLoadable { path, range })
}

/// End of the RAM below 4 GiB.
pub(super) fn low_ram_end(map: &[MapEntry]) -> u64 {
    let below_4g = map.iter().filter(|entry| entry.range.end <= layout::HIGH_RAM_START);
    below_4g.filter(|entry| entry.kind == MapKind::Ram).map(|entry| entry.range.end).max().unwrap_or(0)
}

/// Where an initrd goes in relation to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// As high as the limit allows, out of the way of a kernel that grows when it decompresses.
    Top,
    /// Directly behind the kernel: multiboot kernels take all memory above their modules for free.
    BehindKernel,
}

/// The range for `initrd` in RAM above `kernel_end` and below both `limit` and the end of RAM below 4 GiB.
pub(super) fn place_initrd(
    initrd: &Image,
    map: &[MapEntry],
    kernel_end: u64,
    limit: u64,
    side: Side,
) -> Result<Range<u64>, Error> {
    let size = initrd.length();
    // The boot data and the legacy hole are below 1 MiB, where small kernels may end.
    let lowest = kernel_end.max(layout::LEGACY_HOLE.end).next_multiple_of(PAGE);
    let end = low_ram_end(map).min(limit);
    let too_large =
        || Error::InitrdTooLarge { path: initrd.path().to_owned(), size, room: lowest..end.max(lowest) };
    let highest = end.checked_sub(size).ok_or_else(too_large)? / PAGE * PAGE;
    if highest < lowest {
        return Err(too_large());
    }
    let start = match side {
        Side::Top => highest,
        Side::BehindKernel => lowest,
    };
    Ok(start..start + size)
}
