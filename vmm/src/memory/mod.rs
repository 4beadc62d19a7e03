//! Guest RAM: its size, the host memory behind it, and the memory map that a guest is told.
//!
//! A guest reset leaves RAM as it is, as the reset of a PC does. What a guest may rely on after a reset is only
//! what the loaders ([`crate::boot`], [`crate::acpi`]) write again: the kernel with its zeroed memory, the boot
//! data and the tables.

mod all_ones;
mod allocate;
mod map;
mod prefault;
mod region;
mod reserved_pages;
mod size;

#[cfg(test)]
mod tests;

pub use all_ones::AllOnes;
pub(crate) use allocate::ranges;
pub use allocate::{Backing, Error, allocate};
pub use map::{MapEntry, MapKind, map_of_size, memory_map};
pub use prefault::Prefault;
pub use region::RamRegion;
pub use reserved_pages::{PoolState, pool_state};
pub(crate) use size::parse as parse_size;
pub use size::{InvalidSize, RamSize};

/// Guest RAM. Clones share the same memory, which is unmapped with the last of them.
pub type GuestMemory = vm_memory::GuestRegionCollection<RamRegion>;

/// Unit of guest RAM in bytes: the huge page of x86-64 that host and guest mappings use.
pub const HUGE_PAGE: u64 = 2 << 20;
