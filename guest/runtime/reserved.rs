//! What is too large for a stack: it lies in the image, and is given out once.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

pub struct Reserved<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `take` gives the value to one caller only, whichever vCPU that is on.
unsafe impl<T: Send> Sync for Reserved<T> {}

impl<T> Reserved<T> {
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// # Panics
    /// The second time.
    // Not one of many borrows: the only one there ever is.
    #[allow(clippy::mut_from_ref)]
    pub fn take(&'static self) -> &'static mut T {
        assert!(!self.taken.swap(true, Ordering::AcqRel), "taken twice");
        // SAFETY: this is reached once, so there is no other reference.
        unsafe { &mut *self.value.get() }
    }
}
