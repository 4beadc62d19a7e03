//! The eventfds that the simulated function signals.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::config::{MSI_VECTORS, MSIX_VECTORS};
use super::line::SimulatedLine;
use crate::host::MessageKind;
use crate::host::eventfd::{Refused, Triggers};

/// Duplicates of the eventfds that vectors are pointed at.
pub struct SimulatedTriggers {
    line: Arc<SimulatedLine>,
    live: Mutex<Option<(MessageKind, Vec<Option<File>>)>>,
}

impl SimulatedTriggers {
    /// None is on.
    pub fn new(line: Arc<SimulatedLine>) -> SimulatedTriggers {
        SimulatedTriggers { line, live: Mutex::default() }
    }

    /// The line that is asserted while no kind is on.
    pub fn line(&self) -> &SimulatedLine {
        &self.line
    }

    /// The function signals a vector of the kind that is on, or asserts its line.
    pub fn raise(&self, vector: u16) {
        let live = self.live.lock();
        match &*live {
            None => self.line.assert(true),
            Some((_, events)) => {
                if let Some(Some(event)) = events.get(usize::from(vector)) {
                    // Fails only when the count is at its end, and then it is signalled all the same.
                    let _ = (&*event).write_all(&1u64.to_ne_bytes());
                }
            }
        }
    }
}

fn count(kind: MessageKind) -> u16 {
    match kind {
        MessageKind::Msi => MSI_VECTORS,
        MessageKind::Msix => MSIX_VECTORS,
    }
}

impl Triggers for SimulatedTriggers {
    fn set(&self, kind: MessageKind, first: u16, events: &[Option<BorrowedFd<'_>>]) -> Result<(), Refused> {
        let copies: Vec<Option<File>> = events
            .iter()
            .map(|event| event.map(|e| e.try_clone_to_owned().map(File::from)).transpose())
            .collect::<io::Result<_>>()?;
        let end = usize::from(first) + copies.len();
        if end > usize::from(count(kind)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        let mut live = self.live.lock();
        let (now, slots) = live.get_or_insert_with(|| (kind, Vec::new()));
        if *now != kind {
            return Err(io::Error::from(io::ErrorKind::ResourceBusy).into());
        }
        if slots.len() < end {
            slots.resize_with(end, || None);
        }
        for (slot, copy) in slots.iter_mut().skip(usize::from(first)).zip(copies) {
            *slot = copy;
        }
        Ok(())
    }

    fn disable(&self, kind: MessageKind) -> io::Result<()> {
        let mut live = self.live.lock();
        if live.as_ref().is_some_and(|(now, _)| *now == kind) {
            *live = None;
        }
        Ok(())
    }

    fn is_dynamic(&self, kind: MessageKind) -> bool {
        kind == MessageKind::Msix
    }
}

impl Triggers for std::sync::Arc<SimulatedTriggers> {
    fn set(&self, kind: MessageKind, first: u16, events: &[Option<BorrowedFd<'_>>]) -> Result<(), Refused> {
        (**self).set(kind, first, events)
    }

    fn disable(&self, kind: MessageKind) -> io::Result<()> {
        (**self).disable(kind)
    }

    fn is_dynamic(&self, kind: MessageKind) -> bool {
        (**self).is_dynamic(kind)
    }
}
