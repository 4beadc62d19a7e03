//! Base address registers as a type 0 header has them (PCIe 6.0 §7.5.1.2.1).

use super::Space;
use super::registers::{BAR0, ROM_BAR};

/// BARs of a type 0 header.
pub const COUNT: usize = 6;

/// Index of the expansion ROM's BAR, behind those.
pub const ROM: u8 = 6;

/// What a BAR claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; the next register holds address bits 63:32.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

impl BarKind {
    /// From the type bits of the register.
    pub const fn from_register(low: u32) -> BarKind {
        let prefetchable = low & 0x8 != 0;
        match (low & 0x1, low & 0x6) {
            (1, _) => BarKind::Io,
            (_, 0x4) => BarKind::Memory64 { prefetchable },
            // 0x2 is "below 1 MiB" of PCI 2.x and 0x6 is reserved: a plain 32-bit BAR serves both.
            _ => BarKind::Memory32 { prefetchable },
        }
    }

    /// The type bits of the register.
    pub const fn type_bits(self) -> u32 {
        match self {
            BarKind::Io => 0x1,
            BarKind::Memory32 { prefetchable } => (prefetchable as u32) << 3,
            BarKind::Memory64 { prefetchable } => 0x4 | (prefetchable as u32) << 3,
        }
    }

    /// Which address space it lies in.
    pub const fn space(self) -> Space {
        match self {
            BarKind::Io => Space::Io,
            _ => Space::Memory,
        }
    }

    /// It takes two registers.
    pub const fn is_64bit(self) -> bool {
        matches!(self, BarKind::Memory64 { .. })
    }

    /// Reads have no side effects.
    pub const fn is_prefetchable(self) -> bool {
        matches!(self, BarKind::Memory32 { prefetchable: true } | BarKind::Memory64 { prefetchable: true })
    }

    /// Sizes that this kind can have, in bytes: the least one is what the register's type bits leave.
    const fn sizes(self) -> (u64, u64) {
        match self {
            BarKind::Io => (4, 1 << 16),
            BarKind::Memory32 { .. } => (16, 1 << 31),
            BarKind::Memory64 { .. } => (16, 1 << 62),
        }
    }
}

/// A BAR that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Register 0 to 5, of a 64-bit BAR the lower one; or [`ROM`].
    pub index: u8,
    /// What it claims.
    pub kind: BarKind,
    /// Bytes, a power of two.
    pub size: u64,
}

impl Bar {
    /// Offset of its first register in configuration space.
    pub const fn register(&self) -> u16 {
        if self.index == ROM { ROM_BAR } else { BAR0 + 4 * self.index as u16 }
    }

    /// The address bits of the registers that software can write; the size is coded in the others.
    pub const fn address_mask(&self) -> u64 {
        let mask = !(self.size - 1);
        match self.kind {
            BarKind::Memory64 { .. } => mask,
            BarKind::Io | BarKind::Memory32 { .. } => mask & 0xffff_ffff,
        }
    }
}

/// A BAR that cannot be used, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarProblem {
    /// No power of two, or too small or large for its kind.
    #[error(
        "BAR {index} has a size of {size:#x} bytes, which no {kind:?} BAR can have; the guest does not see it"
    )]
    Size {
        /// The BAR.
        index: u8,
        /// What its register says it is.
        kind: BarKind,
        /// The size given.
        size: u64,
    },
    /// No power of two, or too small or large for a ROM.
    #[error(
        "its expansion ROM has a size of {0:#x} bytes, which is no power of two from 2 KiB to 16 MiB; the guest does not \
         see it"
    )]
    Rom(u64),
    /// A 64-bit BAR in the last register.
    #[error("BAR 5 says it is 64 bits wide, with no register for the upper half; the guest does not see it")]
    NoUpperHalf,
}

