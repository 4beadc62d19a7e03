//! What is decided about slots behind root ports: who may come, who must go, and who is told. Nothing here waits or does
//! I/O: events and the time go in, and a [`Guest`] is made to do things.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use passthru::host::HostEvent;
use passthru::pci::Slot;

use crate::control::Stop;
use crate::control_socket::protocol::{
    Command, Listed, ListedPort, Listing, Outcome, PortState, Refusal, RefusalKind, Status,
};
use crate::machine::events::{EventPolicy, OnError, OnRequest};
use crate::slot_map::Assignment;

/// Where the outcome of a command goes.
pub type Reply = Box<dyn FnOnce(Result<Outcome, Refusal>) + Send>;

/// What functions come from or go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The slot of the root port of a bus: all functions of one device.
    Port(u8),
    /// One function on a root bus.
    Root(Slot),
}

/// What happens.
pub enum Event {
    /// A client asks for something.
    Command(Command, Reply),
    /// A host tells something of a function.
    Host(Listed, HostEvent),
    /// Cards may be put into the slot of the port of a bus and taken out of it now, or no longer.
    Exchange(u8),
    /// What [`Guest::add`] began is done.
    Added(u8, Result<Vec<Listed>, Refusal>),
    /// What [`Guest::close`] began is done.
    Closed(Place),
    /// The guest has been reset and does not run.
    Reset,
}

/// The machine, as far as it matters here. No method waits for a device or the guest.
pub trait Guest {
    /// The buses behind root ports.
    fn ports(&self) -> Vec<u8>;
    /// All functions, by slot.
    fn functions(&self) -> Vec<Listed>;
    /// A port's slot has power.
    fn is_powered(&self, bus: u8) -> bool;
    /// The guest lets the card in a port's slot be taken out.
    fn permits_exchange(&self, bus: u8) -> bool;
    /// The guest is about to turn the power of a port's slot off or on.
    fn is_blinking(&self, bus: u8) -> bool;
    /// Presses the attention button of a port's slot.
    fn press_attention(&self, bus: u8);
    /// Tells the guest, by the port before it, that a function failed. False where that cannot be.
    fn signal_error(&self, slot: Slot) -> bool;
    /// Begins to open, reset and attach functions, and to plug them into the slot of `bus`. [`Event::Added`] follows.
    fn add(&mut self, bus: u8, functions: Vec<Assignment>);
    /// Takes functions out of the guest's reach, and begins to reset and close them. [`Event::Closed`] follows.
    fn close(&mut self, place: Place);
    /// Presses the power button. True: the guest has asked to be told of that.
    fn press_power(&self) -> bool;
    /// Stops the guest.
    fn stop(&self, cause: Stop);
    /// How the machine is.
    fn status(&self) -> Status;
}

/// What is under way in a slot.
enum Work {
    Adding(Reply),
    /// The guest was asked to let go.
    Removing {
        askers: Vec<(Instant, Reply)>,
        /// When it is taken if the guest has not let go.
        take: Option<Instant>,
        /// When the attention button is to be pressed, if it was not because it had been a moment before.
        press: Option<Instant>,
    },
    Closing {
        removed: Vec<Listed>,
        by_force: bool,
        askers: Vec<Reply>,
    },
}

/// Decides about a guest's slots.
pub struct Slots<G> {
    guest: G,
    policy: EventPolicy,
    work: BTreeMap<Place, Work>,
    /// Slots of functions that failed, of which that was said.
    failed: BTreeSet<Slot>,
    /// When the attention button of a bus' port was last pressed for what is in its slot.
    asked: BTreeMap<u8, Instant>,
    resets: u64,
}

impl<G: Guest> Slots<G> {
    /// Nothing is under way.
    pub fn new(guest: G, policy: EventPolicy) -> Slots<G> {
        Slots {
            guest,
            policy,
            work: BTreeMap::new(),
            failed: BTreeSet::new(),
            asked: BTreeMap::new(),
            resets: 0,
        }
    }

    /// The machine.
    pub fn guest(&mut self) -> &mut G {
        &mut self.guest
    }

