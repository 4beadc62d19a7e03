//! Which bytes a capability takes, and whether it shares some with another.
//!
//! A list says where capabilities start. Where they end follows from what they are and say of themselves, or from where
//! the next one starts. In a broken list two may claim the same registers: at most one of them can be right.

use super::capability::{read_u16, read_u32};
use super::registers::{capability_id, extended_id};

/// Bytes that a capability takes at least and at most. One that has less room than the former is none; the latter is
/// cut where the next one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    least: u16,
    most: u16,
}

impl Size {
    const fn exactly(bytes: u16) -> Size {
        Size { least: bytes, most: bytes }
    }

    const fn up_to(least: u16, most: u16) -> Size {
        Size { least, most: if most < least { least } else { most } }
    }

    /// A header and nobody knows what.
    const UNKNOWN: Size = Size::up_to(4, u16::MAX);
}

/// Size of a capability of the first 256 bytes (PCIe 6.0 §7.5, §7.7 and §7.9, PCI-X 2.0 §7.2, SATA AHCI 1.3.1 §2.4).
pub fn standard(config: &[u8], id: u8, offset: u16) -> Size {
    let control = read_u16(config, offset.saturating_add(2));
    match id {
        capability_id::NULL | capability_id::DEBUG_PORT | capability_id::SLOT => Size::exactly(4),
        capability_id::POWER | capability_id::VPD | capability_id::SUBSYSTEM => Size::exactly(8),
        capability_id::SATA | capability_id::ADVANCED_FEATURES => Size::exactly(8),
        // The second version has error-correction registers too.
        capability_id::PCI_X => Size::exactly(if control >> 12 & 0x3 == 0 { 8 } else { 24 }),
        capability_id::MSIX => Size::exactly(12),
        // 64-bit address and per-vector masking make it longer.
        capability_id::MSI => Size::exactly(match (control & 0x80 != 0, control & 0x100 != 0) {
            (false, false) => 12,
            (true, false) => 16,
            (false, true) => 20,
            (true, true) => 24,
        }),
        // What follows the Device registers depends on version and type, and is left out where it does not fit. All of
        // it is the capability's whatever it says it is: QEMU's e1000e is an integrated endpoint of the first version and
        // has Link registers behind, which would be nobody's otherwise.
        capability_id::EXPRESS => Size::up_to(0x0c, 0x3c),
        capability_id::VENDOR => Size::up_to(4, control & 0xff),
        _ => Size::UNKNOWN,
    }
}

/// Size of a capability of the extended configuration space (PCIe 6.0 §7.6 to §7.9).
pub fn extended(config: &[u8], id: u16, offset: u16) -> Size {
    match id {
        0 | extended_id::CONFIGURATION_CORRELATION => Size::exactly(4),
        // With or without the log of TLP prefixes.
        extended_id::AER => Size::up_to(0x2c, 0x48),
        extended_id::SERIAL_NUMBER => Size::exactly(0x0c),
        extended_id::VENDOR => Size::up_to(8, (read_u32(config, offset.saturating_add(4)) >> 20) as u16),
        extended_id::POWER_BUDGETING | extended_id::PAGE_REQUESTS | extended_id::L1_SUBSTATES => {
            Size::exactly(0x10)
        }
        extended_id::ACS | extended_id::ARI | extended_id::ATS | extended_id::LTR | extended_id::PASID => {
            Size::exactly(8)
        }
        extended_id::SRIOV => Size::exactly(0x40),
        extended_id::MULTICAST => Size::exactly(0x30),
        extended_id::PRECISION_TIME => Size::exactly(0x0c),
        extended_id::TPH_REQUESTER => Size::up_to(0x0c, u16::MAX),
        // A header, and a capability and a control register for each BAR, of which the first says how many.
        extended_id::RESIZABLE_BAR | extended_id::VF_RESIZABLE_BAR => {
            let bars = (read_u32(config, offset.saturating_add(8)) >> 5 & 0x7) as u16;
            Size::exactly(4 + 8 * bars.clamp(1, 6))
        }
        extended_id::DATA_OBJECT_EXCHANGE => Size::exactly(0x18),
        _ => Size::UNKNOWN,
    }
}

