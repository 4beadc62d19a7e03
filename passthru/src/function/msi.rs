//! MSI: address, data and masks are all in configuration space (PCIe 6.0 §7.7.1).

use super::registers::{Register, Registers};
use super::vectors::Want;
use crate::host::Report;
use crate::pci::capability::{Capability, read_u16};
use crate::pci::registers::CONVENTIONAL_SIZE;
use crate::ports::MsiMessage;

const ENABLE: u16 = 1 << 0;
const ADDRESS_64: u16 = 1 << 7;
const VECTOR_MASKING: u16 = 1 << 8;

/// The MSI of a function, as its guest sees it.
#[derive(Clone, Debug)]
pub struct Msi {
    capability: u16,
    /// Log2 of the vectors that the capability offers.
    capable: u16,
    address_64: bool,
    vector_masking: bool,
}

impl Msi {
    /// Reads the capability. What the host cannot do is not shown, and nothing at all without vectors, or if it does not
    /// fit into the first 256 bytes.
    pub fn new(raw: &[u8], capability: &Capability, report: &Report) -> Option<Msi> {
        let control = read_u16(raw, capability.offset + 2);
        let most = report.msi.checked_ilog2()? as u16;
        let msi = Msi {
            capability: capability.offset,
            // 6 and 7 are reserved.
            capable: (control >> 1 & 0x7).min(5).min(most),
            address_64: control & ADDRESS_64 != 0,
            vector_masking: control & VECTOR_MASKING != 0 && report.msi_masking,
        };
        (usize::from(msi.last_dword()) < CONVENTIONAL_SIZE).then_some(msi)
    }

    /// Where the capability is.
    pub fn capability(&self) -> u16 {
        self.capability
    }

    /// Puts the capability into the configuration space.
    pub fn install(&self, registers: &mut Registers) {
        let features = if self.address_64 { ADDRESS_64 } else { 0 }
            | if self.vector_masking { VECTOR_MASKING } else { 0 }
            | self.capable << 1;
        registers.update(self.capability, |r| {
            *r = Register {
                shadow: r.shadow & 0xffff | u32::from(features) << 16,
                writable: u32::from(ENABLE | 0x70) << 16,
                ..Register::default()
            };
        });
        let writable = |writable| Register { writable, ..Register::default() };
        registers.update(self.capability + 4, |r| *r = writable(!0x3));
        if self.address_64 {
            registers.update(self.capability + 8, |r| *r = writable(u32::MAX));
        }
        registers.update(self.data_offset(), |r| *r = writable(0xffff));
        if self.vector_masking {
            let vectors = u32::MAX >> (32 - (1u32 << self.capable));
            registers.update(self.mask_offset(), |r| *r = writable(vectors));
            registers.update(self.pending_offset(), |r| *r = writable(0));
        }
    }

    const fn data_offset(&self) -> u16 {
        self.capability + if self.address_64 { 12 } else { 8 }
    }

    const fn mask_offset(&self) -> u16 {
        self.data_offset() + 4
    }

    const fn pending_offset(&self) -> u16 {
        self.data_offset() + 8
    }

    const fn last_dword(&self) -> u16 {
        if self.vector_masking { self.pending_offset() } else { self.data_offset() }
    }

    /// The dwords of the capability.
    pub fn covers(&self, offset: u16) -> bool {
        (self.capability..=self.last_dword()).contains(&(offset & !3))
    }

    /// The dword at `offset` is that of the pending bits.
    pub fn is_pending_register(&self, offset: u16) -> bool {
        self.vector_masking && offset & !3 == self.pending_offset()
    }

    /// Vectors that the guest can enable at most.
    pub fn vectors(&self) -> u16 {
        1 << self.capable
    }

    /// MSI is on.
    pub fn is_enabled(&self, registers: &Registers) -> bool {
        registers.word(self.capability + 2) & ENABLE != 0
    }

    /// Vectors that the guest has given the function, of those that it offers.
    pub fn enabled(&self, registers: &Registers) -> u16 {
        1 << (registers.word(self.capability + 2) >> 4 & 0x7).min(self.capable)
    }

    /// What `vector`, one of the enabled ones, is to be while MSI is on.
    pub fn want(&self, registers: &Registers, vector: u16) -> Want {
        let enabled = self.enabled(registers);
        let masks = if self.vector_masking { registers.dword(self.mask_offset()).shadow } else { 0 };
        if masks >> (vector & 31) & 1 != 0 {
            return Want::Silent;
        }
        let low = u64::from(registers.dword(self.capability + 4).shadow);
        let high = if self.address_64 { u64::from(registers.dword(self.capability + 8).shadow) } else { 0 };
        // The function puts the vector's number into the low bits of the data.
        let data =
            u32::from(registers.word(self.data_offset())) & !u32::from(enabled - 1) | u32::from(vector);
        Want::Message(MsiMessage { address: high << 32 | low, data })
    }
}
