//! MSI-X: the capability's control register, and the table as the guest wrote it (PCIe 6.0 §7.7.2).

use super::pieces::MsixStructures;
use super::registers::{Register, Registers};
use super::vectors::Want;
use crate::host::BarRange;
use crate::pci::bar::{Bar, BarKind};
use crate::pci::capability::{Capability, read_u16, read_u32};
use crate::pci::registers::CONVENTIONAL_SIZE;
use crate::ports::MsiMessage;

/// Bytes of a table entry.
pub const ENTRY: u64 = 16;

const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
const VECTOR_MASK: u32 = 1;

/// An MSI-X capability that a guest cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsixProblem {
    /// The structures are not inside a memory BAR.
    #[error("the MSI-X {what} at {range} is not inside a memory BAR; the guest does not see MSI-X")]
    Outside {
        /// `table` or `pending bits`.
        what: &'static str,
        /// Where it would be.
        range: BarRange,
    },
    /// Table and pending bits share bytes.
    #[error("the MSI-X table at {0} overlaps the pending bits at {1}; the guest does not see MSI-X")]
    Overlap(BarRange, BarRange),
}

/// Where the structures of a physical MSI-X capability are, as far as its registers can be believed. `pending` is where
/// the pending bits are known to be in their BAR, for a function that says otherwise.
pub fn structures(raw: &[u8], capability: &Capability, pending: Option<u64>) -> MsixStructures {
    let vectors = u64::from(read_u16(raw, capability.offset + 2) & 0x7ff) + 1;
    let range = |register: u16, len| {
        let value = read_u32(raw, capability.offset.saturating_add(register));
        BarRange { bar: (value & 0x7) as u8, offset: u64::from(value & !0x7), len }
    };
    let table = range(4, vectors * ENTRY);
    let told = range(8, vectors.div_ceil(64) * 8);
    MsixStructures { table, pending: BarRange { offset: pending.unwrap_or(told.offset), ..told } }
}

/// The MSI-X of a function, as its guest sees it.
#[derive(Clone, Debug)]
pub struct Msix {
    capability: u16,
    vectors: u16,
    structures: MsixStructures,
    /// Address low, address high, data, control.
    entries: Vec<[u32; 4]>,
}

impl Msix {
    /// Reads the capability, whose structures are at `structures`; `limit` is how many vectors the host has, 0 for none,
    /// which hides it. Of a table whose end is over the pending bits, the entries before them are shown.
    pub fn new(
        raw: &[u8],
        capability: &Capability,
        structures: MsixStructures,
        bars: &[Bar],
        limit: u16,
    ) -> Result<Option<Msix>, MsixProblem> {
        let mut vectors = ((read_u16(raw, capability.offset + 2) & 0x7ff) + 1).min(limit);
        let fits = usize::from(capability.offset) + 12 <= CONVENTIONAL_SIZE;
        if vectors == 0 || !fits {
            return Ok(None);
        }
        let MsixStructures { table, pending } = structures;
        for (what, range) in [("table", table), ("pending bits", pending)] {
            let inside = bars
                .iter()
                .any(|b| b.index == range.bar && b.kind != BarKind::Io && range.offset + range.len <= b.size);
            if !inside {
                return Err(MsixProblem::Outside { what, range });
            }
        }
        let apart =
            table.offset + table.len <= pending.offset || pending.offset + pending.len <= table.offset;
        if table.bar == pending.bar && !apart {
            let before = pending.offset.saturating_sub(table.offset) / ENTRY;
            vectors = vectors.min(u16::try_from(before).unwrap_or(u16::MAX));
            if vectors == 0 {
                return Err(MsixProblem::Overlap(table, pending));
            }
        }
        let mut msix = Msix { capability: capability.offset, vectors, structures, entries: Vec::new() };
        msix.reset();
        Ok(Some(msix))
    }

    /// Puts the capability into the configuration space.
    pub fn install(&self, registers: &mut Registers) {
        let size = u32::from(self.vectors - 1) << 16;
        let enables = u32::from(ENABLE | FUNCTION_MASK) << 16;
        registers.update(self.capability, |r| {
            *r = Register { shadow: r.shadow & 0xffff | size, writable: enables, ..Register::default() };
        });
        for (offset, range) in [(4, self.structures.table), (8, self.structures.pending)] {
            let shadow = range.offset as u32 | u32::from(range.bar);
            registers.update(self.capability + offset, |r| *r = Register { shadow, ..Register::default() });
        }
    }

    /// Vectors that the guest sees, 1 to 2048.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Offset of the dword with the control register.
    pub fn capability(&self) -> u16 {
        self.capability
    }

    /// MSI-X is on.
    pub fn is_enabled(&self, registers: &Registers) -> bool {
        registers.word(self.capability + 2) & ENABLE != 0
    }

    /// What `vector` is to be while MSI-X is on.
    pub fn want(&self, registers: &Registers, vector: u16) -> Want {
        let Some([low, high, data, control]) = self.entries.get(usize::from(vector)) else {
            return Want::Silent;
        };
        if registers.word(self.capability + 2) & FUNCTION_MASK != 0 || control & VECTOR_MASK != 0 {
            return Want::Silent;
        }
        // Bits 1:0 of the address must be zero (PCIe 6.0 §7.7.2.5).
        Want::Message(MsiMessage { address: u64::from(*high) << 32 | u64::from(*low & !0x3), data: *data })
    }

