//! What becomes of a vCPU whose access to mapped memory KVM cannot carry out.
//!
//! KVM_RUN then says EFAULT. That is so when a function's BAR is mapped and its host takes it away: the function was reset,
//! went to sleep, was unplugged, or is given back to its driver.

use std::sync::Arc;
use std::time::Duration;

/// Takes what is gone out of the guest's address space; false when nothing was.
pub type Repair = Arc<dyn Fn() -> bool + Send + Sync>;

/// Faults in a row, without any other exit, after which there is no hope left: a function that comes and goes meanwhile,
/// as in a reset, is there again by then.
const MOST: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Faults {
    repair: Option<Repair>,
    in_a_row: u32,
}

impl Faults {
    pub(super) fn set_repair(&mut self, repair: Repair) {
        self.repair = Some(repair);
    }

    /// The vCPU left guest mode in good order.
    pub(super) fn end(&mut self) {
        self.in_a_row = 0;
    }

    /// There was one more: whether the vCPU is to try again.
    pub(super) fn again(&mut self) -> bool {
        let Some(repair) = &self.repair else { return false };
        self.in_a_row += 1;
        if self.in_a_row > MOST {
            return false;
        }
        if !repair() {
            std::thread::sleep(PAUSE);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn it_is_tried_again_as_long_as_there_is_hope() {
        let mut faults = Faults::default();
        assert!(!faults.again(), "nobody can repair anything");
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        faults.set_repair(Arc::new(move || counted.fetch_add(1, Ordering::Relaxed) < 2 * MOST));
        for _ in 0..MOST {
            assert!(faults.again());
        }
        assert!(!faults.again(), "whatever was repaired did not help");
        faults.end();
        assert!(faults.again());
        assert_eq!(calls.load(Ordering::Relaxed), MOST + 1);
    }
}
