//! What one root port claims of bus 0's windows, and where in that the BARs behind it are.

use passthru::pci::bar::Bar;
use passthru::pci::{Slot, Space};

use super::layout::{Claim, What};
use super::{PlacedBar, PortRoom, WindowKind};
use crate::pci::ports::root_port_slot;

/// A root port with the BARs behind it.
#[derive(Debug)]
pub(super) struct PortClaims {
    slot: Slot,
    room: PortRoom,
    bars: Vec<(WindowKind, Claim)>,
}

impl PortClaims {
    /// Nothing for a bus that no port can have.
    pub fn new(room: PortRoom) -> Option<PortClaims> {
        Some(PortClaims { slot: root_port_slot(room.bus)?, room, bars: Vec::new() })
    }

    pub fn bus(&self) -> u8 {
        self.room.bus
    }

    /// A bridge has a prefetchable window for 64-bit addresses and another one for 32-bit addresses: what is not
    /// prefetchable must be below 4 GiB (PCIe 6.0 §7.5.1.3.9), and so must a 32-bit BAR.
    pub fn add(&mut self, slot: Slot, bar: &Bar) {
        let kind = match bar.kind.space() {
            Space::Io => WindowKind::Io,
            Space::Memory if bar.kind.is_64bit() && bar.kind.is_prefetchable() => WindowKind::Memory64,
            Space::Memory => WindowKind::Memory32,
        };
        self.bars.push((kind, Claim::of_bar(slot, bar, kind)));
        self.bars.sort_unstable_by_key(|(_, claim)| claim.placing_order());
    }

    /// The window of one kind, aligned so that a BAR of any size that fits finds a place; none for nothing.
    pub fn window(&self, kind: WindowKind) -> Option<Claim> {
        let room = match kind {
            WindowKind::Io => 0,
            WindowKind::Memory32 => self.room.memory,
            WindowKind::Memory64 => self.room.prefetchable,
        };
        let need = self.claims(kind).fold(0u64, |sum, claim| sum.saturating_add(claim.extent()));
        let size = room.max(need);
        if size == 0 {
            return None;
        }
        // What is larger than any address space fits nowhere, whatever it is rounded to.
        let size = size.checked_next_multiple_of(kind.granularity()).unwrap_or(size);
        let alignment = 1 << size.ilog2();
        Some(Claim { slot: self.slot, what: What::Port(self.room.bus), size, alignment })
    }

    /// The BARs in the window of one kind that begins at `start`: one behind the other, large ones first, which leaves
    /// each at a multiple of its size.
    pub fn bars(&self, kind: WindowKind, start: u64) -> impl Iterator<Item = PlacedBar> {
        let mut next = start;
        self.claims(kind).filter_map(move |claim| {
            let What::Bar(index) = claim.what else { return None };
            let address = next;
            next = next.saturating_add(claim.extent());
            Some(PlacedBar { slot: claim.slot, index, window: kind, address, size: claim.size })
        })
    }

    fn claims(&self, kind: WindowKind) -> impl Iterator<Item = &Claim> {
        self.bars.iter().filter(move |(its, _)| *its == kind).map(|(_, claim)| claim)
    }
}