    /// The state after a reset: every vector masked.
    pub fn reset(&mut self) {
        self.entries = vec![[0, 0, 0, VECTOR_MASK]; usize::from(self.vectors)];
    }

    /// Reads bytes of the table; what lies beyond it reads zero.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            *byte = self.dword(at).map_or(0, |d| (d >> (8 * (at & 3))) as u8);
        }
    }

    /// Whether `data` is a dword that the table has there already.
    pub fn holds(&self, offset: u64, data: &[u8]) -> bool {
        let dword = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
        offset.is_multiple_of(4) && dword.is_ok_and(|dword| self.dword(offset) == Some(dword))
    }

    /// Writes bytes of the table and gives the entries that may have changed.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) -> std::ops::Range<u16> {
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            let shift = 8 * (at & 3);
            if let Some(dword) = self.dword_mut(at) {
                *dword = *dword & !(0xff << shift) | u32::from(*byte) << shift;
            }
        }
        let entry = |at: u64| u16::try_from(at).unwrap_or(u16::MAX).min(self.vectors);
        entry(offset / ENTRY)..entry(offset.saturating_add(data.len() as u64).div_ceil(ENTRY))
    }

    fn dword(&self, at: u64) -> Option<u32> {
        let entry = self.entries.get(usize::try_from(at / ENTRY).ok()?)?;
        entry.get((at % ENTRY / 4) as usize).copied()
    }

    fn dword_mut(&mut self, at: u64) -> Option<&mut u32> {
        let entry = self.entries.get_mut(usize::try_from(at / ENTRY).ok()?)?;
        entry.get_mut((at % ENTRY / 4) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARS: [Bar; 2] = [
        Bar { index: 0, kind: BarKind::Memory64 { prefetchable: false }, size: 0x4000 },
        Bar { index: 2, kind: BarKind::Io, size: 0x100 },
    ];

    /// A capability at 0x40 with `vectors`, and what its table and pending bits registers hold.
    fn msix(vectors: u16, table: u32, pending: u32, known: Option<u64>) -> Result<Option<Msix>, MsixProblem> {
        let mut raw = vec![0; 256];
        raw[0x42..0x44].copy_from_slice(&(vectors - 1).to_le_bytes());
        raw[0x44..0x48].copy_from_slice(&table.to_le_bytes());
        raw[0x48..0x4c].copy_from_slice(&pending.to_le_bytes());
        let capability = Capability { id: 0x11, offset: 0x40, len: 12, intact: true };
        Msix::new(&raw, &capability, structures(&raw, &capability, known), &BARS, 2048)
    }

    #[test]
    fn vectors_are_shown_as_far_as_their_structures_can_be() {
        for (name, vectors, table, pending, known, shown) in [
            ("apart", 64, 0x2000, 0x3000, None, Some(64)),
            ("2048, the most there are: no room in this BAR", 2048, 0x2000, 0x3000, None, None),
            ("end to end", 16, 0x2000, 0x2100, None, Some(16)),
            ("the table's end is over the pending bits", 22, 0x2000, 0x2100, None, Some(16)),
            ("the pending bits' end is over the table", 64, 0x2000, 0x1ffc & !7, None, Some(64)),
            ("the table begins in the pending bits", 128, 0x2008, 0x2000, None, None),
            ("in an I/O BAR", 4, 0x0002, 0x3000, None, None),
            ("in a BAR that is not there", 4, 0x0001, 0x3000, None, None),
            ("pending bits beyond the BAR", 4, 0x2000, 0x8000, None, None),
            ("and known to be elsewhere", 4, 0x2000, 0x8000, Some(0x1000), Some(4)),
        ] {
            let shown_now = msix(vectors, table, pending, known).ok().flatten().map(|msix| msix.vectors());
            assert_eq!(shown_now, shown, "{name}");
        }
    }

    #[test]
    fn a_write_of_what_is_there_is_told_from_others() {
        let mut msix = msix(4, 0x2000, 0x3000, None).unwrap().unwrap();
        msix.write_table(0x18, &[1, 2, 3, 4]);
        for (offset, data, holds) in [
            (0x18, &[1, 2, 3, 4][..], true),
            (0x18, &[1, 2, 3, 5], false),
            (0x14, &[0; 4], true),
            (0x1c, &[1, 0, 0, 0], true),
            (0x1c, &[0; 4], false),
            (0x40, &[0; 4], false),
            // These may hold it, but are not looked at.
            (0x18, &[1, 2], false),
            (0x19, &[2, 3, 4, 1], false),
            (0x18, &[1, 2, 3, 4, 1, 0, 0, 0], false),
            (u64::MAX - 3, &[0; 4], false),
        ] {
            assert_eq!(msix.holds(offset, data), holds, "{offset:#x} {data:?}");
        }
    }

    #[test]
    fn the_registers_say_where_the_pending_bits_really_are() {
        let msix = msix(4, 0x2000, 0x8000, Some(0x1000)).unwrap().unwrap();
        let mut registers = Registers::new(256);
        msix.install(&mut registers);
        let dwords = [0x40, 0x44, 0x48].map(|at| registers.dword(at).shadow);
        assert_eq!(dwords, [3 << 16, 0x2000, 0x1000]);
    }
}
