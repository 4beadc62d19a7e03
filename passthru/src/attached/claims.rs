//! Which parts of a function's BARs are not the function's own to answer.

use super::windows::{Register, Windows};
use crate::function::{Function, Mirror};
use crate::host::{BarRange, ROM};
use crate::pci::rom::RomImage;

/// Who answers a part of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The function, by way of its host.
    Host,
    /// The MSI-X table that the guest sees.
    Table,
    /// Its pending bits.
    Pending,
    /// The configuration space that the guest sees.
    Config(Mirror),
    /// The contents that were given instead of the function's own ROM.
    Rom,
    /// A register that configuration space or the MSI-X table is behind.
    Window(Register),
}

pub struct Claims {
    ranges: Vec<(BarRange, Answers)>,
    pub rom: Option<RomImage>,
    pub windows: Windows,
}

impl Claims {
    pub fn new(function: &Function, rom: Option<RomImage>) -> Claims {
        let structures = function.msix_structures().into_iter();
        // Where a table's end is over the pending bits, those of its vectors that the guest sees end before them.
        let msix = structures.flat_map(|m| [(m.pending, Answers::Pending), (m.table, Answers::Table)]);
        let windows = Windows::new(function.quirks());
        let registers = windows.registers().map(|(range, register)| (range, Answers::Window(register)));
        let mirrors = function.quirks().config_mirror.iter().map(|mirror| {
            let Mirror { bar, offset, len, .. } = *mirror;
            (BarRange { bar, offset, len }, Answers::Config(*mirror))
        });
        let whole = rom.iter().map(|_| (BarRange { bar: ROM, offset: 0, len: u64::MAX }, Answers::Rom));
        let ranges = msix.chain(registers).chain(mirrors).chain(whole).collect();
        Claims { ranges, rom, windows }
    }

    /// Who answers byte `offset` of a BAR, at which offset of what it is, and how many bytes from there on. Where ranges
    /// overlap the first counts: nothing else is ever let at the MSI-X table.
    pub fn answers(&self, bar: u8, offset: u64) -> (Answers, u64, u64) {
        let mut room = u64::MAX;
        for (range, who) in self.ranges.iter().filter(|(range, _)| range.bar == bar) {
            match offset.checked_sub(range.offset) {
                Some(at) if at < range.len => return (*who, at, room.min(range.len - at)),
                Some(_) => {}
                None => room = room.min(range.offset - offset),
            }
        }
        (Answers::Host, offset, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Quirks;

    #[test]
    fn every_byte_has_one_who_answers_and_the_first_claim_wins() {
        let mirror = Mirror { bar: 0, offset: 0x100, len: 0x100, msi_acknowledge: false };
        let range = |offset, len| BarRange { bar: 0, offset, len };
        let claims = Claims {
            ranges: vec![
                (range(0x180, 0x20), Answers::Table),
                (range(0x40, 8), Answers::Pending),
                (range(0x100, 0x100), Answers::Config(mirror)),
            ],
            rom: None,
            windows: Windows::new(&Quirks::default()),
        };
        for (offset, want) in [
            (0, (Answers::Host, 0, 0x40)),
            (0x44, (Answers::Pending, 4, 4)),
            (0x48, (Answers::Host, 0x48, 0xb8)),
            (0x17c, (Answers::Config(mirror), 0x7c, 4)),
            (0x180, (Answers::Table, 0, 0x20)),
            (0x1a0, (Answers::Config(mirror), 0xa0, 0x60)),
            (0x200, (Answers::Host, 0x200, u64::MAX)),
        ] {
            assert_eq!(claims.answers(0, offset), want, "{offset:#x}");
        }
        assert_eq!(claims.answers(1, 0x180).0, Answers::Host);
    }
}
