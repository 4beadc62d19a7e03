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

/// Where the structures of a physical MSI-X capability are, as far as its registers can be believed.
pub fn structures(raw: &[u8], capability: &Capability) -> MsixStructures {
    let vectors = u64::from(read_u16(raw, capability.offset + 2) & 0x7ff) + 1;
    let range = |register: u16, len| {
        let value = read_u32(raw, capability.offset.saturating_add(register));
        BarRange { bar: (value & 0x7) as u8, offset: u64::from(value & !0x7), len }
    };
    MsixStructures { table: range(4, vectors * ENTRY), pending: range(8, vectors.div_ceil(64) * 8) }
}

/// The MSI-X of a function, as its guest sees it.
#[derive(Clone, Debug)]
pub struct Msix {
    capability: u16,
    vectors: u16,
    /// Address low, address high, data, control.
    entries: Vec<[u32; 4]>,
}

impl Msix {
    /// Reads the capability; `limit` is how many vectors the host has, 0 for none, which hides it.
    pub fn new(
        raw: &[u8],
        capability: &Capability,
        bars: &[Bar],
        limit: u16,
    ) -> Result<Option<Msix>, MsixProblem> {
        let vectors = ((read_u16(raw, capability.offset + 2) & 0x7ff) + 1).min(limit);
        let fits = usize::from(capability.offset) + 12 <= CONVENTIONAL_SIZE;
        if vectors == 0 || !fits {
            return Ok(None);
        }
        let MsixStructures { table, pending } = structures(raw, capability);
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
            return Err(MsixProblem::Overlap(table, pending));
        }
        let mut msix = Msix { capability: capability.offset, vectors, entries: Vec::new() };
        msix.reset();
        Ok(Some(msix))
    }

    /// Puts the capability into the configuration space.
    pub fn install(&self, raw: &[u8], registers: &mut Registers) {
        let size = u32::from(self.vectors - 1) << 16;
        let enables = u32::from(ENABLE | FUNCTION_MASK) << 16;
        registers.update(self.capability, |r| {
            *r = Register { shadow: r.shadow & 0xffff | size, writable: enables, ..Register::default() };
        });
        for offset in [self.capability + 4, self.capability + 8] {
            let shadow = read_u32(raw, offset);
            registers.update(offset, |r| *r = Register { shadow, ..Register::default() });
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
