//! A function as the guest sees it: a state machine without I/O.
//!
//! An access goes in, a value and [`Effect`]s come out. Everything tricky is decided here, so it is tested with byte
//! arrays: who answers which bit ([`policy`]), where BARs answer, how each part of them reaches the guest
//! ([`pieces`]), which vectors are armed.

mod effect;
mod intx;
mod msi;
mod msix;
pub mod pieces;
pub mod policy;
pub mod quirks;
mod registers;
mod settle;
mod vectors;

#[cfg(test)]
mod dumps;
#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

pub use effect::{Effect, Placement};
pub use msix::MsixProblem;
pub use policy::{Controls, Place, Shape};
pub use quirks::{Mirror, Quirks};
pub use registers::{ConfigRead, ConfigWrite, Register, Registers};

use crate::host::{BarRange, Description, MessageKind, Report};
use crate::pci::bar::{self, Bar, BarProblem};
use crate::pci::capability::{self, ListProblem, read_u16, read_u32};
use crate::pci::registers::*;
use intx::Intx;
use msi::Msi;
use msix::Msix;
use pieces::{MsixReads, MsixStructures, Piece};
use policy::{Built, Offer};
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
    intx: Intx,
    controls: Controls,
    /// Power states reach the function.
    passes_power_on: bool,
    /// What the function's own command register has, as far as it is known.
    host_command: Option<u16>,
    quirks: Quirks,
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
        problems.extend(broken.into_iter().map(Problem::from));
        let (extended, broken) = capability::walk_extended(raw);
        problems.extend(broken.into_iter().map(Problem::from));

        let mut bar_registers = [0; bar::COUNT];
        for (register, offset) in bar_registers.iter_mut().zip((BAR0..).step_by(4)) {
            *register = read_u32(raw, offset);
        }
        let sizes = std::array::from_fn(|i| description.bars.get(i).map_or(0, |r| r.size));
        let (mut bars, broken) = bar::decode(bar_registers, sizes);
        problems.extend(broken.into_iter().map(Problem::from));
        let class = read_u32(raw, REVISION_ID) >> 8;
        let quirks = quirks::of(read_u16(raw, VENDOR_ID), read_u16(raw, DEVICE_ID), class);
        // One that is not the host's to read was given instead of the function's own.
        let hides_rom = quirks.rom_hangs && description.rom.accessible;
        match bar::rom(if hides_rom { 0 } else { description.rom.size }) {
            Ok(rom) => bars.extend(rom),
            Err(problem) => problems.push(problem.into()),
        }

        // Of several capabilities of one kind the first counts (PCIe 6.0 §7.7.1 and §7.7.2 allow one).
        let first = |id| list.iter().find(|c| c.id == id && c.intact);
        let msi = first(capability_id::MSI).and_then(|c| Msi::new(raw, c, report));
        let msix = first(capability_id::MSIX);
        let msix_structures = msix.map(|c| msix::structures(raw, c, quirks.msix_pending));
        let shown = msix.zip(msix_structures).map(|(c, at)| Msix::new(raw, c, at, &bars, report.msix));
        let msix = match shown {
            None => None,
            Some(Ok(msix)) => msix,
            Some(Err(problem)) => {
                problems.push(problem.into());
                None
            }
        };
        let offer =
            Offer { reset: report.resets_alone(), intx: report.intx, power_states: report.power_states };
        let shown = |c: &capability::Capability| match c.id {
            capability_id::MSI => msi.is_some() && first(c.id) == Some(c),
            capability_id::MSIX => msix.is_some() && first(c.id) == Some(c),
            _ => true,
        };
        let Built { mut registers, controls } =
            policy::build(raw, &bars, &list, &extended, shape, offer, &quirks, shown);
        if let Some(msi) = &msi {
            msi.install(&mut registers);
        }
        if let Some(msix) = &msix {
            msix.install(&mut registers);
        }
        let intx = report.intx && matches!(registers.word(INTERRUPT_LINE) >> 8, 1..=4);
        let reads = MsixReads { shown: msix.is_some(), shared: quirks.msix_shared, trap: shape.trap_msix };
        let structures = msix_structures.as_ref();
        let pieces = pieces::plan(&bars, description, structures, reads, &quirks.trapped(), report);
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
            intx: Intx::new(intx),
            controls,
            passes_power_on: report.power_states,
            host_command: Some(read_u16(raw, COMMAND)),
            quirks,
        };
        Ok((function, problems))
    }

    /// The configuration space as it is now, bit by bit: who answers a read, and what a write does.
    pub fn registers(&self) -> &Registers {
        &self.registers
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

    /// What it does that its registers do not say.
    pub fn quirks(&self) -> &Quirks {
        &self.quirks
    }

    /// Where the guest sees the MSI capability, if it does.
    pub fn msi_capability(&self) -> Option<u16> {
        self.msi.as_ref().map(Msi::capability)
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
        let power = self.power_state();
        if let Some(write) = self.registers.write(offset, data) {
            effects.push(Effect::WriteHost(write));
        }
        if self.asks_for_reset(offset, data) {
            self.reset(effects);
            effects.push(Effect::Reset);
            return;
        }
        self.settle_power(power, effects);
        match offset & !3 {
            COMMAND => {
                self.settle_interrupts(effects);
                self.settle_command(effects);
                self.settle_bars(effects);
            }
            BAR0..=ROM_BAR => self.settle_bars(effects),
            dword => {
                let msi = self.msi.as_ref().is_some_and(|m| m.covers(dword));
                let msix = self.msix.as_ref().is_some_and(|m| m.capability() == dword);
                if msi || msix {
                    self.settle_interrupts(effects);
                    self.settle_command(effects);
                }
            }
        }
    }

    /// The host could not do what it was told of a vector, which is silent now.
    pub fn vector_failed(&mut self, kind: MessageKind, vector: u16) {
        self.vectors.failed(kind, vector);
    }

    /// Reads bytes of the MSI-X table; `offset` counts from its start.
    pub fn read_msix_table(&self, offset: u64, data: &mut [u8]) {
        match &self.msix {
            Some(msix) => msix.read_table(offset, data),
            None => data.fill(0),
        }
    }

    /// Writes bytes of the MSI-X table; `offset` counts from its start. False when that changes nothing, as with a guest that
    /// masks what is masked.
    pub fn write_msix_table(&mut self, offset: u64, data: &[u8], effects: &mut Vec<Effect>) -> bool {
        let Some(msix) = &mut self.msix else { return false };
        if msix.holds(offset, data) && !self.vectors.some_failed() {
            return false;
        }
        let entries = msix.write_table(offset, data);
        if msix.is_enabled(&self.registers) {
            self.vectors.settle(entries, |v| msix.want(&self.registers, v), effects);
        }
        true
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

    /// The guest's side of a reset: decoding and interrupts off, registers as at the start, awake, no address in any
    /// BAR.
    pub fn reset(&mut self, effects: &mut Vec<Effect>) {
        self.wake(effects);
        self.registers = self.initial.clone();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.settle_bars(effects);
        self.intx.settle(false, effects);
        self.settle_interrupts(effects);
        self.settle_command(effects);
    }
}
