//! A host's function in a guest's slot: the core, and the host that carries out its effects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{debug, warn};
use parking_lot::Mutex;

use crate::function::pieces::{MsixStructures, Piece};
use crate::function::{ConfigWrite, Effect, Function, FunctionError, Shape};
use crate::host::{HostError, HostFunction};
use crate::pci::bar::Bar;
use crate::pci::{ConfigAccess, Slot};
use crate::ports::BarAccess;
use crate::space::AddressSpace;
use crate::space::layout::{OwnerId, Windows};

/// A function that is in a guest. It leaves the guest when this is dropped: BARs unmapped, vectors taken down, bus
/// mastering off, and reset where the host can.
pub struct Attached {
    inner: Arc<Inner>,
    space: Arc<AddressSpace>,
    owner: OwnerId,
    bars: Vec<Bar>,
}

/// Why a function could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The host's function cannot be a guest's.
    #[error("{device}: {error}")]
    Function {
        /// The function, as the host names it.
        device: Arc<str>,
        /// What is in the way.
        error: FunctionError,
    },
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostError),
}

struct Inner {
    slot: Slot,
    host: Arc<dyn HostFunction>,
    core: Mutex<Core>,
    msix: Option<MsixStructures>,
    /// It has left the guest; whoever still reaches it finds nothing.
    gone: AtomicBool,
    /// A vector failed since the last reset, and that was said.
    warned: AtomicBool,
}

struct Core {
    function: Function,
    /// Nothing before the function is in the address space, and after it left.
    place: Option<(Arc<AddressSpace>, OwnerId)>,
}

impl Attached {
    /// Puts `host` into the guest at `slot`, decoding and interrupts off. It is reset first, where the host can, so
    /// that nothing of an earlier user is left.
    pub fn new(
        host: Arc<dyn HostFunction>,
        slot: Slot,
        shape: Shape,
        space: Arc<AddressSpace>,
        windows: Arc<Windows>,
    ) -> Result<Attached, AttachError> {
        if host.report().can_reset() {
            host.reset()?;
        }
        let (mut function, problems) = Function::new(host.description(), host.report(), shape)
            .map_err(|error| AttachError::Function { device: host.name().clone(), error })?;
        for problem in problems {
            warn!("{}: {problem}", host.name());
        }
        let (bars, pieces) = (function.bars().to_vec(), function.pieces().to_vec());
        let msix = function.msix_structures().copied();
        let mut effects = Vec::new();
        function.start(&mut effects);
        let core = Mutex::new(Core { function, place: None });
        let (gone, warned) = (AtomicBool::new(false), AtomicBool::new(false));
        let inner = Arc::new(Inner { slot, host, core, msix, gone, warned });
        // Decoding goes on in the function before any part of it can be mapped: the host's mappings answer with a bus
        // error while it is off, and the IOMMU takes no range of a BAR then.
        inner.carry_out(&mut inner.core.lock(), effects);
        let owner = space.add(inner.host.clone(), inner.clone(), slot, pieces, windows);
        inner.core.lock().place = Some((space.clone(), owner));
        Ok(Attached { inner, space, owner, bars })
    }

    /// Where it is in the guest.
    pub fn slot(&self) -> Slot {
        self.inner.slot
    }

    /// The host's side of it.
    pub fn host(&self) -> &Arc<dyn HostFunction> {
        &self.inner.host
    }

    /// Its configuration space, for the VMM's decoders.
    pub fn config(&self) -> Arc<dyn ConfigAccess> {
        self.inner.clone()
    }

    /// The BARs that the guest sees.
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// How each part of them reaches the guest, where they are now.
    pub fn pieces(&self) -> Vec<Piece> {
        self.space.pieces(self.owner)
    }

    /// Puts an address into a BAR, as firmware does before the guest starts; `bar` is 0 to 5.
    pub fn assign(&self, bar: u8, address: u64) {
        let mut core = self.inner.core.lock();
        let mut effects = Vec::new();
        core.function.assign(bar, address, &mut effects);
        self.inner.carry_out(&mut core, effects);
    }

    /// A reset of the guest: the guest's view returns to its start, BARs unassigned, and the function is reset where
    /// the host can. Takes 100 ms and more; no vCPU may be running.
    pub fn reset(&self) -> Result<(), HostError> {
        let mut core = self.inner.core.lock();
        let mut effects = Vec::new();
        core.function.reset(&mut effects);
        self.inner.carry_out(&mut core, effects);
        self.inner.warned.store(false, Ordering::Relaxed);
        if self.inner.host.report().can_reset() { self.inner.host.reset() } else { Ok(()) }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        {
            let mut core = self.inner.core.lock();
            // A decoder or an old table of the VMM's may lead here for a while.
            self.inner.gone.store(true, Ordering::Release);
            let mut effects = Vec::new();
            // Unmaps, takes the vectors down, and turns bus mastering off: in this order no access and no interrupt
            // meets a function that is half gone.
            core.function.reset(&mut effects);
            self.inner.carry_out(&mut core, effects);
            core.place = None;
        }
        self.space.remove(self.owner);
        // Memory that the function held is not for the next guest.
        if self.inner.host.report().can_reset()
            && let Err(error) = self.inner.host.reset()
        {
            warn!("{error}");
        }
    }
}