    /// When [`Slots::tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let removals = self.work.values().filter_map(|work| match work {
            Work::Removing { askers, take, press } => {
                Some(askers.iter().map(|(until, _)| *until).chain(*take).chain(*press))
            }
            _ => None,
        });
        removals.flatten().min()
    }

    /// Something happened.
    pub fn on(&mut self, event: Event, now: Instant) {
        match event {
            Event::Command(Command::List {}, reply) => reply(Ok(Outcome::List(self.list()))),
            Event::Command(Command::Status {}, reply) => {
                reply(Ok(Outcome::Status(Status { resets: self.resets, ..self.guest.status() })));
            }
            Event::Command(Command::PowerButton {}, reply) => {
                reply(Ok(Outcome::Pressed { heard: self.guest.press_power() }));
            }
            Event::Command(Command::Add { functions }, reply) => match self.check_add(&functions) {
                Ok(bus) => {
                    self.work.insert(Place::Port(bus), Work::Adding(reply));
                    self.guest.add(bus, functions);
                }
                Err(refusal) => reply(Err(refusal)),
            },
            Event::Command(Command::Remove { slots, force, timeout }, reply) => {
                match self.check_remove(&slots, force) {
                    Ok(bus) => self.remove(bus, force, now, now + timeout, reply),
                    Err(refusal) => reply(Err(refusal)),
                }
            }
            // What a host says late is not about a function that came to the slot since.
            Event::Host(function, _) if !self.guest.functions().contains(&function) => {}
            Event::Host(function, HostEvent::Error) => self.error(&function),
            Event::Host(function, HostEvent::Request) => self.request(function.slot, now),
            Event::Exchange(bus) => {
                // What counts is how it is now: the guest may have turned the power on again.
                if matches!(self.work.get(&Place::Port(bus)), Some(Work::Removing { .. }))
                    && self.guest.permits_exchange(bus)
                {
                    self.close(Place::Port(bus), false);
                }
            }
            Event::Added(bus, result) => {
                if let Some(Work::Adding(reply)) = self.work.remove(&Place::Port(bus)) {
                    reply(result.map(|added| Outcome::Added { added }));
                }
            }
            Event::Closed(place) => {
                if let Some(Work::Closing { removed, by_force, askers }) = self.work.remove(&place) {
                    for reply in askers {
                        reply(Ok(Outcome::Removed { removed: removed.clone(), by_force }));
                    }
                }
            }
            Event::Reset => {
                self.resets += 1;
                self.failed.clear();
                // What it was asked for before it has forgotten.
                self.asked.clear();
                // A guest that was asked to let go has done so now.
                let asked =
                    |(place, work): (&Place, &Work)| matches!(work, Work::Removing { .. }).then_some(*place);
                let places: Vec<Place> = self.work.iter().filter_map(asked).collect();
                places.into_iter().for_each(|place| self.close(place, false));
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let (mut late, mut due) = (Vec::new(), Vec::new());
        self.work.retain(|place, work| {
            let Work::Removing { askers, take, press } = work else { return true };
            if let Place::Port(bus) = place
                && press.take_if(|press| *press <= now).is_some()
            {
                due.push(*bus);
            }
            if take.is_some_and(|take| take <= now) {
                late.push(*place);
                return true;
            }
            for (_, reply) in askers.extract_if(.., |(until, _)| *until <= now) {
                reply(Err(Refusal::new(
                    RefusalKind::Timeout,
                    "the guest has not let go in time; the device stays (--force takes it away all the same)",
                )));
            }
            !askers.is_empty() || take.is_some()
        });
        for bus in due {
            self.press(bus, now);
        }
        for place in late {
            warn!("{}: the guest has not let go; it is taken away", self.names(place));
            self.close(place, true);
        }
    }

    fn behind(&self, bus: u8) -> Vec<Listed> {
        self.guest.functions().into_iter().filter(|function| function.slot.bus() == bus).collect()
    }

    fn at(&self, place: Place) -> Vec<Listed> {
        match place {
            Place::Port(bus) => self.behind(bus),
            Place::Root(slot) => {
                self.guest.functions().into_iter().filter(|function| function.slot == slot).collect()
            }
        }
    }

    /// For messages.
    fn names(&self, place: Place) -> String {
        let names: Vec<String> =
            self.at(place).iter().map(|Listed { slot, device }| format!("slot {slot}: {device}")).collect();
        names.join(", ")
    }

    fn list(&self) -> Listing {
        let functions = self.guest.functions();
        let state = |bus| match self.work.get(&Place::Port(bus)) {
            Some(Work::Adding(_)) => PortState::Adding,
            Some(Work::Removing { .. }) => PortState::Removing,
            Some(Work::Closing { .. }) => PortState::Closing,
            None if !functions.iter().any(|function| function.slot.bus() == bus) => PortState::Empty,
            None if self.guest.is_powered(bus) => PortState::On,
            None => PortState::Off,
        };
        let ports = self.guest.ports().into_iter().map(|bus| ListedPort { bus, state: state(bus) }).collect();
        Listing { functions, ports }
    }

    /// The bus behind a port on which all of these slots are.
    fn bus_of(&self, slots: &[Slot]) -> Result<u8, Refusal> {
        let ports = self.guest.ports();
        let Some(first) = slots.first() else {
            return Err(Refusal::new(RefusalKind::Syntax, "no slot"));
        };
        if let Some(slot) = slots.iter().find(|slot| !ports.contains(&slot.bus())) {
            let bus = slot.bus();
            let what = if bus == 0 {
                "bus 0, on which nothing comes or goes while the guest runs".to_owned()
            } else {
                format!(
                    "bus {bus}, which is a root bus or not there: nothing comes or goes there while the guest runs"
                )
            };
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            let instead = match ports.is_empty() {
                true => "there is no root port; start the guest with --port B".to_owned(),
                false => format!("root ports lead to bus {}", ports.join(", ")),
            };
            return Err(Refusal::new(RefusalKind::NoHotplug, format!("slot {slot} is on {what}; {instead}")));
        }
        if let Some(other) = slots.iter().find(|slot| slot.bus() != first.bus()) {
            let what = format!("slots {first} and {other} are different devices; one device at a time");
            return Err(Refusal::new(RefusalKind::Partial, what));
        }
        if let Some(slot) = slots.iter().find(|slot| slot.device() != 0) {
            let what = format!(
                "slot {slot}: behind a root port there is one device, which is 0: {}:0:{}",
                slot.bus(),
                slot.function()
            );
            return Err(Refusal::new(RefusalKind::Empty, what));
        }
        Ok(first.bus())
    }

    fn check_add(&self, functions: &[Assignment]) -> Result<u8, Refusal> {
        let slots: Vec<Slot> = functions.iter().map(|function| function.slot).collect();
        let bus = self.bus_of(&slots)?;
        if self.work.contains_key(&Place::Port(bus)) {
            return Err(busy(bus));
        }
        let there = self.behind(bus);
        if let Some(Listed { slot, device }) = there.first() {
            let what = format!(
                "{device} is in slot {slot}; all functions of a device come at once, so remove it first and then add all \
                 of them"
            );
            return Err(Refusal::new(RefusalKind::Occupied, what));
        }
        Ok(bus)
    }

    fn check_remove(&self, slots: &[Slot], force: bool) -> Result<u8, Refusal> {
        let bus = self.bus_of(slots)?;
        match self.work.get(&Place::Port(bus)) {
            Some(Work::Adding(_) | Work::Closing { .. }) => return Err(busy(bus)),
            Some(Work::Removing { .. }) | None => {}
        }
        let there = self.behind(bus);
        if let Some(slot) = slots.iter().find(|slot| !there.iter().any(|function| function.slot == **slot)) {
            return Err(Refusal::new(RefusalKind::Empty, format!("slot {slot} is empty")));
        }
        if let Some(Listed { slot, device }) = there.iter().find(|function| !slots.contains(&function.slot)) {
            let all: Vec<String> = there.iter().map(|function| function.slot.to_string()).collect();
            let what = format!(
                "{device} in slot {slot} is a function of the same device, whose functions go at once: remove {}",
                all.join(" ")
            );
            return Err(Refusal::new(RefusalKind::Partial, what));
        }
        debug!("bus {bus}: removal{}", if force { " by force" } else { "" });
        Ok(bus)
    }

    fn remove(&mut self, bus: u8, force: bool, now: Instant, until: Instant, reply: Reply) {
        let place = Place::Port(bus);
        match self.work.get_mut(&place) {
            Some(Work::Removing { askers, .. }) if askers.len() >= MOST_ASKERS => {
                return reply(Err(busy(bus)));
            }
            // The guest was asked already; asking again would take that back.
            Some(Work::Removing { askers, .. }) => askers.push((until, reply)),
            _ => {
                let work = Work::Removing { askers: vec![(until, reply)], take: None, press: None };
                self.work.insert(place, work);
                self.ask(bus, force, now);
            }
        }
        if force {
            self.close(place, true);
        }
    }

    /// Asks the guest to let go, unless it has.
    fn ask(&mut self, bus: u8, force: bool, now: Instant) {
        if self.guest.permits_exchange(bus) {
            self.close(Place::Port(bus), false);
        } else if !force {
            self.press(bus, now);
        }
    }

    /// Presses the attention button, but not soon after another press, and not while the guest is doing what it was asked:
    /// that would take the first one back. Then it is looked at again later.
    fn press(&mut self, bus: u8, now: Instant) {
        let soon = self.asked.get(&bus).map(|asked| *asked + SECOND_PRESS).filter(|free| *free > now);
        let again = soon.or_else(|| self.guest.is_blinking(bus).then_some(now + SECOND_PRESS));
        if again.is_none() {
            self.guest.press_attention(bus);
            self.asked.insert(bus, now);
        }
        if let Some(Work::Removing { press, .. }) = self.work.get_mut(&Place::Port(bus)) {
            *press = again;
        }
    }

    /// Takes away what is there, for whoever asked for it.
    fn close(&mut self, place: Place, by_force: bool) {
        let askers = match self.work.remove(&place) {
            Some(Work::Removing { askers, .. }) => askers.into_iter().map(|(_, reply)| reply).collect(),
            None => Vec::new(),
            Some(other) => {
                self.work.insert(place, other);
                return;
            }
        };
        if let Place::Port(bus) = place {
            self.asked.remove(&bus);
        }
        let removed = self.at(place);
        for Listed { slot, .. } in &removed {
            self.failed.remove(slot);
        }
        self.work.insert(place, Work::Closing { removed, by_force, askers });
        self.guest.close(place);
    }

    fn place_of(&self, slot: Slot) -> Place {
        if self.guest.ports().contains(&slot.bus()) { Place::Port(slot.bus()) } else { Place::Root(slot) }
    }

    /// The host wants a function back. It says so again and again.
    fn request(&mut self, slot: Slot, now: Instant) {
        let place = self.place_of(slot);
        if matches!(self.work.get(&place), Some(Work::Adding(_) | Work::Closing { .. })) {
            return;
        }
        match self.policy.request {
            OnRequest::Stop => {
                info!("{}: the host wants it back", self.names(place));
                self.guest.stop(Stop::Asked("the host, which wants a function back"));
            }
            OnRequest::Ask(patience) if matches!(place, Place::Port(_)) => {
                self.ask_for(place, now, patience);
            }
            OnRequest::Ask(_) | OnRequest::Take => {
                warn!("{}: the host wants it back; it is taken away from the guest", self.names(place));
                self.close(place, true);
            }
        }
    }

    fn ask_for(&mut self, place: Place, now: Instant, patience: Duration) {
        if let Some(Work::Removing { take, .. }) = self.work.get_mut(&place) {
            // The first request's time counts.
            take.get_or_insert(now + patience);
            return;
        }
        warn!("{}: the host wants it back; the guest is asked to let go", self.names(place));
        if let Place::Port(bus) = place {
            self.work.insert(
                place,
                Work::Removing { askers: Vec::new(), take: Some(now + patience), press: None },
            );
            self.ask(bus, false, now);
        }
    }

    fn error(&mut self, Listed { slot, device }: &Listed) {
        let slot = *slot;
        let what = format!("slot {slot}: {device} reports an uncorrectable error (AER)");
        match self.policy.error {
            OnError::Stop => self.guest.stop(Stop::Device { what }),
            OnError::Pass if self.guest.signal_error(slot) => self.say(slot, &what, "the guest is told"),
            OnError::Pass => self.say(slot, &what, "the guest cannot be told, and goes on"),
            OnError::Log => self.say(slot, &what, "the guest goes on, and is not told"),
        }
    }

    /// Once for each function: a function can fail as often as it likes.
    fn say(&mut self, slot: Slot, what: &str, then: &str) {
        if self.failed.insert(slot) {
            warn!("{what}; {then}; further errors of it are not said");
        } else {
            debug!("{what}; {then}");
        }
    }
}

fn busy(bus: u8) -> Refusal {
    let what = format!("bus {bus}: functions are being added or closed there; try again in a moment");
    Refusal::new(RefusalKind::Busy, what)
}

/// From when on a press of the attention button is a new one. Within five seconds a second press takes the first back
/// (PCIe 6.0 §6.7.1.5), and a guest may count them late.
const SECOND_PRESS: Duration = Duration::from_secs(8);

/// Most who wait for one removal; they may be gone themselves by the time it is over.
const MOST_ASKERS: usize = 64;

/// Most that a deadline is away: for waiting without one.
pub const FAR: Duration = Duration::from_secs(3600);
