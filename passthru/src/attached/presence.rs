//! Whether a function answers.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::{Condvar, Mutex};

const THERE: u8 = 0;
const RESETTING: u8 = 1;
const GONE: u8 = 2;

/// Whether a function answers: it is there, or being reset, or has left the guest. While it is not there, reads are
/// all-ones and writes do nothing, without waiting for anybody.
///
/// It begins to be reset and leaves under the function's lock, so that nobody who holds the lock and found it there meets
/// a function that is half reset or half gone. Several may reset it at once, each for a reason of its own: it is there
/// again when the last of them is done.
#[derive(Debug, Default)]
pub struct Presence {
    now: AtomicU8,
    /// Held to change `now`, and to wait for that.
    changing: Mutex<Changing>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Changing {
    /// Resets that are under way.
    resets: usize,
    /// It is about to leave.
    leaving: bool,
}

/// What came of beginning a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The function was there.
    First,
    /// It is being reset already.
    Another,
    /// It has left, or is about to: none is begun.
    Refused,
}

impl Presence {
    pub fn is_there(&self) -> bool {
        self.now.load(Ordering::Acquire) == THERE
    }

    /// Begins a reset.
    pub fn begin_reset(&self) -> Begun {
        let mut changing = self.changing.lock();
        if changing.leaving {
            return Begun::Refused;
        }
        changing.resets += 1;
        self.now.store(RESETTING, Ordering::Release);
        if changing.resets == 1 { Begun::First } else { Begun::Another }
    }

    /// A reset is over.
    pub fn end_reset(&self) {
        let mut changing = self.changing.lock();
        changing.resets = changing.resets.saturating_sub(1);
        if changing.resets == 0 {
            let _ = self.now.compare_exchange(RESETTING, THERE, Ordering::AcqRel, Ordering::Acquire);
            self.changed.notify_all();
        }
    }

    /// Waits until no reset is under way.
    pub fn wait(&self) {
        let mut changing = self.changing.lock();
        while changing.resets > 0 {
            self.changed.wait(&mut changing);
        }
    }

    /// No reset begins any more.
    pub fn begin_leaving(&self) {
        self.changing.lock().leaving = true;
    }

    /// Leaves for good; false when it has before. No reset is under way.
    pub fn leave(&self) -> bool {
        let _changing = self.changing.lock();
        self.now.swap(GONE, Ordering::AcqRel) != GONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_again_after_its_last_reset_and_never_after_leaving() {
        let presence = Presence::default();
        assert!(presence.is_there());
        assert_eq!([presence.begin_reset(), presence.begin_reset()], [Begun::First, Begun::Another]);
        presence.end_reset();
        assert!(!presence.is_there());
        presence.end_reset();
        presence.wait();
        assert!(presence.is_there());
        presence.begin_leaving();
        assert_eq!(presence.begin_reset(), Begun::Refused);
        assert!(presence.is_there() && presence.leave());
        presence.end_reset();
        assert!(!presence.is_there() && !presence.leave() && presence.begin_reset() == Begun::Refused);
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