/// The BARs of a function with these registers (offset 0x10 on) and sizes. What makes no sense is left out and
/// reported.
pub fn decode(registers: [u32; COUNT], sizes: [u64; COUNT]) -> (Vec<Bar>, Vec<BarProblem>) {
    let (mut bars, mut problems) = (Vec::new(), Vec::new());
    let mut upper_half = false;
    for ((index, low), size) in (0u8..).zip(registers).zip(sizes) {
        if std::mem::take(&mut upper_half) {
            continue;
        }
        if size == 0 {
            continue;
        }
        let kind = BarKind::from_register(low);
        upper_half = kind.is_64bit();
        let (least, most) = kind.sizes();
        if kind.is_64bit() && usize::from(index) + 1 == COUNT {
            problems.push(BarProblem::NoUpperHalf);
        } else if !size.is_power_of_two() || size < least || size > most {
            problems.push(BarProblem::Size { index, kind, size });
        } else {
            bars.push(Bar { index, kind, size });
        }
    }
    (bars, problems)
}

/// Sizes of an expansion ROM, in bytes (PCIe 6.0 §7.5.1.2.4).
pub const ROM_SIZES: std::ops::RangeInclusive<u64> = 1 << 11..=1 << 24;

/// The BAR of an expansion ROM of this size; nothing when the size is 0.
pub fn rom(size: u64) -> Result<Option<Bar>, BarProblem> {
    match size {
        0 => Ok(None),
        size if size.is_power_of_two() && ROM_SIZES.contains(&size) => {
            Ok(Some(Bar { index: ROM, kind: BarKind::Memory32 { prefetchable: false }, size }))
        }
        size => Err(BarProblem::Rom(size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_told_by_its_type_bits() {
        for (low, kind) in [
            (0xfe00_0000, BarKind::Memory32 { prefetchable: false }),
            (0xfe00_0008, BarKind::Memory32 { prefetchable: true }),
            (0xfe00_0004, BarKind::Memory64 { prefetchable: false }),
            (0xfe00_000c, BarKind::Memory64 { prefetchable: true }),
            (0x0000_c001, BarKind::Io),
            (0x0000_0002, BarKind::Memory32 { prefetchable: false }),
        ] {
            assert_eq!(BarKind::from_register(low), kind, "{low:#x}");
        }
    }

    #[test]
    fn a_64_bit_bar_takes_two_registers() {
        // What an NVMe drive has: a 64-bit non-prefetchable BAR 0; here with I/O behind it.
        let (bars, problems) = decode([0x4, 0xffff_ffff, 0x1, 0, 0, 0], [0x4000, 0x1000, 0x20, 0, 0, 0]);
        assert_eq!(problems, []);
        assert_eq!(
            bars,
            [
                Bar { index: 0, kind: BarKind::Memory64 { prefetchable: false }, size: 0x4000 },
                Bar { index: 2, kind: BarKind::Io, size: 0x20 },
            ]
        );
    }

    #[test]
    fn impossible_bars_are_left_out() {
        let (bars, problems) = decode([0, 0, 1, 1, 0, 4], [0x3000, 8, 0x20000, 2, 0, 0x1000]);
        assert_eq!(bars, []);
        assert_eq!(problems.len(), 5);
        assert_eq!(problems.last(), Some(&BarProblem::NoUpperHalf));
    }

    #[test]
    fn a_rom_has_the_sizes_that_its_register_can_tell() {
        assert_eq!(rom(0), Ok(None));
        for size in [0x800, 0x1_0000, 0x100_0000] {
            let bar = rom(size).unwrap().unwrap();
            assert_eq!((bar.register(), bar.address_mask()), (0x30, 0xffff_ffff & !(size - 1)));
        }
        for size in [1, 0x400, 0xc00, 0x1801, 0x200_0000, u64::MAX] {
            assert_eq!(rom(size), Err(BarProblem::Rom(size)));
        }
    }

    #[test]
    fn the_address_mask_codes_the_size() {
        let bar = |kind, size| Bar { index: 0, kind, size }.address_mask();
        assert_eq!(bar(BarKind::Memory32 { prefetchable: false }, 0x1000), 0xffff_f000);
        assert_eq!(bar(BarKind::Memory64 { prefetchable: true }, 1 << 35), 0xffff_fff8_0000_0000);
        assert_eq!(bar(BarKind::Io, 0x40), 0xffff_ffc0);
    }
}