/// What a capability claims, before it is known what others do.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// First byte.
    pub offset: u16,
    /// Its size.
    pub size: Size,
    /// It is believed where it and others overlap: all of its registers are made up, so that it cannot show another's.
    pub believed: bool,
}

/// How a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many bytes are its own.
    Apart(u16),
    /// It would take so many bytes, but some are another's.
    Overlaps(u16),
    /// It would end behind the space it is in, of which so many bytes are left.
    TooShort(u16),
}

impl Extent {
    /// Bytes that it takes or would take.
    pub const fn bytes(self) -> u16 {
        match self {
            Extent::Apart(len) | Extent::Overlaps(len) | Extent::TooShort(len) => len,
        }
    }
}

/// Which bytes each claim of a list gets. `end` is that of the space.
///
/// Of claims that overlap, the first believed one stands; of the others none does, since nothing tells which is right.
pub fn settle(claims: &[Claim], end: u16) -> Vec<Extent> {
    let mut extents: Vec<Extent> = claims
        .iter()
        .map(|claim| {
            let next = claims.iter().map(|c| c.offset).filter(|o| *o > claim.offset).min();
            let left = end.saturating_sub(claim.offset);
            let room = next.map_or(left, |n| n - claim.offset);
            if left < claim.size.least {
                Extent::TooShort(left)
            } else {
                Extent::Apart(claim.size.most.min(room).max(claim.size.least))
            }
        })
        .collect();
    let ranges: Vec<_> = claims.iter().zip(&extents).map(|(c, e)| c.offset..c.offset + e.bytes()).collect();
    let mut taken: Vec<bool> = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        let overlapped = ranges.iter().zip(claims).enumerate().any(|(other, (range, rival))| {
            let earlier = taken.get(other).copied().unwrap_or(true);
            let counts =
                if claim.believed { rival.believed && other < index && earlier } else { other != index };
            counts && ranges.get(index).is_some_and(|r| r.start < range.end && range.start < r.end)
        });
        taken.push(!overlapped);
        if let Some(extent) = extents.get_mut(index)
            && overlapped
        {
            *extent = match *extent {
                Extent::Apart(len) => Extent::Overlaps(len),
                other => other,
            };
        }
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(offset: u16, size: Size) -> Claim {
        Claim { offset, size, believed: false }
    }

    #[test]
    fn a_size_that_varies_ends_where_the_next_one_starts() {
        let claims =
            [claim(0x80, Size::UNKNOWN), claim(0x40, Size::up_to(4, 0xff)), claim(0xf0, Size::exactly(8))];
        let extents = settle(&claims, 0x100);
        assert_eq!(extents, [Extent::Apart(0x70), Extent::Apart(0x40), Extent::Apart(8)]);
    }

    #[test]
    fn of_two_that_overlap_neither_stands_unless_one_is_believed() {
        let (low, high) = (claim(0x40, Size::exactly(8)), claim(0x44, Size::exactly(8)));
        let believed = |claim| Claim { believed: true, ..claim };
        let (apart, overlaps) = (Extent::Apart(8), Extent::Overlaps(8));
        for (name, claims, extents) in [
            ("equals", [low, high], [overlaps, overlaps]),
            ("the lower believed", [believed(low), high], [apart, overlaps]),
            ("the higher believed", [low, believed(high)], [overlaps, apart]),
            ("both believed: the first", [believed(high), believed(low)], [apart, overlaps]),
        ] {
            assert_eq!(settle(&claims, 0x100), extents, "{name}");
        }
    }

    #[test]
    fn what_ends_behind_the_space_is_too_short() {
        assert_eq!(settle(&[claim(0xf8, Size::exactly(12))], 0x100), [Extent::TooShort(8)]);
    }
}
