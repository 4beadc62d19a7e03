//! A part of a BAR that the guest reaches without an exit, or may still reach.

use std::ops::Range;
use std::sync::Arc;

use log::debug;

use super::read_only::ReadOnlyPages;
use crate::host::{BarRange, Cause, HostError, HostFunction, Operation};
use crate::ports::{Access, MemoryPort};

/// What is mapped where, so that exactly this is unmapped. It keeps what is mapped alive.
pub(super) struct Mapping {
    behind: Behind,
    pub(super) range: BarRange,
    pub(super) guest: u64,
}

/// What the guest reaches by it.
pub(super) enum Behind {
    /// The function itself.
    Host(Arc<dyn HostFunction>),
    /// Memory of this process, which it can read, in the place of the function with this name.
    Pages(Arc<str>, ReadOnlyPages),
}

impl Mapping {
    /// Maps it. After an error nothing of it is there.
    pub(super) fn new(
        behind: Behind,
        range: BarRange,
        guest: u64,
        memory: &dyn MemoryPort,
    ) -> Result<Mapping, HostError> {
        match &behind {
            Behind::Host(host) => host.map(range, guest)?,
            Behind::Pages(name, pages) => {
                // SAFETY: the mapping keeps the pages, and is kept itself until they are unmapped.
                let mapped = unsafe { memory.map(guest, pages.address(), range.len, Access::ReadOnly) };
                mapped.map_err(|source| {
                    let operation = Operation::Map { range, guest };
                    HostError { device: name.clone(), operation, source: Cause::from(source) }
                })?;
            }
        }
        Ok(Mapping { behind, range, guest })
    }

    /// Takes it away. After an error it may still be there, or part of it.
    pub(super) fn unmap(&self, memory: &dyn MemoryPort) -> Result<(), HostError> {
        match &self.behind {
            Behind::Host(host) => host.unmap(self.range, self.guest),
            Behind::Pages(name, _) => memory.unmap(self.guest, self.range.len).map_err(|source| {
                let operation = Operation::Unmap { range: self.range, guest: self.guest };
                HostError { device: name.clone(), operation, source: Cause::from(source) }
            }),
        }
    }

    /// Tries again to take it away; says whether it is gone.
    pub(super) fn is_unmapped(&self, memory: &dyn MemoryPort) -> bool {
        self.unmap(memory).inspect_err(|error| debug!("{error}")).is_ok()
    }

    pub(super) fn overlaps(&self, guest: &Range<u64>) -> bool {
        self.guest < guest.end && guest.start < self.guest.saturating_add(self.range.len)
    }

    /// The function is behind it.
    pub(super) fn reaches_host(&self) -> bool {
        matches!(self.behind, Behind::Host(_))
    }

    /// An access to it would be answered.
    pub(super) fn answers(&self) -> bool {
        match &self.behind {
            Behind::Host(host) => host.answers(),
            Behind::Pages(..) => true,
        }
    }

    /// The function's name.
    pub(super) fn name(&self) -> &Arc<str> {
        match &self.behind {
            Behind::Host(host) => host.name(),
            Behind::Pages(name, _) => name,
        }
    }

    /// What else stays with it, for a message.
    pub(super) fn stays(&self) -> &'static str {
        if self.reaches_host() { "; the device stays open" } else { "" }
    }
}