impl Inner {
    fn carry_out(&self, core: &mut Core, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::WriteHost(write) => self.write_host(&write),
                Effect::Place(moves) => {
                    if let Some((space, owner)) = &core.place {
                        space.place(*owner, &moves);
                    }
                }
                Effect::SetVectors(kind, count, changes) => {
                    self.report(&self.host.set_vectors(kind, count, &changes));
                }
                Effect::DisableVectors(kind) => {
                    if let Err(error) = self.host.disable_vectors(kind) {
                        debug!("{error}");
                    }
                }
            }
        }
    }

    /// Says once what failed: a guest can make it fail as often as it likes.
    fn report(&self, errors: &[HostError]) {
        let Some(first) = errors.first() else { return };
        if !self.warned.swap(true, Ordering::Relaxed) {
            warn!("{first}; {} vectors stay silent", errors.len());
        }
        for error in errors {
            debug!("{error}");
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn write_host(&self, write: &ConfigWrite) {
        let len = usize::from(write.len).min(4);
        let mut now = [0; 4];
        let Some(bytes) = now.get_mut(..len) else { return };
        if !write.is_whole()
            && let Err(error) = self.host.config_read(write.offset, bytes)
        {
            return debug!("{error}");
        }
        let merged = write.merge(u32::from_le_bytes(now)).to_le_bytes();
        if let Err(error) = self.host.config_write(write.offset, merged.get(..len).unwrap_or(&merged)) {
            debug!("{error}");
        }
    }

    /// Which structure of MSI-X, or else the host, answers byte `offset` of a BAR, and how many bytes from there on
    /// it answers.
    fn answers(&self, bar: u8, offset: u64) -> (Answers, u64) {
        let mut most = u64::MAX;
        for (range, who) in
            self.msix.iter().flat_map(|m| [(m.table, Answers::Table), (m.pending, Answers::Pending)])
        {
            if range.bar != bar {
                continue;
            }
            if let Some(at) = offset.checked_sub(range.offset) {
                if at < range.len {
                    return (who, range.len - at);
                }
            } else {
                most = most.min(range.offset - offset);
            }
        }
        (Answers::Host, most)
    }
}

#[derive(Clone, Copy)]
enum Answers {
    Host,
    Table,
    Pending,
}

impl ConfigAccess for Inner {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        if self.is_gone() {
            return data.fill(0xff);
        }
        let read = {
            let core = self.core.lock();
            core.function.read_config(offset, data.len(), |kind, vector| self.host.is_pending(kind, vector))
        };
        let mut value = read.value;
        if read.live != 0 {
            let mut now = [0xff; 4];
            // A function that no longer answers reads all-ones, as on a bus.
            if let Some(bytes) = now.get_mut(..data.len())
                && let Err(error) = self.host.config_read(offset, bytes)
            {
                debug!("{error}");
            }
            value |= u32::from_le_bytes(now) & read.live;
        }
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut core = self.core.lock();
        if self.is_gone() {
            return;
        }
        let mut effects = Vec::new();
        core.function.write_config(offset, data, &mut effects);
        self.carry_out(&mut core, effects);
    }
}

impl BarAccess for Inner {
    fn bar_read(&self, bar: u8, mut offset: u64, mut data: &mut [u8]) {
        if self.is_gone() {
            return data.fill(0xff);
        }
        while !data.is_empty() {
            let (who, room) = self.answers(bar, offset);
            let len = data.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (part, rest) = std::mem::take(&mut data).split_at_mut(len);
            match (who, &self.msix) {
                (Answers::Table, Some(msix)) => {
                    self.core.lock().function.read_msix_table(offset - msix.table.offset, part);
                }
                (Answers::Pending, Some(msix)) => {
                    let pending = |kind, vector| self.host.is_pending(kind, vector);
                    self.core.lock().function.read_msix_pending(offset - msix.pending.offset, part, pending);
                }
                _ => {
                    if let Err(error) = self.host.bar_read(bar, offset, part) {
                        debug!("{error}");
                        part.fill(0xff);
                    }
                }
            }
            offset += len as u64;
            data = rest;
        }
    }

    fn bar_write(&self, bar: u8, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() && !self.is_gone() {
            let (who, room) = self.answers(bar, offset);
            let (part, rest) = data.split_at(data.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            match (who, &self.msix) {
                (Answers::Table, Some(msix)) => {
                    let mut core = self.core.lock();
                    let mut effects = Vec::new();
                    core.function.write_msix_table(offset - msix.table.offset, part, &mut effects);
                    self.carry_out(&mut core, effects);
                }
                // Pending bits are read-only (PCIe 6.0 §7.7.2.7).
                (Answers::Pending, Some(_)) => {}
                _ => {
                    if let Err(error) = self.host.bar_write(bar, offset, part) {
                        debug!("{error}");
                    }
                }
            }
            offset += part.len() as u64;
            data = rest;
        }
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.inner.host.name(), self.inner.slot)
    }
}
