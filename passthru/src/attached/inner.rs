//! What an attached function is made of, and how the core's effects are carried out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use log::{debug, warn};
use parking_lot::Mutex;

use super::claims::Claims;
use super::msix_pages::MsixPages;
use super::presence::Presence;
use crate::function::pieces::Reason;
use crate::function::{ConfigWrite, Effect, Function};
use crate::host::{HostError, HostFunction, Operation};
use crate::pci::Slot;
use crate::space::AddressSpace;
use crate::space::layout::OwnerId;

pub struct Inner {
    /// Itself, for the thread that resets it.
    pub own: Weak<Inner>,
    pub slot: Slot,
    pub host: Arc<dyn HostFunction>,
    pub core: Mutex<Core>,
    pub claims: Claims,
    /// What the guest reads of MSI-X structures without an exit. The table changes under the lock of the core.
    pub pages: MsixPages,
    pub presence: Arc<Presence>,
    /// An interrupt failed before, and that was said. It stays so when the guest is reset, which it can be in a loop.
    pub vectors_warned: AtomicBool,
    /// A reset failed before, and that was said.
    pub reset_warned: AtomicBool,
}

pub struct Core {
    pub function: Function,
    /// Nothing before the function is in the address space, and after it left.
    pub place: Option<(Arc<AddressSpace>, OwnerId)>,
    /// Empty: room for those of the next write, which then takes no memory.
    pub effects: Vec<Effect>,
}

impl Inner {
    pub fn carry_out(&self, core: &mut Core, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::WriteHost(write) => self.write_host(&write),
                Effect::Place(moves) => {
                    if let Some((space, owner)) = &core.place {
                        space.place(*owner, &moves);
                    }
                }
                Effect::SetVectors(kind, count, changes) => {
                    let errors = self.host.set_vectors(kind, count, &changes);
                    for error in &errors {
                        if let Operation::Vector { kind, vector } = error.operation {
                            core.function.vector_failed(kind, vector);
                        }
                    }
                    self.report(&errors);
                    self.check_pending(core);
                }
                Effect::DisableVectors(kind) => {
                    if let Err(error) = self.host.disable_vectors(kind) {
                        debug!("{error}");
                    }
                }
                Effect::SetIntx(on) => {
                    if let Err(error) = self.host.set_intx(on) {
                        self.report(&[error]);
                    }
                }
                Effect::Reset => {
                    self.pages.store_all(&core.function);
                    self.begin_own_reset();
                }
            }
        }
    }

    /// Resets the guest's side of the function. Nothing of it is mapped any more when the table changes.
    pub fn reset_core(&self, core: &mut Core) {
        let mut effects = Vec::new();
        core.function.reset(&mut effects);
        self.carry_out(core, effects);
        self.pages.store_all(&core.function);
    }

    /// Lets reads of pending bits exit where the host cannot keep them for the guest.
    pub fn check_pending(&self, core: &Core) {
        let Some((space, owner)) = &core.place else { return };
        for range in self.pages.given_up() {
            space.trap_reads(*owner, *range, Reason::PendingUntold);
        }
    }

    /// Says once what failed: a guest can make it fail as often as it likes.
    fn report(&self, errors: &[HostError]) {
        let Some(first) = errors.first() else { return };
        if !self.vectors_warned.swap(true, Ordering::Relaxed) {
            let count = errors.len();
            warn!(
                "{first}; {count} {} silent",
                if count == 1 { "interrupt stays" } else { "interrupts stay" }
            );
        }
        for error in errors {
            debug!("{error}");
        }
    }

    /// Says once that a reset failed.
    pub fn report_reset(&self, error: &HostError) {
        if self.reset_warned.swap(true, Ordering::Relaxed) {
            debug!("{error}");
        } else {
            warn!("{error}; the guest finds the function as it left it");
        }
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
}
