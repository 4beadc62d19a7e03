//! MSI-X pending bits where the guest reads them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::BarRange;
use crate::space::ReadOnlyPages;

/// The MSI-X pending bits of a function, in memory that its guest reads without an exit. Whoever changes them holds the lock
/// under which its vectors change, so that they have one order.
#[derive(Debug)]
pub struct PendingBits {
    place: BarRange,
    /// The pages of `place` that the guest reads so, which may be fewer than all.
    pages: Vec<ReadOnlyPages>,
    given_up: AtomicBool,
}

impl PendingBits {
    /// Those that are at `place` of a BAR.
    pub(crate) fn new(place: BarRange, pages: Vec<ReadOnlyPages>) -> PendingBits {
        PendingBits { place, pages, given_up: AtomicBool::new(false) }
    }

    /// The vector pends.
    pub fn set(&self, vector: u16) {
        self.change(vector, true);
    }

    /// The vector does not pend: it is being delivered, or was taken down.
    pub fn clear(&self, vector: u16) {
        self.change(vector, false);
    }

    /// The host cannot keep them any more: from the end of the call in which it says so the guest's reads exit.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// The host cannot keep them.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    fn change(&self, vector: u16, set: bool) {
        let word = u64::from(vector / 64) * 8;
        if word < self.place.len {
            let offset = self.place.offset.saturating_add(word);
            self.pages.iter().for_each(|pages| pages.change(offset, 1 << (vector % 64), set));
        }
    }
}
