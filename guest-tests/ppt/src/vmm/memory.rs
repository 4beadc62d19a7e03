//! The book of a VM's memory segments. There is no memory behind them.

use std::collections::BTreeMap;

use crate::abi::{MemoryMap, MemorySegment, MemoryUnmap, PAGE, vm};
use crate::errno::{Errno, Result};

/// Most segments, and most places they are mapped at.
const MOST: i32 = 16;
const MOST_MAPS: usize = 16;

/// What a VM has.
#[derive(Default)]
pub struct GuestMemory {
    /// Bytes, by segment id.
    segments: BTreeMap<i32, u64>,
    maps: Vec<Map>,
}

struct Map {
    gpa: u64,
    len: u64,
    wired: bool,
}

impl GuestMemory {
    /// `VM_ALLOC_MEMSEG`
    pub fn allocate(&mut self, segment: &MemorySegment) -> Result<()> {
        let (id, len) = (segment.id(), segment.len());
        if !(0..MOST).contains(&id) || len == 0 || !len.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if self.segments.contains_key(&id) {
            return Err(Errno::EEXIST);
        }
        self.segments.insert(id, len);
        Ok(())
    }

    /// `VM_MMAP_MEMSEG`
    pub fn map(&mut self, map: &MemoryMap) -> Result<()> {
        let (gpa, offset, len) = (map.gpa(), map.offset(), map.len());
        let known = map.flags() & !(vm::MEMMAP_WIRED | vm::MEMMAP_IOMMU) == 0;
        let whole = (gpa | offset | len).is_multiple_of(PAGE) && len > 0;
        let size = self.segments.get(&map.segment()).copied().unwrap_or_default();
        let inside = offset.checked_add(len).is_some_and(|end| end <= size);
        let end = gpa.checked_add(len).ok_or(Errno::EINVAL)?;
        let overlaps = self.maps.iter().any(|other| gpa < other.gpa + other.len && other.gpa < end);
        if !known || !whole || !inside || overlaps || map.protection() == 0 {
            return Err(Errno::EINVAL);
        }
        if self.maps.len() >= MOST_MAPS {
            return Err(Errno::ENOSPC);
        }
        self.maps.push(Map { gpa, len, wired: map.flags() & vm::MEMMAP_WIRED != 0 });
        Ok(())
    }

    /// `VM_MUNMAP_MEMSEG`
    pub fn unmap(&mut self, unmap: &MemoryUnmap) -> Result<()> {
        let is_it = |map: &Map| (map.gpa, map.len) == (unmap.gpa(), unmap.len());
        let index = self.maps.iter().position(is_it).ok_or(Errno::EINVAL)?;
        self.maps.remove(index);
        Ok(())
    }

    /// Guest addresses and bytes of what is wired, which is what an IOMMU's domain has.
    pub fn wired(&self) -> Vec<(u64, u64)> {
        self.maps.iter().filter(|map| map.wired).map(|map| (map.gpa, map.len)).collect()
    }
}
