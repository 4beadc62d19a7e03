//! A host's function in a guest's slot: the core, and the host that carries out its effects.

mod access;
mod claims;
mod inner;
mod msix_pages;
mod presence;
mod reset;
mod windows;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use log::warn;
use parking_lot::Mutex;

pub use self::reset::{Fresh, Resetting};
use crate::function::pieces::Piece;
use crate::function::{Function, FunctionError, Shape};
use crate::host::{Cause, HostFunction, Region, ResetMethod};
use crate::pci::bar::Bar;
use crate::pci::rom::RomImage;
use crate::pci::{ConfigAccess, Slot};
use crate::space::AddressSpace;
use crate::space::layout::{OwnerId, Windows};
use claims::Claims;
use inner::{Core, Inner};
use msix_pages::MsixPages;

/// A function that is in a guest. It leaves the guest when this is dropped: BARs unmapped, vectors taken down, bus
/// mastering off, and reset where the host can reset it alone.
pub struct Attached {
    inner: Arc<Inner>,
    space: Arc<AddressSpace>,
    owner: OwnerId,
    bars: Vec<Bar>,
}

/// Why a function could not be attached: the host's function cannot be a guest's.
#[derive(Debug, thiserror::Error)]
#[error("{device}: {error}")]
pub struct AttachError {
    /// The function, as the host names it.
    pub device: Arc<str>,
    /// What is in the way.
    pub error: FunctionError,
}

impl Attached {
    /// Puts a function into the guest at `slot`, decoding and interrupts off.
    pub fn new(
        fresh: Fresh,
        slot: Slot,
        shape: Shape,
        space: Arc<AddressSpace>,
        windows: Arc<Windows>,
    ) -> Result<Attached, AttachError> {
        Attached::with_rom(fresh, slot, shape, None, space, windows)
    }

    /// As [`Attached::new`]; the guest finds `rom`, if there is one, instead of the function's own expansion ROM.
    pub fn with_rom(
        fresh: Fresh,
        slot: Slot,
        shape: Shape,
        rom: Option<RomImage>,
        space: Arc<AddressSpace>,
        windows: Arc<Windows>,
    ) -> Result<Attached, AttachError> {
        let Fresh(host) = fresh;
        let mut description = Cow::Borrowed(host.description());
        if let Some(rom) = &rom {
            description.to_mut().rom =
                Region { size: rom.bar_size(), mappable: Vec::new(), accessible: false };
        }
        let (mut function, problems) = Function::new(&description, host.report(), shape)
            .map_err(|error| AttachError { device: host.name().clone(), error })?;
        for problem in problems {
            warn!("{}: {problem}", host.name());
        }
        let (bars, mut pieces) = (function.bars().to_vec(), function.pieces().to_vec());
        let pages = MsixPages::new(host.name(), &function, &mut pieces);
        if let Some(bits) = pages.pending() {
            host.keep_pending(bits);
        }
        let claims = Claims::new(&function, rom);
        let mut effects = Vec::new();
        function.start(&mut effects);
        let inner = Arc::new_cyclic(|own| Inner {
            own: own.clone(),
            slot,
            host,
            core: Mutex::new(Core { function, place: None, effects: Vec::new() }),
            claims,
            pages,
            presence: Arc::default(),
            vectors_warned: AtomicBool::new(false),
            reset_warned: AtomicBool::new(false),
        });
        // Decoding goes on in the function before any part of it can be mapped: the host's mappings answer with a bus
        // error while it is off, and the IOMMU takes no range of a BAR then.
        inner.carry_out(&mut inner.core.lock(), effects);
        let (memory, access) = (inner.pages.memory(), inner.clone());
        let owner = space.add(inner.host.clone(), access, slot, pieces, memory, windows);
        inner.core.lock().place = Some((space.clone(), owner));
        inner.check_pending(&inner.core.lock());
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

    /// Changes the windows in which its BARs answer, as when the guest programs the bridge above it.
    pub fn set_windows(&self, windows: Arc<Windows>) {
        self.space.set_windows(self.owner, windows);
    }

    /// Puts an address into a BAR, as firmware does before the guest starts; `bar` is 0 to 6.
    pub fn assign(&self, bar: u8, address: u64) {
        let mut core = self.inner.core.lock();
        let mut effects = Vec::new();
        core.function.assign(bar, address, &mut effects);
        self.inner.carry_out(&mut core, effects);
    }

    /// Resets the function and waits for it: see [`Attached::begin_resets`].
    pub fn reset(&self) {
        Attached::begin_resets([self]).wait();
    }

    /// Resets functions for a guest that starts anew, and waits for that: see [`Attached::begin_resets`].
    pub fn reset_all(functions: &[Attached]) {
        for function in functions {
            // No vCPU runs that could begin another one.
            function.inner.presence.wait();
        }
        Attached::begin_resets(functions).wait();
    }

    /// Takes functions out of the guest together: quicker than one by one, since they are reset at once, and those that
    /// can only be reset together are. Gives the names of those that have a reset which failed: the guest's data is still in
    /// them. Those that have none, or only one together with functions that are not given, are not among them.
    pub fn detach_all(functions: Vec<Attached>) -> Vec<Arc<str>> {
        for function in &functions {
            function.leave();
        }
        let hosts: Vec<_> = functions.iter().map(|function| function.inner.host.clone()).collect();
        let mut failed = Vec::new();
        for (index, error) in reset::reset_hosts(&hosts, hosts.len(), |_| true) {
            warn!("{error}");
            if matches!(error.source, Cause::OnlyWith(_)) {
                continue;
            }
            // One that is reset for others as well leaves all of them as they are.
            if let Some(ResetMethod::BusWith(others)) =
                hosts.get(index).and_then(|host| host.report().reset.as_ref())
            {
                failed.extend(others.iter().cloned());
            }
            failed.push(error.device);
        }
        failed
    }

    /// Out of the guest's reach, for good. False when it was before.
    fn leave(&self) -> bool {
        if !self.inner.leave() {
            return false;
        }
        self.space.remove(self.owner);
        true
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Memory that the function held is not for the next guest.
        if self.leave()
            && self.inner.host.report().resets_alone()
            && let Err(error) = self.inner.host.reset()
        {
            warn!("{error}");
        }
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.inner.host.name(), self.inner.slot)
    }
}
