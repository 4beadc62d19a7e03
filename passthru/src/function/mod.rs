//! A function as the guest sees it: a state machine without I/O.
//!
//! An access goes in, a value and [`Effect`]s come out. Everything tricky is decided here, so it is tested with byte
//! arrays: who answers which bit ([`policy`]), where BARs answer, how each part of them reaches the guest
//! ([`pieces`]), which vectors are armed.

mod effect;
mod msi;
mod msix;
pub mod pieces;
pub mod policy;
mod registers;
mod vectors;

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

pub use effect::{Effect, Placement};
pub use msix::MsixProblem;
pub use policy::Shape;
pub use registers::{ConfigRead, ConfigWrite};

use crate::host::{BarRange, Description, MessageKind, Report};
use crate::pci::bar::{self, Bar, BarProblem};
use crate::pci::capability::{self, ListProblem, read_u16, read_u32};
use crate::pci::registers::*;
use msi::Msi;
use msix::Msix;
use pieces::{MsixStructures, Piece};
use registers::Registers;
use vectors::Vectors;

/// Why a host's function cannot be a guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// Reads are all-ones.
    #[error("it does not answer: its vendor id reads 0xffff (is it powered down, or gone?)")]
    NoAnswer,
    /// A bridge or CardBus header.
    #[error("its header is of type {0}, a bridge's; only endpoints (type 0) can be passed through")]
    NotEndpoint(u8),
}

