//! A function that the `ppt` driver holds: what its node `/dev/pptN` answers.

pub mod addresses;
mod node;
pub mod saved_config;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use passthru::host::{BARS, BarRange, HostFunction};
use passthru::pci::bar::{self, BarKind};
use passthru::pci::capability::{self, read_u32};
use passthru::pci::registers::{BAR0, capability_id};

use crate::abi::{MAX_MSI, PAGE, ppt};
use crate::errno::{Errno, Result};
use crate::kernel::PptFunction;
use addresses::Addresses;

/// A function and the addresses that its host gave its BARs.
pub struct Device {
    function: PptFunction,
    bars: [Option<ClaimedBar>; BARS],
}

/// A BAR that the host has given an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedBar {
    /// What it claims.
    pub kind: BarKind,
    /// Its first address, or port. Means nothing but to this kernel.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

impl ClaimedBar {
    fn type_bits(&self) -> u32 {
        match self.kind {
            BarKind::Io => ppt::TYPE_IO,
            BarKind::Memory32 { .. } => ppt::TYPE_MEMORY_32,
            BarKind::Memory64 { .. } => ppt::TYPE_MEMORY_64,
        }
    }
}

impl Device {
    /// Attaches the driver to a function.
    pub fn new(function: PptFunction, addresses: &mut Addresses) -> Device {
        let description = function.function.description();
        let registers = std::array::from_fn(|index| read_u32(&description.config, BAR0 + 4 * index as u16));
        let sizes = std::array::from_fn(|index| description.bars.get(index).map_or(0, |region| region.size));
        let mut bars = [None; BARS];
        for bar in bar::decode(registers, sizes).0 {
            if let Some(entry) = bars.get_mut(usize::from(bar.index)) {
                let base = addresses.assign(bar.kind.space(), bar.size);
                *entry = base.map(|base| ClaimedBar { kind: bar.kind, base, size: bar.size });
            }
        }
        Device { function, bars }
    }

    /// The function.
    pub fn host(&self) -> &Arc<dyn HostFunction> {
        &self.function.function
    }

    /// The function and its place in the guest.
    pub fn function(&self) -> &PptFunction {
        &self.function
    }

    fn bar(&self, index: usize) -> Option<&ClaimedBar> {
        self.bars.get(index)?.as_ref()
    }

    /// Where in the function's BARs these host addresses are, if all of them are in one memory BAR.
    pub fn locate(&self, hpa: u64, len: u64) -> Option<BarRange> {
        let end = hpa.checked_add(len)?;
        let inside = |bar: &ClaimedBar| {
            bar.kind != BarKind::Io
                && bar.base <= hpa
                && bar.base.checked_add(bar.size).is_some_and(|e| end <= e)
        };
        (0u8..).zip(&self.bars).find_map(|(index, bar)| {
            let bar = bar.as_ref().filter(|bar| inside(bar))?;
            Some(BarRange { bar: index, offset: hpa - bar.base, len })
        })
    }

    /// The part of the BAR with the MSI-X table that `mmap(2)` asks for.
    pub fn table_range(&self, offset: u64, len: usize) -> Result<BarRange> {
        let len = u64::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(PAGE));
        let len = len.filter(|len| *len > 0).ok_or(Errno::EINVAL)?;
        if i64::try_from(offset).is_err() || !offset.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let config = &self.host().description().config;
        let capabilities = capability::walk(config).0;
        let msix = capabilities.iter().find(|c| c.id == capability_id::MSIX).ok_or(Errno::EINVAL)?;
        // The table's offset, and the BAR it is in (PCIe 6.0 §7.7.2.3).
        let index = (read_u32(config, msix.offset + 4) & 0x7) as u8;
        if self.bar(usize::from(index)).is_none_or(|bar| bar.kind == BarKind::Io) {
            return Err(Errno::EINVAL);
        }
        // The host may keep parts of the BAR to itself; what lies behind it is nobody's.
        let end = offset.checked_add(len).ok_or(Errno::ENXIO)?;
        let region = self.host().description().bars.get(usize::from(index));
        let mut mappable = region.iter().flat_map(|region| &region.mappable);
        if !mappable.any(|area| area.start <= offset && end <= area.end) {
            return Err(Errno::ENXIO);
        }
        Ok(BarRange { bar: index, offset, len })
    }

    /// MSI vectors that the host has for it.
    pub fn msi_limit(&self) -> Option<u16> {
        Some(self.host().report().msi.min(MAX_MSI as u16)).filter(|limit| *limit > 0)
    }

    /// MSI-X vectors that the host has for it.
    pub fn msix_limit(&self) -> Option<u16> {
        Some(self.host().report().msix).filter(|limit| *limit > 0)
    }
}
