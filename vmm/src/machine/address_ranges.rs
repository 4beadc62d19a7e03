//! Which guest addresses the RAM leaves to the functions.

use std::ops::Range;

use devices::pci::windows::Available;

use crate::layout;
use crate::memory::RamSize;

/// The range that AMD processors reserve for HyperTransport: no IOMMU maps it (AMD I/O Virtualization Technology
/// 48882 §2.1.2).
const HYPERTRANSPORT: Range<u64> = 0xfd_0000_0000..0x100_0000_0000;

/// The first address behind all of the RAM.
pub(crate) fn ram_end(size: RamSize) -> u64 {
    let high = size.bytes().saturating_sub(layout::LOW_RAM_END);
    if high == 0 { size.bytes() } else { layout::HIGH_RAM_START + high }
}

/// Addresses that the host bridges may have, for this much memory and processors of this width.
pub(crate) fn available(ram_end: u64, address_bits: u32) -> Available {
    // Close behind the RAM rather than at the top: an IOMMU of 39 bits still reaches BARs there.
    let start = ram_end.max(layout::HIGH_RAM_START).next_multiple_of(1 << 30);
    let mut end = 1u64 << address_bits.clamp(32, 46);
    if start < HYPERTRANSPORT.start {
        end = end.min(HYPERTRANSPORT.start);
    }
    Available {
        memory32: layout::WINDOW32,
        memory64: start..end.max(start),
        io: layout::WINDOW_IO,
        excluded: vec![HYPERTRANSPORT],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_64_bit_window_is_behind_the_ram_and_within_the_processors_reach() {
        for (ram_end, bits, start, end) in [
            (256 << 20, 40, 1 << 32, 0xfd_0000_0000),
            (0x1_4000_0000, 39, 0x1_4000_0000, 1 << 39),
            (0x1_4010_0000, 52, 0x1_8000_0000, 0xfd_0000_0000),
            (0x101_0000_0000, 52, 0x101_0000_0000, 1 << 46),
            (1 << 32, 32, 1 << 32, 1 << 32),
        ] {
            assert_eq!(available(ram_end, bits).memory64, start..end);
        }
    }
}
