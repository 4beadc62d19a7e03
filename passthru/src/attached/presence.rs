//! Whether a function answers.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::{Condvar, Mutex};

const THERE: u8 = 0;
const RESETTING: u8 = 1;
const GONE: u8 = 2;

/// Whether a function answers: it is there, or being reset, or has left the guest. While it is not there, reads are
/// all-ones and writes do nothing, without waiting for anybody.
///
/// It begins to be reset and leaves under the function's lock, so that nobody who holds the lock and found it there meets
/// a function that is half reset or half gone.
#[derive(Debug, Default)]
pub struct Presence {
    now: AtomicU8,
    /// It is about to leave.
    leaving: AtomicBool,
    /// Held to change `now`, and to wait for that.
    changing: Mutex<()>,
    changed: Condvar,
}

impl Presence {
    pub fn is_there(&self) -> bool {
        self.now.load(Ordering::Acquire) == THERE
    }

    /// Begins a reset; false when one is under way, or the function has left or is about to.
    pub fn begin_reset(&self) -> bool {
        let _changing = self.changing.lock();
        !self.leaving.load(Ordering::Acquire)
            && self.now.compare_exchange(THERE, RESETTING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// A reset is over.
    pub fn end_reset(&self) {
        let _changing = self.changing.lock();
        let _ = self.now.compare_exchange(RESETTING, THERE, Ordering::AcqRel, Ordering::Acquire);
        self.changed.notify_all();
    }

    /// Waits until no reset is under way.
    pub fn wait(&self) {
        let mut changing = self.changing.lock();
        while self.now.load(Ordering::Acquire) == RESETTING {
            self.changed.wait(&mut changing);
        }
    }

    /// No reset begins any more.
    pub fn begin_leaving(&self) {
        let _changing = self.changing.lock();
        self.leaving.store(true, Ordering::Release);
    }

    /// Leaves for good; false while a reset is under way.
    pub fn leave(&self) -> bool {
        let _changing = self.changing.lock();
        let is_resetting = self.now.load(Ordering::Acquire) == RESETTING;
        if !is_resetting {
            self.now.store(GONE, Ordering::Release);
        }
        !is_resetting
    }

    /// It has left.
    pub fn is_gone(&self) -> bool {
        self.now.load(Ordering::Acquire) == GONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reset_at_a_time_and_none_after_leaving() {
        let presence = Presence::default();
        assert!(presence.is_there() && presence.begin_reset());
        assert!(!presence.is_there() && !presence.begin_reset() && !presence.leave());
        presence.end_reset();
        presence.wait();
        assert!(presence.is_there() && presence.leave());
        assert!(!presence.is_there() && !presence.begin_reset());
        presence.end_reset();
        assert!(presence.is_gone());
    }

    #[test]
    fn who_waits_goes_on_when_the_reset_is_over() {
        let presence = Presence::default();
        presence.begin_reset();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| presence.wait());
            presence.end_reset();
            waiting.join().unwrap();
        });
    }
}
