//! PCI as the specifications have it: addresses, configuration registers, capability lists and BARs.
//! Nothing here does I/O; what holds bytes is handed in.

pub mod address;
pub mod bar;
pub mod capability;
mod extent;
pub mod registers;
pub mod rom;

pub use address::{AddressError, HostAddress, Slot, SlotError};

/// A function's configuration space, as a decoder (CF8/CFC, ECAM) reaches it.
///
/// `offset` is at most 4095; `data` is 1, 2 or 4 bytes, little-endian, and does not cross a dword (PCIe 6.0
/// §7.2.2 lets a decoder refuse such accesses; ours split them). What is not there reads all-ones.
pub trait ConfigAccess: Send + Sync {
    /// Reads `data.len()` bytes at `offset`.
    fn config_read(&self, offset: u16, data: &mut [u8]);
    /// Writes `data` at `offset`.
    fn config_write(&self, offset: u16, data: &[u8]);
}

/// The two address spaces a BAR can lie in (PCI 3.0 §6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Guest-physical memory addresses.
    Memory,
    /// I/O ports, 0 to 0xffff.
    Io,
}
