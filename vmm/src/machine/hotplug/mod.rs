//! Functions that come and go while the guest runs: because a client of the control socket says so, or because the host
//! wants one back.
//!
//! All of it is decided on one thread, by [`Slots`], one event after the other. What takes time (opening, resetting,
//! closing) is done on threads of its own, by [`Cards`]; vCPUs and the event loop never wait for any of them.

mod cards;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use devices::pci::windows::PlacedBar;
use parking_lot::Mutex;

use cards::Cards;
pub use cards::Machinery;
use slots::{Event, FAR, Slots};

use super::events::EventPolicy;
use super::functions::Functions;
use super::root_ports::RootPorts;
use crate::control::{Control, StopOnPanic};
use crate::control_socket::Answer;
use crate::control_socket::protocol::Command;
#[cfg(test)]
use crate::control_socket::protocol::{Outcome, Refusal};

/// What the thread is told.
enum Message {
    Event(Event),
    /// The guest has been reset; to be answered when that has been taken note of.
    Reset(SyncSender<()>),
    End,
}

/// Where the BARs of cards that were plugged in while the guest ran are to be when it starts anew, by bus.
pub type LaterBars = Arc<Mutex<BTreeMap<u8, Vec<PlacedBar>>>>;

/// The thread that decides. It ends when this is dropped, after what it began.
pub struct Hotplug {
    sender: Sender<Message>,
    later: LaterBars,
    thread: Option<JoinHandle<()>>,
}

impl Hotplug {
    /// Starts it, and lets it hear of all functions and ports that there are.
    pub fn start(
        machinery: Machinery,
        policy: EventPolicy,
        functions: &Functions,
        root_ports: &RootPorts,
        control: Arc<Control>,
    ) -> io::Result<Hotplug> {
        let (sender, receiver) = channel();
        let later = LaterBars::default();
        let cards = Cards::new(machinery, later.clone(), sender.clone());
        let (exchange, told) = (sender.clone(), Arc::new(Told::default()));
        let tells = told.clone();
        root_ports.on_exchange(Box::new(move |bus| {
            if tells.tell(bus) {
                let _ = exchange.send(Message::Event(Event::Exchange(bus)));
            }
        }));
        for function in functions.lock().iter() {
            cards::listen(function.host(), function.slot(), &sender);
        }
        let thread = Builder::new().name("hotplug".to_owned()).spawn(move || {
            let _guard = StopOnPanic::new(control, "the hot-plug thread panicked");
            decide(&receiver, Slots::new(cards, policy), &told);
        })?;
        Ok(Hotplug { sender, later, thread: Some(thread) })
    }

    /// For the control socket: hands requests on.
    pub fn requests(&self) -> impl Fn(Command, Answer) + Send + use<> {
        let sender = self.sender.clone();
        move |command, answer| {
            let reply = Box::new(move |outcome| answer.give(&outcome));
            // When nobody decides any more, the answer says so by itself.
            let _ = sender.send(Message::Event(Event::Command(command, reply)));
        }
    }

    /// What a command gives.
    #[cfg(test)]
    pub fn ask(&self, command: Command) -> Result<Outcome, Refusal> {
        let (sender, outcome) = channel();
        let reply = Box::new(move |outcome| drop(sender.send(outcome)));
        let _ = self.sender.send(Message::Event(Event::Command(command, reply)));
        outcome.recv().unwrap()
    }

    /// The guest has been reset and does not run: what it was asked to let go of is gone when this returns.
    pub fn guest_reset(&self) {
        let (done, wait) = sync_channel(1);
        if self.sender.send(Message::Reset(done)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Where the BARs of what came later are to be placed when the guest starts anew.
    pub fn later(&self) -> &LaterBars {
        &self.later
    }

    /// Ends it: what was begun is waited for, and what the guest was asked to do is forgotten.
    pub fn end(&mut self) {
        let _ = self.sender.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Hotplug {
    fn drop(&mut self) {
        self.end();
    }
}

/// Buses that were told of because cards may come and go there now, or no longer: however often a guest changes that, once
/// is enough until it was looked at.
#[derive(Default)]
struct Told(Mutex<BTreeSet<u8>>);

impl Told {
    /// It is to be told.
    fn tell(&self, bus: u8) -> bool {
        self.0.lock().insert(bus)
    }

    /// It is about to be looked at.
    fn heard(&self, bus: u8) {
        self.0.lock().remove(&bus);
    }
}

fn decide(receiver: &Receiver<Message>, mut slots: Slots<Cards>, told: &Told) {
    loop {
        let wait = slots.deadline().map_or(FAR, |at| at.saturating_duration_since(Instant::now()));
        match receiver.recv_timeout(wait) {
            Ok(Message::Event(event)) => {
                if let Event::Exchange(bus) = event {
                    told.heard(bus);
                }
                slots.on(event, Instant::now());
            }
            Ok(Message::Reset(done)) => {
                slots.on(Event::Reset, Instant::now());
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
        }
        slots.tick(Instant::now());
    }
    slots.guest().finish();
}
