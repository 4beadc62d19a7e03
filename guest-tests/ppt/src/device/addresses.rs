//! The host addresses of BARs. Nothing is there: they only name a BAR, as they do for whoever asks illumos' kernel.

use passthru::pci::Space;

use crate::abi::PAGE;

/// Behind whatever memory a guest or this host has, so that none is taken for another kind of address.
const MEMORY: u64 = 1 << 42;
/// What a processor can address (52 bits).
const MEMORY_END: u64 = 1 << 52;
/// Behind the ports of a PC's own devices.
const PORTS: u64 = 0x1000;
const PORTS_END: u64 = 0x1_0000;

/// Which addresses are free.
pub struct Addresses {
    memory: u64,
    ports: u64,
}

impl Default for Addresses {
    fn default() -> Addresses {
        Addresses { memory: MEMORY, ports: PORTS }
    }
}

impl Addresses {
    /// An address for a BAR of `size` bytes, which is a power of two; nothing when there is no room. Memory begins with a
    /// page, and no BAR touches another.
    pub fn assign(&mut self, space: Space, size: u64) -> Option<u64> {
        let (next, align, gap, limit) = match space {
            Space::Memory => (&mut self.memory, size.max(PAGE), PAGE, MEMORY_END),
            Space::Io => (&mut self.ports, size, 0, PORTS_END),
        };
        let base = next.checked_next_multiple_of(align)?;
        let end = base.checked_add(size.max(align)).filter(|end| *end <= limit)?;
        *next = end + gap;
        Some(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_apart() {
        let mut addresses = Addresses::default();
        let mut before = 0;
        for size in [0x1000, 0x40, 0x10, 1 << 20, 0x4000, 1 << 36] {
            let base = addresses.assign(Space::Memory, size).unwrap();
            assert_eq!((base % size, base % PAGE), (0, 0), "{size:#x}");
            assert!(base > before, "{size:#x}: a page apart from the one before");
            before = base + size.max(PAGE);
        }
        assert_eq!(addresses.assign(Space::Memory, 1 << 62), None);
        assert!(addresses.assign(Space::Memory, 1 << 20).is_some(), "what is too large takes nothing");
    }

    #[test]
    fn ports_are_few() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.assign(Space::Io, 0x40), Some(0x1000));
        assert_eq!(addresses.assign(Space::Io, 0x100), Some(0x1100));
        assert_eq!(addresses.assign(Space::Io, 0x1_0000), None);
        assert_eq!(addresses.assign(Space::Io, 0x8000), Some(0x8000));
        assert_eq!(addresses.assign(Space::Io, 4), None);
    }
}
