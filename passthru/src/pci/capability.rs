//! Capability lists: bounded walks over bytes that may hold anything.

use super::registers::{CAPABILITIES, CONVENTIONAL_SIZE, EXTENDED_CAPABILITIES, STATUS, STATUS_CAPABILITIES};

/// A capability in the first 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Capability id.
    pub id: u8,
    /// Offset of its first byte, 0x40 to 0xfc, a multiple of 4.
    pub offset: u16,
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
}

/// What is wrong with a list. The walk ends there; what was found before stays.
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

/// Walks the list of the first 256 bytes.
///
/// The two low bits of pointers are reserved and masked (PCIe 6.0 §7.5.1.1.11).
pub fn walk(config: &[u8]) -> (Vec<Capability>, Option<ListProblem>) {
    let mut found: Vec<Capability> = Vec::new();
    if read_u16(config, STATUS) & STATUS_CAPABILITIES == 0 {
        return (found, None);
    }
    let mut next = read_u16(config, CAPABILITIES) & 0xfc;
    while next != 0 {
        if next < 0x40 || usize::from(next) >= CONVENTIONAL_SIZE {
            return (found, Some(ListProblem::Outside(next)));
        }
        // Every turn adds a capability at an offset not seen before, of which there are 48.
        if found.iter().any(|c| c.offset == next) {
            return (found, Some(ListProblem::Cycle(next)));
        }
        let header = read_u16(config, next);
        if header == 0xffff {
            return (found, Some(ListProblem::NoAnswer(next)));
        }
        found.push(Capability { id: header as u8, offset: next });
        next = header >> 8 & 0xfc;
    }
    (found, None)
}

/// Walks the list of the extended configuration space; empty for a function without one.
pub fn walk_extended(config: &[u8]) -> (Vec<ExtendedCapability>, Option<ListProblem>) {
    let mut found: Vec<ExtendedCapability> = Vec::new();
    let mut next = EXTENDED_CAPABILITIES;
    while next != 0 {
        if next < EXTENDED_CAPABILITIES {
            return (found, Some(ListProblem::Outside(next)));
        }
        if found.iter().any(|c| c.offset == next) {
            return (found, Some(ListProblem::Cycle(next)));
        }
        let header = read_u32(config, next);
        if header == u32::MAX {
            // A conventional function behind a bridge reads all-ones from 0x100 on.
            let problem = (!found.is_empty()).then_some(ListProblem::NoAnswer(next));
            return (found, problem);
        }
        // An all-zero header at 0x100 says that there is no list (PCIe 6.0 §7.6.2); one further on ends it.
        if header == 0 {
            break;
        }
        found.push(ExtendedCapability {
            id: header as u16,
            version: (header >> 16 & 0xf) as u8,
            offset: next,
        });
        next = (header >> 20) as u16 & 0xffc;
    }
    (found, None)
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

    fn offsets(config: &[u8]) -> (Vec<u16>, Option<ListProblem>) {
        let (found, problem) = walk(config);
        (found.iter().map(|c| c.offset).collect(), problem)
    }

    #[test]
    fn lists_are_walked_to_their_end() {
        let two = config(&[(0x34, &[0x43]), (0x40, &[0x05, 0x51]), (0x50, &[0x11, 0])]);
        assert_eq!(offsets(&two), (vec![0x40, 0x50], None), "the low bits of pointers do not count");
        let mut none = two.clone();
        none[usize::from(STATUS)] = 0;
        assert_eq!(offsets(&none), (vec![], None));
    }

    #[test]
    fn broken_lists_end_where_they_break() {
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
            ("into the header", config(&[(0x34, &[0x10])]), vec![], ListProblem::Outside(0x10)),
            (
                "to silence",
                config(&[(0x34, &[0xfc]), (0xfc, &[0xff; 4])]),
                vec![],
                ListProblem::NoAnswer(0xfc),
            ),
        ] {
            assert_eq!(offsets(&config), (found, Some(problem)), "{name}");
        }
    }

    #[test]
    fn any_bytes_end() {
        for fill in 0..=255u8 {
            assert!(walk(&[fill; 256]).0.len() <= 48);
            assert!(walk_extended(&[fill; 4096]).0.len() <= 960);
            assert!(walk(&[fill; 7]).0.is_empty());
        }
    }

    #[test]
    fn extended_lists() {
        let put = |config: &mut Vec<u8>, offset: usize, header: u32| {
            config[offset..offset + 4].copy_from_slice(&header.to_le_bytes());
        };
        let mut config = vec![0; 4096];
        assert_eq!(walk_extended(&config), (vec![], None));
        put(&mut config, 0x100, 0x1482_0001);
        put(&mut config, 0x148, 0x0001_0003);
        let (found, problem) = walk_extended(&config);
        assert_eq!(
            found.iter().map(|c| (c.id, c.version, c.offset)).collect::<Vec<_>>(),
            [(1, 2, 0x100), (3, 1, 0x148)]
        );
        assert_eq!(problem, None);
        put(&mut config, 0x148, 0x1001_0003);
        assert_eq!(walk_extended(&config).1, Some(ListProblem::Cycle(0x100)));
        put(&mut config, 0x148, 0x0201_0003);
        assert_eq!(walk_extended(&config).1, Some(ListProblem::Outside(0x20)));
        assert_eq!(walk_extended(&[0xff; 4096]), (vec![], None));
        assert_eq!(walk_extended(&[0; 256]), (vec![], None));
    }
}
