//! Answers on their way from whoever carries requests out to the event loop.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::protocol::{self, Id, Outcome, Refusal, RefusalKind};

/// Names a connection; never used again.
pub type ConnectionId = u64;

/// Answers that were given and not fetched. There is no more than one for each request that is open, which are few.
pub struct Answers {
    ready: EventFd,
    given: Mutex<Vec<(ConnectionId, String)>>,
}

impl Answers {
    pub fn new() -> std::io::Result<Arc<Answers>> {
        let ready = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Arc::new(Answers { ready, given: Mutex::default() }))
    }

    /// Readable when there are some.
    pub fn fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }

    /// Those that were given since this was last called.
    pub fn fetch(&self) -> Vec<(ConnectionId, String)> {
        let _ = self.ready.read();
        std::mem::take(&mut self.given.lock())
    }

    fn give(&self, connection: ConnectionId, line: String) {
        self.given.lock().push((connection, line));
        let _ = self.ready.write(1);
    }
}

/// Where the answer to a request goes. One that is dropped says that the machine ends, so that every request has an
/// answer.
pub struct Answer {
    answers: Arc<Answers>,
    connection: ConnectionId,
    id: Option<Id>,
    given: bool,
}

impl Answer {
    pub(super) fn new(answers: Arc<Answers>, connection: ConnectionId, id: Option<Id>) -> Answer {
        Answer { answers, connection, id, given: false }
    }

    /// Gives it, from any thread. Waits for nobody, whether the client is still there or not.
    pub fn give(mut self, outcome: &Result<Outcome, Refusal>) {
        self.say(outcome);
    }

    fn say(&mut self, outcome: &Result<Outcome, Refusal>) {
        self.given = true;
        self.answers.give(self.connection, protocol::answer(self.id.as_ref(), outcome));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            self.say(&Err(Refusal::new(RefusalKind::Ended, "the machine ends")));
        }
    }
}
