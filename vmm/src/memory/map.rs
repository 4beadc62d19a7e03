//! The memory map that a guest is told: the same for the zero page's e820 table, PVH and multiboot.

use std::ops::Range;

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::{GuestMemory, RamSize};
use crate::layout;

/// What lies in a range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// RAM that the guest may use.
    Ram,
    /// Not to be used as RAM, nor for windows of a PCI host bridge.
    Reserved,
}

impl MapKind {
    /// The type's number: 1 and 2 in e820 (ACPI 6.5 §15.1), in PVH's memory map and in multiboot's.
    pub fn number(self) -> u32 {
        match self {
            MapKind::Ram => 1,
            MapKind::Reserved => 2,
        }
    }
}

/// One range of the map, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    pub range: Range<u64>,
    pub kind: MapKind,
}

/// What no guest may take for RAM or give to a BAR.
///
/// ECAM is here although the DSDT reserves it too: Linux uses ECAM before it reads the DSDT only if the memory map
/// reserves it. KVM's own pages are here because only the hypervisor knows of them.
const RESERVED: [Range<u64>; 3] =
    [layout::LEGACY_HOLE, layout::ECAM, layout::KVM_IDENTITY_MAP..layout::KVM_TSS + 0x3000];

/// The map of a guest with this RAM, in rising order, without overlaps.
pub fn memory_map(memory: &GuestMemory) -> Vec<MapEntry> {
    map_of(memory.iter().map(|region| {
        let start = region.start_addr().raw_value();
        start..start.saturating_add(region.len())
    }))
}

/// The map of a guest with so much RAM.
pub fn map_of_size(size: RamSize) -> Vec<MapEntry> {
    map_of(super::ranges(size))
}

fn map_of(ram: impl IntoIterator<Item = Range<u64>>) -> Vec<MapEntry> {
    let mut map: Vec<MapEntry> =
        RESERVED.into_iter().map(|range| MapEntry { range, kind: MapKind::Reserved }).collect();
    let parts = ram.into_iter().flat_map(without_reserved);
    map.extend(parts.map(|range| MapEntry { range, kind: MapKind::Ram }));
    map.sort_by_key(|entry| entry.range.start);
    map
}

/// The parts of `ram` that are not reserved. [`RESERVED`] is in rising order.
fn without_reserved(ram: Range<u64>) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut start = ram.start;
    for hole in RESERVED {
        if hole.end <= start || hole.start >= ram.end {
            continue;
        }
        if hole.start > start {
            parts.push(start..hole.start);
        }
        start = hole.end;
    }
    if start < ram.end {
        parts.push(start..ram.end);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ranges_rise() {
        assert!(RESERVED.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }

    #[test]
    fn holes_cut_ram() {
        let hole = layout::LEGACY_HOLE;
        for (ram, parts) in [
            (0..0x9_0000, vec![0..0x9_0000]),
            (0..hole.start, vec![0..hole.start]),
            (0..hole.start + 1, vec![0..hole.start]),
            (0..1 << 30, vec![0..hole.start, hole.end..1 << 30]),
            (hole.start..hole.end, vec![]),
            (hole.end..1 << 30, vec![hole.end..1 << 30]),
            (1 << 32..1 << 33, vec![1 << 32..1 << 33]),
        ] {
            assert_eq!(without_reserved(ram.clone()), parts, "{ram:x?}");
        }
    }
}
