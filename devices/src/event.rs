//! What a device has to say to the machine as a whole.

use std::sync::Arc;

/// Something that the guest did and that concerns all of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest ended the program with this exit status.
    Exit(u8),
}

/// Where devices send a [`MachineEvent`].
///
/// It is called from within the guest's access, by whoever carries that out, and must not access a device itself: it
/// notes the event and wakes whoever acts on it.
pub type EventSink = Arc<dyn Fn(MachineEvent) + Send + Sync>;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// A sink that keeps what it was told.
    pub(crate) fn recorder() -> (EventSink, Arc<Mutex<Vec<MachineEvent>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        (Arc::new(move |event| kept.lock().push(event)), seen)
    }
}
