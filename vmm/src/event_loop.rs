//! The thread that waits for file descriptors, on event-manager.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, RemoteEndpoint, SubscriberId, SubscriberOps,
};
use log::error;
use parking_lot::Mutex;
use passthru::ports::WatchId;

use crate::control::{Control, Stop, StopOnPanic};

type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// The event loop's thread. It ends when this is dropped.
pub struct EventLoop {
    watches: Watches,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A way to add and remove watches from any thread.
#[derive(Clone)]
pub struct Watches {
    endpoint: Arc<Mutex<RemoteEndpoint<Subscriber>>>,
    ids: Arc<Mutex<Ids>>,
}

#[derive(Default)]
struct Ids {
    next: u64,
    known: Vec<(WatchId, SubscriberId)>,
}

struct Watch {
    fd: RawFd,
    ready: Arc<dyn Fn() + Send + Sync>,
}

impl MutEventSubscriber for Watch {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        // With nothing to read left, an error or hang-up would be reported for ever.
        if events.event_set().intersects(EventSet::ERROR | EventSet::HANG_UP)
            && !events.event_set().contains(EventSet::IN)
        {
            let _ = ops.remove(Events::empty_raw(self.fd));
        }
        (self.ready)();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new_raw(self.fd, EventSet::IN)) {
            // /dev/null and plain files are always readable and cannot be waited for.
            log::debug!("descriptor {} cannot be watched: {error}", self.fd);
        }
    }
}

impl EventLoop {
    /// Starts the thread. If it ends before its time, it stops the guest.
    pub fn start(control: Arc<Control>) -> io::Result<EventLoop> {
        let mut manager: EventManager<Subscriber> = EventManager::new().map_err(io::Error::other)?;
        let endpoint = Arc::new(Mutex::new(manager.remote_endpoint()));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = Builder::new().name("events".to_owned()).spawn(move || {
            // Signals that end the program come by this thread: without it nothing else would end the guest.
            let guard = StopOnPanic::new(control, "the event loop's thread panicked");
            while !stopped.load(Ordering::Acquire) {
                if let Err(error) = manager.run() {
                    error!("event loop: {error}");
                    guard.control().stop(Stop::Broken("the event loop failed"));
                    return;
                }
            }
        })?;
        Ok(EventLoop { watches: Watches { endpoint, ids: Arc::default() }, stop, thread: Some(thread) })
    }

    /// Lets a subscriber of event-manager's kind take part, for as long as the loop runs.
    pub fn subscribe(&self, subscriber: Box<dyn MutEventSubscriber + Send>) -> io::Result<()> {
        let add = move |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
            ops.add_subscriber(subscriber);
            Ok::<_, event_manager::Error>(())
        };
        self.watches.endpoint.lock().call_blocking(add).map_err(io::Error::other)
    }

    /// A way to add and remove watches.
    pub fn watches(&self) -> Watches {
        self.watches.clone()
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.watches.endpoint.lock().kick();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Watches {
    /// Calls `ready` on the event loop whenever `fd` is readable. The descriptor must stay open until the watch is
    /// removed.
    pub fn add(&self, fd: BorrowedFd<'_>, ready: Arc<dyn Fn() + Send + Sync>) -> io::Result<WatchId> {
        let watch = Watch { fd: fd.as_raw_fd(), ready };
        let add = move |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
            Ok::<_, event_manager::Error>(ops.add_subscriber(Box::new(watch)))
        };
        let subscriber = self.endpoint.lock().call_blocking(add).map_err(io::Error::other)?;
        let mut ids = self.ids.lock();
        let id = WatchId(ids.next);
        ids.next += 1;
        ids.known.push((id, subscriber));
        Ok(id)
    }

    /// Ends a watch; when this returns, its closure does not run.
    pub fn remove(&self, watch: WatchId) {
        let mut ids = self.ids.lock();
        let Some(index) = ids.known.iter().position(|(id, _)| *id == watch) else { return };
        let (_, subscriber) = ids.known.swap_remove(index);
        drop(ids);
        let remove = move |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
            ops.remove_subscriber(subscriber).map(drop)
        };
        if let Err(error) = self.endpoint.lock().call_blocking(remove) {
            log::debug!("end of a watch: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;

    /// A descriptor that is readable, watched by this.
    fn watch(events: &EventLoop, ready: impl Fn() + Send + Sync + 'static) -> EventFd {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        // SAFETY: the tests drop the eventfd after the event loop.
        let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
        events.watches().add(fd, Arc::new(ready)).unwrap();
        event.write(1).unwrap();
        event
    }

    #[test]
    fn a_panic_on_the_event_loop_stops_the_guest_and_leaves_no_caller_waiting() {
        let control = Arc::new(Control::default());
        let events = EventLoop::start(control.clone()).unwrap();
        let watched = watch(&events, || panic!("as this test wants"));
        control.wait();
        assert_eq!(control.take(), Some(Stop::Broken("the event loop's thread panicked")));
        // SAFETY: the eventfd is dropped after the event loop.
        let fd = unsafe { BorrowedFd::borrow_raw(watched.as_raw_fd()) };
        assert!(events.watches().add(fd, Arc::new(|| ())).is_err());
        drop(events);
    }

    #[test]
    fn an_event_loop_that_ends_in_order_stops_nobody() {
        let control = Arc::new(Control::default());
        drop(EventLoop::start(control.clone()).unwrap());
        assert_eq!(control.peek(), None);
    }

    #[test]
    fn a_watched_descriptor_calls_until_it_is_no_longer_watched() {
        let events = EventLoop::start(Arc::default()).unwrap();
        let event = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        // SAFETY: the eventfd outlives the watch.
        let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
        let (seen, heard) = channel();
        let read = event.clone();
        let watch = events
            .watches()
            .add(
                fd,
                Arc::new(move || {
                    let _ = seen.send(read.read().unwrap_or(0));
                }),
            )
            .unwrap();
        event.write(3).unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(3));
        events.watches().remove(watch);
        event.write(1).unwrap();
        drop(events);
        assert!(heard.recv().is_err());
        assert_eq!(event.read().unwrap(), 1, "nobody read it after the watch ended");
    }
}
