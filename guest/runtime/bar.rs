//! What the bits of a BAR say (PCI Local Bus Specification 3.0, 6.2.5).

use core::fmt;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Io,
    Memory32 { prefetchable: bool },
    Memory64 { prefetchable: bool },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bar {
    /// 0 to 5; the lower one of a pair.
    pub index: u8,
    pub kind: Kind,
    /// Where it is: a port or a physical address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// One BAR register: what it holds, and what it reads as after all ones were written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register {
    pub value: u32,
    pub mask: u32,
}

impl Kind {
    #[must_use]
    pub fn is_pair(self) -> bool {
        matches!(self, Self::Memory64 { .. })
    }
}

/// What the BAR at `index` is, `upper` being the register behind it. `None` if nothing is implemented there, or if it
/// is of the reserved kind.
#[must_use]
pub fn decode(index: u8, lower: Register, upper: Register) -> Option<Bar> {
    if lower.mask == 0 {
        return None;
    }
    let prefetchable = lower.mask & 8 != 0;
    let kind = match lower.mask & 7 {
        bits if bits & 1 == 1 => Kind::Io,
        0 => Kind::Memory32 { prefetchable },
        4 => Kind::Memory64 { prefetchable },
        _ => return None,
    };
    let flags = if kind == Kind::Io { 0x3 } else { 0xf };
    let join = |low: u32, high: u32| u64::from(low & !flags) | u64::from(high) << 32;
    let (mask, address) = match kind {
        // I/O BARs may leave the upper 16 bits hardwired to zero.
        Kind::Io => (join(lower.mask | 0xffff_0000, u32::MAX), join(lower.value, 0)),
        Kind::Memory32 { .. } => (join(lower.mask, u32::MAX), join(lower.value, 0)),
        Kind::Memory64 { .. } => (join(lower.mask, upper.mask), join(lower.value, upper.value)),
    };
    (mask != 0).then(|| Bar { index, kind, address, size: mask & mask.wrapping_neg() })
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Io => "I/O",
            Self::Memory32 { prefetchable: false } => "memory, 32-bit",
            Self::Memory32 { prefetchable: true } => "memory, 32-bit, prefetchable",
            Self::Memory64 { prefetchable: false } => "memory, 64-bit",
            Self::Memory64 { prefetchable: true } => "memory, 64-bit, prefetchable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Bar, Kind, Register, decode};

    #[test]
    fn bars_are_decoded() {
        let memory32 = |prefetchable| Kind::Memory32 { prefetchable };
        let memory64 = |prefetchable| Kind::Memory64 { prefetchable };
        // Value and mask of the register and of the one behind it.
        for (lower, upper, wanted) in [
            ((0, 0), (0, 0), None),
            ((0xc001, 0xffff_ffc1), (0, 0), Some((Kind::Io, 0xc000, 64))),
            ((0xc001, 0x0000_ffe1), (0, 0), Some((Kind::Io, 0xc000, 32))),
            ((0xfebf_0000, 0xffff_f000), (0, 0), Some((memory32(false), 0xfebf_0000, 4096))),
            ((0x8, 0xfff0_0008), (0, 0), Some((memory32(true), 0, 1 << 20))),
            ((0xc, 0xfff0_000c), (0x80, u32::MAX), Some((memory64(true), 0x80_0000_0000, 1 << 20))),
            ((0x4, 0x4), (0x80, 0xffff_ffe0), Some((memory64(false), 0x80_0000_0000, 32 << 32))),
            ((0x2, 0xffff_f002), (0, 0), None),
        ] {
            let register = |(value, mask)| Register { value, mask };
            let wanted = wanted.map(|(kind, address, size)| Bar { index: 2, kind, address, size });
            assert_eq!(decode(2, register(lower), register(upper)), wanted, "{lower:x?} {upper:x?}");
        }
    }
}
