//! What takes long is said while it takes that long.

use std::fmt::Display;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use log::info;

/// Target of these messages in the log. A terminal shows them whatever else it is to show.
pub const TARGET: &str = "progress";
/// After which time something is long.
const FIRST: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(5);

/// Does some work, and says that it does and for how long it has, if it is long.
pub fn during<T>(what: impl Display + Send, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let say = move || info!(target: TARGET, "{what} ({} s so far)", begin.elapsed().as_secs());
    during_every([FIRST, AGAIN], say, work)
}

fn during_every<T>(times: [Duration; 2], say: impl Fn() + Send, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Without this thread the work is done in silence.
        let _ = Builder::new()
            .name("progress".to_owned())
            .spawn_scoped(scope, move || tell(times, &waiting, say));
        let result = work();
        drop(done);
        result
    })
}

fn tell([first, again]: [Duration; 2], waiting: &Receiver<()>, say: impl Fn()) {
    let mut time = first;
    while waiting.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
        say();
        time = again;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_until_it_is_done() {
        let (said, heard) = mpsc::channel();
        let result = during_every(
            [Duration::ZERO; 2],
            move || said.send(()).unwrap_or_default(),
            || heard.recv().and_then(|()| heard.recv()).map(|()| 7),
        );
        assert_eq!(result, Ok(7), "the work waits until it was said twice");
    }

    #[test]
    fn what_is_short_is_not_said() {
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(during_every([day; 2], || panic!("said"), || 7), 7);
    }
}
