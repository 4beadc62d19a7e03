//! Capability lists: bounded walks over bytes that may hold anything.

use super::extent::{self, Claim, Extent};
use super::registers::{
    CAPABILITIES, CONVENTIONAL_SIZE, EXPRESS_SIZE, EXTENDED_CAPABILITIES, STATUS, STATUS_CAPABILITIES,
    capability_id,
};

/// A capability in the first 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Capability id.
    pub id: u8,
    /// Offset of its first byte, 0x40 to 0xfc, a multiple of 4.
    pub offset: u16,
    /// Bytes that it takes, within the first 256.
    pub len: u16,
    /// All of them are there and its own. One that is not can only be hidden.
    pub intact: bool,
}

/// A capability in the extended configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    /// Extended capability id.
    pub id: u16,
    /// Version of its layout.
    pub version: u8,
    /// Offset of its first byte, 0x100 to 0xffc, a multiple of 4.
    pub offset: u16,
    /// Bytes that it takes, within the 4096.
    pub len: u16,
    /// All of them are there and its own. One that is not can only be hidden.
    pub intact: bool,
}

/// What is wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListProblem {
    /// A pointer leads back to a capability of the list.
    #[error("the capability list comes back to {0:#x}; it ends there")]
    Cycle(u16),
    /// A pointer leads into the header, or (extended list) below 0x100.
    #[error("a capability pointer leads to {0:#x}, where no capability can be; the list ends there")]
    Outside(u16),
    /// The pointer leads to where all bytes are 0xff: a function that does not answer.
    #[error("nothing answers at the capability at {0:#x}; the list ends there")]
    NoAnswer(u16),
    /// The reserved low bits of a pointer are set.
    #[error("a capability pointer reads {0:#x}, which is no multiple of 4; its low bits are ignored")]
    Unaligned(u16),
    /// A capability's registers are another's too.
    #[error("the capability at {0:#x} and another claim the same registers; the guest does not see it")]
    Overlap(u16),
    /// A capability would end behind the configuration space.
    #[error("the capability at {0:#x} has no room for its registers; the guest does not see it")]
    TooShort(u16),
}

/// The word at `offset`, 0 beyond the end.
pub fn read_u16(config: &[u8], offset: u16) -> u16 {
    u16::from_le_bytes(bytes(config, offset))
}

/// The dword at `offset`, 0 beyond the end.
pub fn read_u32(config: &[u8], offset: u16) -> u32 {
    u32::from_le_bytes(bytes(config, offset))
}

fn bytes<const N: usize>(config: &[u8], offset: u16) -> [u8; N] {
    let mut out = [0; N];
    for (byte, from) in out.iter_mut().zip(config.iter().skip(usize::from(offset))) {
        *byte = *from;
    }
    out
}

/// Walks the list of the first 256 bytes. What is wrong with it is at most one problem for each capability and pointer.
///
/// The two low bits of pointers are reserved and masked (PCIe 6.0 §7.5.1.1.11).
pub fn walk(config: &[u8]) -> (Vec<Capability>, Vec<ListProblem>) {
    let (mut found, mut problems): (Vec<Capability>, _) = (Vec::new(), Vec::new());
    if read_u16(config, STATUS) & STATUS_CAPABILITIES == 0 {
        return (found, problems);
    }
    let mut pointer = read_u16(config, CAPABILITIES) & 0xff;
    while let Some(next) = follow(pointer, 0xfc, &mut problems) {
        if next < 0x40 || usize::from(next) >= CONVENTIONAL_SIZE {
            problems.push(ListProblem::Outside(next));
            break;
        }
        // Every turn adds a capability at an offset not seen before, of which there are 48.
        if found.iter().any(|c| c.offset == next) {
            problems.push(ListProblem::Cycle(next));
            break;
        }
        let header = read_u16(config, next);
        if header == 0xffff {
            problems.push(ListProblem::NoAnswer(next));
            break;
        }
        found.push(Capability { id: header as u8, offset: next, len: 4, intact: true });
        pointer = header >> 8;
    }
    let claims: Vec<Claim> = found
        .iter()
        .map(|c| Claim {
            offset: c.offset,
            size: extent::standard(config, c.id, c.offset),
            believed: matches!(c.id, capability_id::MSI | capability_id::MSIX),
        })
        .collect();
    for (capability, extent) in found.iter_mut().zip(extent::settle(&claims, CONVENTIONAL_SIZE as u16)) {
        (capability.len, capability.intact) = judge(capability.offset, extent, &mut problems);
    }
    (found, problems)
}

/// Walks the list of the extended configuration space; empty for a function without one.
pub fn walk_extended(config: &[u8]) -> (Vec<ExtendedCapability>, Vec<ListProblem>) {
    let (mut found, mut problems): (Vec<ExtendedCapability>, _) = (Vec::new(), Vec::new());
    let mut pointer = EXTENDED_CAPABILITIES;
    while let Some(next) = follow(pointer, 0xffc, &mut problems) {
        if next < EXTENDED_CAPABILITIES {
            problems.push(ListProblem::Outside(next));
            break;
        }
        if found.iter().any(|c| c.offset == next) {
            problems.push(ListProblem::Cycle(next));
            break;
        }
        let header = read_u32(config, next);
        if header == u32::MAX {
            // A conventional function behind a bridge reads all-ones from 0x100 on.
            problems.extend((!found.is_empty()).then_some(ListProblem::NoAnswer(next)));
            break;
        }
        // An all-zero header at 0x100 says that there is no list (PCIe 6.0 §7.6.2); one further on ends it.
        if header == 0 {
            break;
        }
        found.push(ExtendedCapability {
            id: header as u16,
            version: (header >> 16 & 0xf) as u8,
            offset: next,
            len: 4,
            intact: true,
        });
        pointer = (header >> 20) as u16;
    }
    let claims: Vec<Claim> = found
        .iter()
        .map(|c| Claim { offset: c.offset, size: extent::extended(config, c.id, c.offset), believed: false })
        .collect();
    for (capability, extent) in found.iter_mut().zip(extent::settle(&claims, EXPRESS_SIZE as u16)) {
        (capability.len, capability.intact) = judge(capability.offset, extent, &mut problems);
    }
    (found, problems)
}

