//! The guest addresses at which functions answer, shared by all functions of a VM.

pub mod layout;
mod mapping;
mod owner;
mod read_only;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use log::{Level, debug, log, warn};
use parking_lot::Mutex;

use crate::function::Placement;
use crate::function::pieces::{Piece, Reason};
use crate::host::{BarRange, HostFunction};
use crate::pci::{Slot, Space};
use crate::ports::{BarAccess, MemoryPort, Trap};
use layout::{Changes, Layout, OwnerId, Windows};
use mapping::Mapping;
use owner::Owner;
pub(crate) use read_only::ReadOnlyPages;

/// Carries out what the [`Layout`] decides: maps, unmaps and traps the BARs of all functions of a VM, one change at a
/// time.
///
/// A step that fails leaves nothing that is not known here: what could not be mapped is trapped, what could not be
/// unmapped is tried again with every further change and keeps its host function, or the memory that is mapped, alive until
/// then, and what comes to an address that it occupies is trapped there.
pub struct AddressSpace {
    memory: Arc<dyn MemoryPort>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    layout: Layout,
    owners: HashMap<OwnerId, Owner>,
    next: u32,
    /// Mappings that could not be taken away, or only in part. The guest, or other functions' DMA, may reach them until they
    /// go.
    stuck: Vec<Mapping>,
    traps: Traps,
}

#[derive(Default)]
struct Traps {
    /// Those that could not be taken away.
    stuck: Vec<(Space, Range<u64>)>,
    /// A change failed before, and that was said.
    warned: bool,
}

impl AddressSpace {
    /// An empty one.
    pub fn new(memory: Arc<dyn MemoryPort>) -> AddressSpace {
        AddressSpace { memory, state: Mutex::default() }
    }

    /// Lets the BARs of the function at `slot` answer inside `windows`. What is read-only of `pieces` has its memory in
    /// `pages`.
    pub(crate) fn add(
        &self,
        host: Arc<dyn HostFunction>,
        access: Arc<dyn BarAccess>,
        slot: Slot,
        pieces: Vec<Piece>,
        pages: Vec<ReadOnlyPages>,
        windows: Arc<Windows>,
    ) -> OwnerId {
        let mut state = self.state.lock();
        let id = OwnerId(state.next);
        state.next = state.next.wrapping_add(1);
        state.layout.coarsen(host.report().granularity);
        state.layout.add_owner(id, windows);
        state.owners.insert(id, Owner::new(host, access, slot, pieces, pages));
        id
    }

    /// Takes away all that a function has. When it returns, no vCPU reaches it any more.
    pub fn remove(&self, owner: OwnerId) {
        let mut state = self.state.lock();
        let changes = state.layout.remove_owner(owner);
        self.carry_out(&mut state, changes);
        state.owners.remove(&owner);
    }

    /// Changes the windows in which a function's BARs answer, as when the guest programs the bridge above it. BARs that
    /// stay inside are not disturbed.
    pub fn set_windows(&self, owner: OwnerId, windows: Arc<Windows>) {
        let mut state = self.state.lock();
        let changes = state.layout.set_windows(owner, windows);
        self.carry_out(&mut state, changes);
    }

    /// How each part of a function's BARs reaches the guest, at the addresses that they have now.
    pub fn pieces(&self, owner: OwnerId) -> Vec<Piece> {
        self.state.lock().owners.get(&owner).map(Owner::pieces).unwrap_or_default()
    }

    /// Moves BARs of a function.
    pub fn place(&self, owner: OwnerId, moves: &[Placement]) {
        let mut state = self.state.lock();
        let changes = state.layout.place(owner, moves);
        self.carry_out(&mut state, changes);
    }

    /// Lets reads of a part of a function exit from now on, which took none before. When it returns, no vCPU reads the
    /// memory that was there, unless it could not be unmapped. The rest of the BAR, and the trap that has the writes, are
    /// not touched: other vCPUs use them, and what they write at an instant without a trap would be lost.
    pub(crate) fn trap_reads(&self, owner: OwnerId, range: BarRange, reason: Reason) {
        let mut state = self.state.lock();
        let State { owners, stuck, .. } = &mut *state;
        if let Some(of) = owners.get_mut(&owner) {
            of.trap_reads(range, reason, &*self.memory, stuck);
        }
    }

