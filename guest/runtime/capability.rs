//! The capability list (PCI Local Bus Specification 3.0, 6.7).

pub const POWER_MANAGEMENT: u8 = 0x01;
pub const MSI: u8 = 0x05;
pub const PCI_EXPRESS: u8 = 0x10;
pub const MSIX: u8 = 0x11;
pub const ADVANCED_FEATURES: u8 = 0x13;

/// No more fit in 256 bytes, so a longer walk is a loop.
const MOST: usize = 48;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capability {
    pub offset: u8,
    pub id: u8,
}

/// Walks the list by single-byte config reads. Ends early if the list loops or points into the header.
pub fn walk(read8: impl Fn(u8) -> u8) -> impl Iterator<Item = Capability> {
    let listed = read8(0x06) & 0x10 != 0;
    let mut next = if listed { read8(0x34) & 0xfc } else { 0 };
    core::iter::from_fn(move || {
        if next < 0x40 {
            return None;
        }
        let capability = Capability { offset: next, id: read8(next) };
        next = read8(next + 1) & 0xfc;
        Some(capability)
    })
    .take(MOST)
}

#[must_use]
pub fn name(id: u8) -> &'static str {
    match id {
        POWER_MANAGEMENT => "power management",
        0x03 => "vital product data",
        MSI => "MSI",
        0x09 => "vendor specific",
        0x0d => "subsystem",
        PCI_EXPRESS => "PCI Express",
        MSIX => "MSI-X",
        0x12 => "SATA",
        ADVANCED_FEATURES => "advanced features",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::{Capability, walk};

    fn config(bytes: &[(usize, u8)]) -> [u8; 256] {
        let mut config = [0; 256];
        for &(offset, byte) in bytes {
            config[offset] = byte;
        }
        config
    }

    fn list(config: &[u8; 256]) -> Vec<(u8, u8)> {
        walk(|offset| config[usize::from(offset)]).map(|Capability { offset, id }| (offset, id)).collect()
    }

    #[test]
    fn the_list_is_walked_in_order() {
        let config = config(&[(6, 0x10), (0x34, 0x80), (0x80, 5), (0x81, 0x43), (0x40, 0x11), (0x41, 0)]);
        assert_eq!(list(&config), [(0x80, 5), (0x40, 0x11)]);
    }

    #[test]
    fn broken_lists_end() {
        assert_eq!(list(&config(&[(0x34, 0x40), (0x40, 5)])), [], "status says that there is no list");
        assert_eq!(list(&config(&[(6, 0x10), (0x34, 0x10)])), [], "into the header");
        let looped = config(&[(6, 0x10), (0x34, 0x40), (0x40, 5), (0x41, 0x40)]);
        assert_eq!(list(&looped).len(), 48);
    }
}
