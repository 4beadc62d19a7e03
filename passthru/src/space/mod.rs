//! The guest addresses at which functions answer, shared by all functions of a VM.

pub mod layout;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use log::{debug, warn};
use parking_lot::Mutex;

use crate::function::Placement;
use crate::function::pieces::{Backing, Piece, Reason};
use crate::host::{BarRange, HostFunction};
use crate::pci::{Slot, Space};
use crate::ports::{BarAccess, MemoryPort, Trap};
use layout::{Layout, OwnerId, Placed, Windows};

/// Carries out what the [`Layout`] decides: maps, unmaps and traps the BARs of all functions of a VM, one change at a
/// time.
pub struct AddressSpace {
    memory: Arc<dyn MemoryPort>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    layout: Layout,
    owners: HashMap<OwnerId, Owner>,
    next: u32,
}

struct Owner {
    host: Arc<dyn HostFunction>,
    access: Arc<dyn BarAccess>,
    slot: Slot,
    pieces: Vec<Piece>,
    /// Pieces whose mapping failed where their BAR is now; they are trapped there.
    failed: HashSet<BarRange>,
    /// A mapping failed before, and that was said.
    warned: bool,
    /// What is mapped and where, so that exactly this is unmapped.
    mapped: Vec<(BarRange, u64)>,
    /// What is trapped and where.
    trapped: Vec<(u8, Space, Range<u64>)>,
}

impl AddressSpace {
    /// An empty one.
    pub fn new(memory: Arc<dyn MemoryPort>) -> AddressSpace {
        AddressSpace { memory, state: Mutex::default() }
    }

    /// Lets the BARs of the function at `slot` answer inside `windows`.
    pub fn add(
        &self,
        host: Arc<dyn HostFunction>,
        access: Arc<dyn BarAccess>,
        slot: Slot,
        pieces: Vec<Piece>,
        windows: Arc<Windows>,
    ) -> OwnerId {
        let mut state = self.state.lock();
        let id = OwnerId(state.next);
        state.next = state.next.wrapping_add(1);
        state.layout.add_owner(id, windows);
        state.owners.insert(
            id,
            Owner {
                host,
                access,
                slot,
                pieces,
                failed: HashSet::new(),
                warned: false,
                mapped: Vec::new(),
                trapped: Vec::new(),
            },
        );
        id
    }

    /// Takes away all that a function has. When it returns, no vCPU reaches it any more.
    pub fn remove(&self, owner: OwnerId) {
        let mut state = self.state.lock();
        let changes = state.layout.remove_owner(owner);
        self.carry_out(&mut state, changes);
        state.owners.remove(&owner);
    }

    /// How each part of a function's BARs reaches the guest, at the addresses that they have now.
    pub fn pieces(&self, owner: OwnerId) -> Vec<Piece> {
        let state = self.state.lock();
        let Some(owner) = state.owners.get(&owner) else { return Vec::new() };
        owner.pieces.iter().map(|piece| owner.now(piece)).collect()
    }

    /// Moves BARs of a function.
    pub fn place(&self, owner: OwnerId, moves: &[Placement]) {
        let mut state = self.state.lock();
        let changes = state.layout.place(owner, moves);
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
        self.carry_out(&mut state, changes);
    }

    /// What goes is unmapped before what comes is mapped, and the traps change last, as one: so at no time an address has
    /// two meanings. In between an access finds nothing.
    fn carry_out(&self, state: &mut State, changes: layout::Changes) {
        let mut remove = Vec::new();
        for placed in &changes.remove {
            if let Some(owner) = state.owners.get_mut(&placed.owner) {
                owner.unmap(placed.bar);
                remove.extend(owner.trapped.extract_if(.., |t| t.0 == placed.bar).map(|t| (t.1, t.2)));
            }
        }
        let mut add = Vec::new();
        for placed in &changes.add {
            if let Some(owner) = state.owners.get_mut(&placed.owner) {
                owner.map(placed);
                add.extend(owner.trap(placed));
            }
        }
        if remove.is_empty() && add.is_empty() {
            return;
        }
        if let Err(error) = self.memory.trap(&remove, &add) {
            warn!("accesses to trapped ranges of BARs will find nothing: {error}");
        }
    }
}

impl Owner {
    fn unmap(&mut self, bar: u8) {
        for (range, guest) in self.mapped.extract_if(.., |m| m.0.bar == bar) {
            if let Err(error) = self.host.unmap(range, guest) {
                debug!("{error}");
            }
        }
    }

    /// Maps what can be mapped. A piece whose mapping fails is trapped there: slower, but it works.
    fn map(&mut self, placed: &Placed) {
        self.failed.retain(|range| range.bar != placed.bar);
        for piece in self.pieces.iter().filter(|p| p.range.bar == placed.bar && p.backing == Backing::Mapped)
        {
            let guest = placed.range.start + piece.range.offset;
            match self.host.map(piece.range, guest) {
                Ok(()) => self.mapped.push((piece.range, guest)),
                Err(error) => {
                    self.failed.insert(piece.range);
                    // A guest can make it fail as often as it likes.
                    if std::mem::replace(&mut self.warned, true) {
                        debug!("{error}");
                    } else {
                        warn!("{error}; every access to this part will exit while it is there");
                    }
                }
            }
        }
    }

    fn now(&self, piece: &Piece) -> Piece {
        match piece.backing {
            Backing::Mapped if self.failed.contains(&piece.range) => {
                Piece { backing: Backing::Trapped(Reason::Failed), ..*piece }
            }
            _ => *piece,
        }
    }

    fn trap(&mut self, placed: &Placed) -> Vec<Trap> {
        let trapped = self
            .pieces
            .iter()
            .map(|p| self.now(p))
            .filter(|p| p.range.bar == placed.bar && p.backing != Backing::Mapped)
            .map(|p| {
                let start = placed.range.start + p.range.offset;
                Trap {
                    space: placed.space,
                    range: start..start + p.range.len,
                    target: self.access.clone(),
                    slot: self.slot,
                    bar: placed.bar,
                    offset: p.range.offset,
                }
            })
            .collect::<Vec<_>>();
        self.trapped.extend(trapped.iter().map(|t| (placed.bar, t.space, t.range.clone())));
        trapped
    }
}