/// Something about a function that makes no sense, and was made the best of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// In a capability list.
    #[error(transparent)]
    List(#[from] ListProblem),
    /// In a BAR.
    #[error(transparent)]
    Bar(#[from] BarProblem),
    /// In the MSI-X capability.
    #[error(transparent)]
    Msix(#[from] MsixProblem),
    /// The host can neither map a part of a BAR nor access it otherwise.
    #[error("the host can neither map nor access {0}; the guest reads all-ones there")]
    Unreachable(BarRange),
}

/// A function as the guest sees it.
#[derive(Clone, Debug)]
pub struct Function {
    registers: Registers,
    /// The registers as they are after a reset.
    initial: Registers,
    bars: Vec<Bar>,
    pieces: Vec<Piece>,
    /// Where each of `bars` answers.
    placed: Vec<Option<u64>>,
    msi: Option<Msi>,
    msix: Option<Msix>,
    msix_structures: Option<MsixStructures>,
    vectors: Vectors,
    /// Offset of the power management capability.
    power: Option<u16>,
    /// What the function's own command register was told last.
    host_command: u16,
}

impl Function {
    /// The guest's view of a function that its host describes, decoding off as after a reset, and what was odd about
    /// it.
    pub fn new(
        description: &Description,
        report: &Report,
        shape: Shape,
    ) -> Result<(Function, Vec<Problem>), FunctionError> {
        let raw = description.config.as_slice();
        if read_u16(raw, VENDOR_ID) == 0xffff {
            return Err(FunctionError::NoAnswer);
        }
        let header = (read_u16(raw, HEADER_TYPE) & 0x7f) as u8;
        if header != 0 {
            return Err(FunctionError::NotEndpoint(header));
        }
        let mut problems: Vec<Problem> = Vec::new();
        let (list, broken) = capability::walk(raw);
        problems.extend(broken.map(Problem::from));
        let (extended, broken) = capability::walk_extended(raw);
        problems.extend(broken.map(Problem::from));

        let mut bar_registers = [0; bar::COUNT];
        for (register, offset) in bar_registers.iter_mut().zip((BAR0..).step_by(4)) {
            *register = read_u32(raw, offset);
        }
        let sizes = std::array::from_fn(|i| description.bars.get(i).map_or(0, |r| r.size));
        let (bars, broken) = bar::decode(bar_registers, sizes);
        problems.extend(broken.into_iter().map(Problem::from));

        // Of several capabilities of one kind the first counts (PCIe 6.0 §7.7.1 and §7.7.2 allow one).
        let first = |id| list.iter().find(|c| c.id == id);
        let msi = first(capability_id::MSI).and_then(|c| Msi::new(raw, c, report));
        let msix = match first(capability_id::MSIX).map(|c| Msix::new(raw, c, &bars, report.msix)) {
            None => None,
            Some(Ok(msix)) => msix,
            Some(Err(problem)) => {
                problems.push(problem.into());
                None
            }
        };
        let mut registers = policy::build(raw, &bars, &list, &extended, shape, |c| match c.id {
            capability_id::MSI => msi.is_some() && first(c.id) == Some(c),
            capability_id::MSIX => msix.is_some() && first(c.id) == Some(c),
            _ => true,
        });
        if let Some(msi) = &msi {
            msi.install(&mut registers);
        }
        if let Some(msix) = &msix {
            msix.install(raw, &mut registers);
        }
        let msix_structures = first(capability_id::MSIX).map(|c| msix::structures(raw, c));
        let pieces = pieces::plan(&bars, description, msix_structures.as_ref(), report);
        problems.extend(pieces::unreachable(&pieces, description).map(Problem::Unreachable));
        let function = Function {
            initial: registers.clone(),
            registers,
            placed: vec![None; bars.len()],
            bars,
            pieces,
            msi,
            msix,
            msix_structures,
            vectors: Vectors::default(),
            power: first(capability_id::POWER).map(|c| c.offset),
            host_command: read_u16(raw, COMMAND),
        };
        Ok((function, problems))
    }

    /// The BARs that the guest sees.
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// How each part of them reaches the guest.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Where the function has its MSI-X structures, if it has any.
    pub fn msix_structures(&self) -> Option<&MsixStructures> {
        self.msix_structures.as_ref()
    }

    /// MSI-X vectors that the guest sees.
    pub fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, Msix::vectors)
    }

    /// What has to be done when the function is attached: its command register follows the guest's from now on, except
    /// that decoding is on and INTx off.
    pub fn start(&mut self, effects: &mut Vec<Effect>) {
        self.settle_command(effects);
    }

    /// Reads 1, 2 or 4 bytes of configuration space that do not cross a dword. `is_pending` tells whether the host
    /// holds a signal of a masked vector back.
    pub fn read_config(
        &self,
        offset: u16,
        len: usize,
        is_pending: impl Fn(MessageKind, u16) -> bool,
    ) -> ConfigRead {
        let mut read = self.registers.read(offset, len);
        if let Some(msi) = self.msi.as_ref().filter(|m| m.is_pending_register(offset)) {
            let pending = (0..msi.vectors())
                .filter(|v| self.vectors.is_masked(MessageKind::Msi, *v) && is_pending(MessageKind::Msi, *v))
                .fold(0u32, |bits, v| bits | 1 << v);
            let mask = if len >= 4 { u32::MAX } else { (1 << (8 * len)) - 1 };
            read.value = pending >> (8 * (offset & 3)) & mask;
        }
        read
    }

    /// Writes 1, 2 or 4 bytes of configuration space that do not cross a dword.
    pub fn write_config(&mut self, offset: u16, data: &[u8], effects: &mut Vec<Effect>) {
        let power = self.power.map(|capability| capability + 4);
        let state = power.map(|register| self.registers.word(register));
        if let Some(write) = self.registers.write(offset, data) {
            effects.push(Effect::WriteHost(write));
        }
        // D1 and D2 are not offered, and a write that asks for them is discarded (PCIe 6.0 §7.5.2.2).
        if let (Some(register), Some(before)) = (power, state)
            && matches!(self.registers.word(register) & 0x3, 1 | 2)
        {
            self.registers.set_word(register, before);
        }
        match offset & !3 {
            COMMAND => {
                self.settle_command(effects);
                self.settle_bars(effects);
            }
            BAR0..ROM_BAR => self.settle_bars(effects),
            dword => {
                let msi = self.msi.as_ref().is_some_and(|m| m.covers(dword));
                let msix = self.msix.as_ref().is_some_and(|m| m.capability() == dword);
                if msi || msix {
                    self.settle_vectors(effects);
                }
            }
        }
    }

    /// Reads bytes of the MSI-X table; `offset` counts from its start.
    pub fn read_msix_table(&self, offset: u64, data: &mut [u8]) {
        match &self.msix {
            Some(msix) => msix.read_table(offset, data),
            None => data.fill(0),
        }
    }

    /// Writes bytes of the MSI-X table; `offset` counts from its start.
    pub fn write_msix_table(&mut self, offset: u64, data: &[u8], effects: &mut Vec<Effect>) {
        let Some(msix) = &mut self.msix else { return };
        let entries = msix.write_table(offset, data);
        if msix.is_enabled(&self.registers) {
            self.vectors.settle(entries, |v| msix.want(&self.registers, v), effects);
        }
    }

    /// Reads bytes of the MSI-X pending bits; `offset` counts from their start.
    pub fn read_msix_pending(
        &self,
        offset: u64,
        data: &mut [u8],
        is_pending: impl Fn(MessageKind, u16) -> bool,
    ) {
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            let first = at.saturating_mul(8);
            *byte = (0..8u8)
                .filter(|bit| {
                    u16::try_from(first.saturating_add(u64::from(*bit))).is_ok_and(|vector| {
                        self.vectors.is_masked(MessageKind::Msix, vector)
                            && is_pending(MessageKind::Msix, vector)
                    })
                })
                .fold(0, |bits, bit| bits | 1 << bit);
        }
    }

    /// Puts an address into a BAR's registers, as firmware does. Decoding should be off.
    pub fn assign(&mut self, bar: u8, address: u64, effects: &mut Vec<Effect>) {
        let Some(bar) = self.bars.iter().find(|b| b.index == bar).copied() else { return };
        self.registers.write(bar.register(), &(address as u32).to_le_bytes());
        if bar.kind.is_64bit() {
            self.registers.write(bar.register() + 4, &((address >> 32) as u32).to_le_bytes());
        }
        self.settle_bars(effects);
    }

    /// The guest's side of a reset: decoding and interrupts off, registers as at the start, no address in any BAR.
    pub fn reset(&mut self, effects: &mut Vec<Effect>) {
        self.registers = self.initial.clone();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.settle_bars(effects);
        self.settle_vectors(effects);
        self.settle_command(effects);
    }

    /// What the function's own command register is to hold. Bus mastering and error reporting follow the guest.
    /// Decoding stays on: the guest's is a matter of what is mapped for it, and an access through a mapping of the
    /// host's would be a bus error while the function does not decode. INTx stays off.
    fn host_command(&self) -> u16 {
        let guest = self.registers.word(COMMAND);
        let decode = self.registers.dword(COMMAND).writable as u16 & (COMMAND_IO | COMMAND_MEMORY);
        guest & !(COMMAND_IO | COMMAND_MEMORY) | decode | COMMAND_INTX_DISABLE
    }

    fn settle_command(&mut self, effects: &mut Vec<Effect>) {
        let command = self.host_command();
        if command != self.host_command {
            self.host_command = command;
            let value = u32::from(command);
            effects.push(Effect::WriteHost(ConfigWrite {
                offset: COMMAND,
                len: 2,
                value,
                mask: 0xffff,
                clear: 0,
            }));
        }
    }

    fn settle_bars(&mut self, effects: &mut Vec<Effect>) {
        let command = self.registers.word(COMMAND);
        let mut moves = Vec::new();
        for (bar, placed) in self.bars.iter().zip(&mut self.placed) {
            let decodes = match bar.kind.space() {
                crate::pci::Space::Io => command & COMMAND_IO != 0,
                crate::pci::Space::Memory => command & COMMAND_MEMORY != 0,
            };
            let low = u64::from(self.registers.dword(bar.register()).shadow);
            let high = match bar.kind.is_64bit() {
                true => u64::from(self.registers.dword(bar.register() + 4).shadow),
                false => 0,
            };
            let base = decodes.then_some((high << 32 | low) & bar.address_mask());
            if *placed != base {
                *placed = base;
                moves.push(Placement { bar: bar.index, space: bar.kind.space(), size: bar.size, base });
            }
        }
        if !moves.is_empty() {
            effects.push(Effect::Place(moves));
        }
    }

    fn settle_vectors(&mut self, effects: &mut Vec<Effect>) {
        let registers = &self.registers;
        // With both on, which the specification leaves open, MSI-X wins.
        if let Some(msix) = self.msix.as_ref().filter(|m| m.is_enabled(registers)) {
            let vectors = msix.vectors();
            self.vectors.switch(Some((MessageKind::Msix, vectors)), effects);
            self.vectors.settle(0..vectors, |v| msix.want(registers, v), effects);
        } else if let Some(msi) = self.msi.as_ref().filter(|m| m.is_enabled(registers)) {
            let vectors = msi.enabled(registers);
            self.vectors.switch(Some((MessageKind::Msi, vectors)), effects);
            self.vectors.settle(0..vectors, |v| msi.want(registers, v), effects);
        } else {
            self.vectors.switch(None, effects);
        }
    }
}