    /// Unmaps the functions that no longer answer their host, and traps their BARs instead: accesses then read all-ones,
    /// where one to a mapping would fail the vCPU. They are mapped again when the guest next moves their BARs or turns
    /// their decoding on. For a vCPU whose access to mapped memory the hypervisor could not carry out; false when all
    /// functions answer.
    ///
    /// A host takes a function's mappings away while it does not decode memory or is not in D0, and when it is unplugged
    /// or given back.
    pub fn withdraw_unanswered(&self) -> bool {
        let mut state = self.state.lock();
        let silent: Vec<OwnerId> = state
            .owners
            .iter()
            .filter(|(_, owner)| owner.reaches_host() && !owner.host.answers())
            .map(|(id, _)| *id)
            .collect();
        for id in &silent {
            let bars = state.layout.bars(*id);
            let placed: Vec<_> =
                bars.into_iter().filter_map(|bar| state.layout.get(*id, bar).cloned()).collect();
            self.change(
                &mut state,
                Changes { remove: placed.clone(), add: placed, ..Changes::default() },
                true,
            );
        }
        // What could not be unmapped before is in no owner's list, and the vCPU may have met just that.
        let before = state.stuck.len();
        state.stuck.retain(|stuck| stuck.answers() || !stuck.is_unmapped(&*self.memory));
        !silent.is_empty() || state.stuck.len() < before
    }

    fn carry_out(&self, state: &mut State, changes: Changes) {
        for refused in &changes.refused {
            if let Some(owner) = state.owners.get(&refused.owner) {
                debug!(
                    "{}: BAR {} at {:#x}..{:#x} is outside the windows of its bus or over another BAR: it does not answer",
                    owner.host.name(),
                    refused.bar,
                    refused.range.start,
                    refused.range.end
                );
            }
        }
        self.change(state, changes, false);
    }

    /// What goes is unmapped before what comes is mapped, and the traps change last, as one: so at no time an address has
    /// two meanings. In between an access finds nothing. `withdrawn`: what comes is trapped, not mapped.
    fn change(&self, state: &mut State, changes: Changes, withdrawn: bool) {
        let State { owners, stuck, traps, .. } = state;
        stuck.retain(|stuck| !stuck.is_unmapped(&*self.memory));
        let mut remove = std::mem::take(&mut traps.stuck);
        for placed in &changes.remove {
            if let Some(owner) = owners.get_mut(&placed.owner) {
                owner.host.answers_at(placed.bar, None);
                owner.unmap(placed.bar, &*self.memory, stuck);
                remove.extend(owner.take_traps(placed.bar));
            }
        }
        let mut add = Vec::new();
        for placed in &changes.add {
            if let Some(owner) = owners.get_mut(&placed.owner) {
                if withdrawn {
                    owner.withdraw(placed.bar);
                } else {
                    owner.map(placed, &*self.memory, stuck);
                }
                add.extend(owner.traps(placed).map(|trap| (placed.owner, trap)));
            }
        }
        let done = self.trap(traps, &remove, &add);
        for (id, trap) in done {
            if let Some(owner) = owners.get_mut(id) {
                owner.note_trap(trap);
            }
        }
        for placed in changes.add.iter().filter(|_| !withdrawn) {
            if let Some(owner) = owners.get(&placed.owner) {
                owner.host.answers_at(placed.bar, Some(placed.range.start));
            }
        }
    }

    /// Changes the traps as one. Where that fails, each by itself, so that one takes no other with it. Gives those of
    /// `add` that are there now.
    fn trap<'a>(
        &self,
        traps: &mut Traps,
        remove: &[(Space, Range<u64>)],
        add: &'a [(OwnerId, Trap)],
    ) -> Vec<&'a (OwnerId, Trap)> {
        if remove.is_empty() && add.is_empty() {
            return Vec::new();
        }
        let all: Vec<Trap> = add.iter().map(|(_, trap)| trap.clone()).collect();
        let Err(error) = self.memory.trap(remove, &all) else { return add.iter().collect() };
        // A guest can bring this about as often as it likes.
        let level = if std::mem::replace(&mut traps.warned, true) { Level::Debug } else { Level::Warn };
        log!(level, "some accesses to trapped ranges of BARs may find nothing: {error}");
        for range in remove {
            if let Err(error) = self.memory.trap(std::slice::from_ref(range), &[]) {
                debug!("{error}");
                traps.stuck.push(range.clone());
            }
        }
        let one = |(_, trap): &&(OwnerId, Trap)| match self.memory.trap(&[], std::slice::from_ref(trap)) {
            Ok(()) => true,
            Err(error) => {
                log!(level, "accesses to {trap:?} find nothing: {error}");
                false
            }
        };
        add.iter().filter(one).collect()
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        for stuck in self.state.get_mut().stuck.drain(..) {
            if !stuck.is_unmapped(&*self.memory) {
                warn!("{}: {} stays mapped for the guest{}", stuck.name(), stuck.range, stuck.stays());
                // What the hypervisor still has must stay mapped in this process.
                std::mem::forget(stuck);
            }
        }
    }
}