/// Where a pointer leads, unless it ends the list.
fn follow(pointer: u16, mask: u16, problems: &mut Vec<ListProblem>) -> Option<u16> {
    if pointer & !mask != 0 {
        problems.push(ListProblem::Unaligned(pointer));
    }
    (pointer & mask != 0).then_some(pointer & mask)
}

fn judge(offset: u16, extent: Extent, problems: &mut Vec<ListProblem>) -> (u16, bool) {
    match extent {
        Extent::Apart(len) => return (len, true),
        Extent::Overlaps(_) => problems.push(ListProblem::Overlap(offset)),
        Extent::TooShort(_) => problems.push(ListProblem::TooShort(offset)),
    }
    (extent.bytes(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(list: &[(u8, &[u8])]) -> Vec<u8> {
        let mut config = vec![0; 4096];
        config[usize::from(STATUS)] = STATUS_CAPABILITIES as u8;
        for (offset, bytes) in list {
            config[usize::from(*offset)..][..bytes.len()].copy_from_slice(bytes);
        }
        config
    }

    fn offsets(config: &[u8]) -> (Vec<u16>, Vec<ListProblem>) {
        let (found, problem) = walk(config);
        (found.iter().map(|c| c.offset).collect(), problem)
    }

    #[test]
    fn lists_are_walked_to_their_end() {
        let two = config(&[(0x34, &[0x40]), (0x40, &[0x05, 0x50]), (0x50, &[0x11, 0])]);
        assert_eq!(offsets(&two), (vec![0x40, 0x50], vec![]));
        let mut none = two.clone();
        none[usize::from(STATUS)] = 0;
        assert_eq!(offsets(&none), (vec![], vec![]));
    }

    #[test]
    fn broken_lists_give_what_can_be_used() {
        for (name, config, found, problem) in [
            (
                "to itself",
                config(&[(0x34, &[0x40]), (0x40, &[1, 0x40])]),
                vec![0x40],
                ListProblem::Cycle(0x40),
            ),
            (
                "in a circle",
                config(&[(0x34, &[0x40]), (0x40, &[1, 0x50]), (0x50, &[5, 0x40])]),
                vec![0x40, 0x50],
                ListProblem::Cycle(0x40),
            ),
            (
                "over the low bits of a pointer",
                config(&[(0x34, &[0x43]), (0x40, &[1, 0x50]), (0x50, &[5, 0])]),
                vec![0x40, 0x50],
                ListProblem::Unaligned(0x43),
            ),
            (
                "on each other",
                config(&[(0x34, &[0x40]), (0x40, &[5, 0x44]), (0x44, &[1, 0])]),
                vec![0x40, 0x44],
                ListProblem::Overlap(0x44),
            ),
            (
                "at the end",
                config(&[(0x34, &[0xf8]), (0xf8, &[0x11, 0])]),
                vec![0xf8],
                ListProblem::TooShort(0xf8),
            ),
            ("into the header", config(&[(0x34, &[0x10])]), vec![], ListProblem::Outside(0x10)),
            (
                "to silence",
                config(&[(0x34, &[0xfc]), (0xfc, &[0xff; 4])]),
                vec![],
                ListProblem::NoAnswer(0xfc),
            ),
        ] {
            assert_eq!(offsets(&config), (found, vec![problem]), "{name}");
        }
    }

    #[test]
    fn any_bytes_end() {
        for fill in 0..=255u8 {
            let (found, problems) = walk(&[fill; 256]);
            assert!(found.len() <= 48 && problems.len() <= 100);
            let (found, problems) = walk_extended(&[fill; 4096]);
            assert!(found.len() <= 960 && problems.len() <= 2000);
            assert!(walk(&[fill; 7]).0.is_empty());
        }
    }

    #[test]
    fn extended_lists() {
        let put = |config: &mut Vec<u8>, offset: usize, header: u32| {
            config[offset..offset + 4].copy_from_slice(&header.to_le_bytes());
        };
        let mut config = vec![0; 4096];
        assert_eq!(walk_extended(&config), (vec![], vec![]));
        put(&mut config, 0x100, 0x1482_0001);
        put(&mut config, 0x148, 0x0001_0003);
        let (found, problems) = walk_extended(&config);
        assert_eq!(
            found.iter().map(|c| (c.id, c.version, c.offset, c.len)).collect::<Vec<_>>(),
            [(1, 2, 0x100, 0x48), (3, 1, 0x148, 0xc)]
        );
        assert_eq!(problems, []);
        put(&mut config, 0x148, 0x1001_0003);
        assert_eq!(walk_extended(&config).1, [ListProblem::Cycle(0x100)]);
        put(&mut config, 0x148, 0x0201_0003);
        assert_eq!(walk_extended(&config).1, [ListProblem::Outside(0x20)]);
        assert_eq!(walk_extended(&[0xff; 4096]), (vec![], vec![]));
        assert_eq!(walk_extended(&[0; 256]), (vec![], vec![]));
    }
}
