//! Events in, and what a guest that only keeps book is made to do.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use passthru::host::HostEvent;
use passthru::pci::Slot;

use super::slots::{Event, Guest, Place, Slots};
use crate::control::Stop;
use crate::control_socket::protocol::{Command, Listed, Outcome, PortState, Refusal, RefusalKind, Status};
use crate::machine::events::{EventPolicy, OnError, OnRequest};
use crate::slot_map::Assignment;

/// Ports of buses 1 and 2; what it was made to do.
#[derive(Default)]
struct Book {
    functions: Vec<Slot>,
    unpowered: Vec<u8>,
    /// Of those without power, whose power indicator is on or blinks.
    indicating: Vec<u8>,
    blinking: Vec<u8>,
    pressed: std::cell::RefCell<Vec<u8>>,
    stopped: std::cell::RefCell<Vec<Stop>>,
    signalled: std::cell::RefCell<Vec<Slot>>,
    adding: Vec<u8>,
    closing: Vec<Place>,
}

impl Guest for Book {
    fn ports(&self) -> Vec<u8> {
        vec![1, 2]
    }

    fn functions(&self) -> Vec<Listed> {
        self.functions.iter().map(listed).collect()
    }

    fn is_powered(&self, bus: u8) -> bool {
        !self.unpowered.contains(&bus)
    }

    fn permits_exchange(&self, bus: u8) -> bool {
        !self.is_powered(bus) && !self.indicating.contains(&bus)
    }

    fn is_blinking(&self, bus: u8) -> bool {
        self.blinking.contains(&bus)
    }

    fn press_attention(&self, bus: u8) {
        self.pressed.borrow_mut().push(bus);
    }

    fn signal_error(&self, slot: Slot) -> bool {
        self.signalled.borrow_mut().push(slot);
        slot.bus() != 0
    }

    fn add(&mut self, bus: u8, _: Vec<Assignment>) {
        self.adding.push(bus);
    }

    fn close(&mut self, place: Place) {
        self.functions.retain(|slot| match place {
            Place::Port(bus) => slot.bus() != bus,
            Place::Root(root) => *slot != root,
        });
        self.closing.push(place);
    }

    fn press_power(&self) -> bool {
        true
    }

    fn stop(&self, cause: Stop) {
        self.stopped.borrow_mut().push(cause);
    }

    fn status(&self) -> Status {
        Status { functions: self.functions.len(), ..Status::of(1, "64M".parse().unwrap()) }
    }
}

fn slot(text: &str) -> Slot {
    text.parse().unwrap()
}

fn listed(slot: &Slot) -> Listed {
    Listed { slot: *slot, device: format!("device of {slot}") }
}

type Answer = Receiver<Result<Outcome, Refusal>>;

/// A machine whose slots hold these, and its time.
struct Machine {
    slots: Slots<Book>,
    now: Instant,
}

impl Machine {
    fn with(functions: &[&str], policy: EventPolicy) -> Machine {
        let functions = functions.iter().map(|text| slot(text)).collect();
        Machine { slots: Slots::new(Book { functions, ..Book::default() }, policy), now: Instant::now() }
    }

    fn new(functions: &[&str]) -> Machine {
        Machine::with(functions, EventPolicy::default())
    }

    fn on(&mut self, event: Event) {
        self.slots.on(event, self.now);
        self.slots.tick(self.now);
    }

    fn command(&mut self, command: Command) -> Answer {
        let (sender, answer) = channel();
        self.on(Event::Command(command, Box::new(move |outcome| drop(sender.send(outcome)))));
        answer
    }

    fn remove(&mut self, slots: &[&str], force: bool, seconds: u64) -> Answer {
        let slots = slots.iter().map(|text| slot(text)).collect();
        self.command(Command::Remove { slots, force, timeout: Duration::from_secs(seconds) })
    }

    fn add(&mut self, functions: &[&str]) -> Answer {
        self.command(Command::Add { functions: functions.iter().map(|text| text.parse().unwrap()).collect() })
    }

    fn power_off(&mut self, bus: u8) {
        self.slots.guest().unpowered.push(bus);
        self.on(Event::Exchange(bus));
    }

    fn host(&mut self, text: &str, event: HostEvent) {
        self.on(Event::Host(listed(&slot(text)), event));
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.slots.tick(self.now);
    }

    fn state(&mut self, bus: u8) -> PortState {
        let Ok(Outcome::List(listing)) = self.command(Command::List {}).recv().unwrap() else { panic!() };
        listing.ports.iter().find(|port| port.bus == bus).unwrap().state
    }

    fn pressed(&mut self) -> Vec<u8> {
        self.slots.guest().pressed.borrow().clone()
    }

    fn closing(&mut self) -> Vec<Place> {
        self.slots.guest().closing.clone()
    }
}

fn refusal(answer: &Answer) -> RefusalKind {
    answer.try_recv().unwrap().unwrap_err().kind
}

fn removed(answer: &Answer) -> (usize, bool) {
    match answer.try_recv().unwrap().unwrap() {
        Outcome::Removed { removed, by_force } => (removed.len(), by_force),
        other => panic!("{other:?}"),
    }
}

fn waits(answer: &Answer) -> bool {
    answer.try_recv().is_err()
}

#[test]
fn a_guest_is_asked_and_lets_go() {
    let mut machine = Machine::new(&["1:0:0", "1:0:1", "0:8:0"]);
    let answer = machine.remove(&["1:0:1", "1:0:0"], false, 30);
    assert_eq!((machine.pressed(), machine.state(1)), (vec![1], PortState::Removing));
    // It has power still, whatever was heard of it.
    machine.on(Event::Exchange(1));
    assert!(machine.closing().is_empty());
    // Without power, but not done yet.
    machine.slots.guest().indicating.push(1);
    machine.power_off(1);
    assert!(machine.closing().is_empty());
    machine.slots.guest().indicating.clear();
    machine.on(Event::Exchange(1));
    assert_eq!((machine.closing(), machine.state(1)), (vec![Place::Port(1)], PortState::Closing));
    assert!(waits(&answer));
    machine.on(Event::Closed(Place::Port(1)));
    assert_eq!((removed(&answer), machine.state(1)), ((2, false), PortState::Empty));
    assert_eq!(machine.slots.deadline(), None);
}

#[test]
fn a_guest_that_does_not_let_go_keeps_the_device() {
    let mut machine = Machine::new(&["1:0:0"]);
    let first = machine.remove(&["1:0:0"], false, 10);
    machine.pass(4);
    let second = machine.remove(&["1:0:0"], false, 20);
    // A second press would take the first one back.
    assert_eq!(machine.pressed(), [1]);
    machine.pass(5);
    assert!(waits(&first));
    machine.pass(1);
    assert_eq!(refusal(&first), RefusalKind::Timeout);
    assert!(waits(&second));
    machine.pass(14);
    assert_eq!((refusal(&second), machine.state(1)), (RefusalKind::Timeout, PortState::On));
    // Late, but it has: next time nobody is asked.
    machine.power_off(1);
    assert_eq!((machine.closing(), machine.state(1)), (vec![], PortState::Off));
    let third = machine.remove(&["1:0:0"], false, 10);
    machine.on(Event::Closed(Place::Port(1)));
    assert_eq!((removed(&third), machine.pressed()), ((1, false), vec![1]));
}

#[test]
fn a_press_soon_after_another_is_left_out() {
    let mut machine = Machine::new(&["1:0:0"]);
    for (seconds, pressed) in [(0, 1), (2, 1), (5, 1), (1, 2), (7, 2), (1, 3)] {
        machine.pass(seconds);
        // Who asked gave up at once.
        let answer = machine.remove(&["1:0:0"], false, 0);
        assert_eq!((refusal(&answer), machine.pressed().len()), (RefusalKind::Timeout, pressed));
    }
    // Nor does it count for the next card.
    machine.power_off(1);
    machine.remove(&["1:0:0"], false, 0);
    machine.on(Event::Closed(Place::Port(1)));
    machine.slots.guest().unpowered.clear();
    machine.slots.guest().functions.push(slot("1:0:0"));
    machine.remove(&["1:0:0"], false, 0);
    assert_eq!(machine.pressed().len(), 4);
}

#[test]
fn a_press_that_was_left_out_is_made_up_for() {
    let mut machine = Machine::new(&["1:0:0"]);
    let first = machine.remove(&["1:0:0"], false, 1);
    machine.pass(1);
    assert_eq!(refusal(&first), RefusalKind::Timeout);
    // The guest took no notice.
    let second = machine.remove(&["1:0:0"], false, 60);
    machine.pass(6);
    assert_eq!(machine.pressed(), [1]);
    assert_eq!(machine.slots.deadline(), Some(machine.now + Duration::from_secs(1)));
    // It is turning the power on or off just then.
    machine.slots.guest().blinking.push(1);
    machine.pass(1);
    machine.pass(7);
    assert_eq!(machine.pressed(), [1]);
    machine.slots.guest().blinking.clear();
    machine.pass(1);
    assert_eq!(machine.pressed(), [1, 1]);
    assert!(waits(&second));
    machine.pass(30);
    assert_eq!(machine.pressed(), [1, 1], "once for each that asks");
    // A guest that starts anew has not been asked.
    machine.on(Event::Reset);
    machine.on(Event::Closed(Place::Port(1)));
    machine.slots.guest().functions.push(slot("1:0:0"));
    machine.remove(&["1:0:0"], false, 60);
    assert_eq!(machine.pressed(), [1, 1, 1]);
}

#[test]
fn what_a_host_says_late_is_not_about_the_next_card() {
    let mut machine = Machine::new(&["1:0:0", "0:8:0"]);
    for text in ["1:0:0", "0:8:0"] {
        for event in [HostEvent::Request, HostEvent::Error] {
            let before = Listed { device: "what was there before".to_owned(), ..listed(&slot(text)) };
            machine.on(Event::Host(before, event));
        }
    }
    assert_eq!((machine.pressed(), machine.closing()), (vec![], vec![]));
    assert!(machine.slots.guest().stopped.borrow().is_empty());
}

#[test]
fn force_takes_at_once_even_what_the_guest_was_asked_for() {
    let mut machine = Machine::new(&["1:0:0", "2:0:0"]);
    let patient = machine.remove(&["1:0:0"], false, 10);
    let forced = machine.remove(&["1:0:0"], true, 10);
    let other = machine.remove(&["2:0:0"], true, 10);
    assert_eq!((machine.closing(), machine.pressed()), (vec![Place::Port(1), Place::Port(2)], vec![1]));
    machine.on(Event::Closed(Place::Port(2)));
    machine.on(Event::Closed(Place::Port(1)));
    assert_eq!([removed(&patient), removed(&forced), removed(&other)], [(1, true); 3]);
}

#[test]
fn what_cannot_be_is_refused() {
    use RefusalKind::{Busy, Empty, NoHotplug, Occupied, Partial};
    let mut machine = Machine::new(&["0:8:0", "1:0:0", "1:0:1", "9:0:0"]);
    for (slots, want, part) in [
        (&["0:8:0"][..], NoHotplug, "bus 0, on which nothing comes or goes"),
        (&["9:0:0"], NoHotplug, "a root bus"),
        (&["1:0:0"], Partial, "remove 1:0:0 1:0:1"),
        (&["1:0:0", "2:0:0"], Partial, "one device at a time"),
        (&["2:0:0"], Empty, "2:0:0 is empty"),
        (&["1:0:0", "1:0:1", "1:0:2"], Empty, "1:0:2 is empty"),
        (&["1:3:0"], Empty, "1:0:0"),
    ] {
        let refusal = machine.remove(slots, true, 1).try_recv().unwrap().unwrap_err();
        assert_eq!(refusal.kind, want, "{slots:?}");
        assert!(refusal.message.contains(part), "{refusal}");
    }
    for (functions, want) in [
        (&["0:9:0=sim:demo"][..], NoHotplug),
        (&["1:0:2=sim:demo"], Occupied),
        (&["2:0:0=sim:demo", "1:0:0=sim:demo"], Partial),
        (&["2:1:0=sim:demo"], Empty),
    ] {
        assert_eq!(refusal(&machine.add(functions)), want, "{functions:?}");
    }
    let adding = machine.add(&["2:0:0=sim:demo"]);
    assert_eq!((machine.state(2), refusal(&machine.add(&["2:0:0=sim:demo"]))), (PortState::Adding, Busy));
    assert_eq!(refusal(&machine.remove(&["2:0:0"], true, 1)), Busy);
    machine.on(Event::Added(2, Err(Refusal::new(RefusalKind::Device, "no"))));
    assert_eq!((refusal(&adding), machine.state(2)), (RefusalKind::Device, PortState::Empty));
    assert_eq!(machine.closing(), []);
}

#[test]
fn what_is_added_is_listed() {
    let mut machine = Machine::new(&[]);
    let adding = machine.add(&["2:0:0=sim:demo"]);
    let added = vec![Listed { slot: slot("2:0:0"), device: "sim:demo".to_owned() }];
    machine.slots.guest().functions.push(slot("2:0:0"));
    machine.on(Event::Added(2, Ok(added.clone())));
    assert_eq!(adding.try_recv().unwrap(), Ok(Outcome::Added { added }));
    assert_eq!(machine.state(2), PortState::On);
}

#[test]
fn what_the_guest_was_asked_for_goes_with_its_reset() {
    let mut machine = Machine::new(&["1:0:0", "2:0:0"]);
    let answer = machine.remove(&["1:0:0"], false, 10);
    machine.on(Event::Reset);
    machine.on(Event::Closed(Place::Port(1)));
    assert_eq!(removed(&answer), (1, false));
    assert_eq!(machine.closing(), [Place::Port(1)]);
    let Ok(Outcome::Status(status)) = machine.command(Command::Status {}).recv().unwrap() else { panic!() };
    assert_eq!((status.resets, status.functions), (1, 1));
}

#[test]
fn the_host_gets_back_what_it_wants() {
    let root = Place::Root(slot("0:8:0"));
    for (policy, pressed, at_once, later) in [
        (OnRequest::Ask(Duration::from_secs(10)), &[1][..], &[root][..], &[root, Place::Port(1)][..]),
        (OnRequest::Take, &[], &[root, Place::Port(1)], &[root, Place::Port(1)]),
        (OnRequest::Stop, &[], &[], &[]),
    ] {
        let policy = EventPolicy { request: policy, ..EventPolicy::default() };
        let mut machine = Machine::with(&["0:8:0", "0:8:1", "1:0:0", "1:0:1"], policy);
        for text in ["0:8:0", "1:0:1", "3:0:0"] {
            machine.host(text, HostEvent::Request);
        }
        assert_eq!(
            (machine.pressed(), machine.closing()),
            (pressed.to_vec(), at_once.to_vec()),
            "{policy:?}"
        );
        // The host says so again and again, which does not put the end off.
        machine.pass(9);
        for text in ["0:8:0", "1:0:1"] {
            machine.host(text, HostEvent::Request);
        }
        machine.pass(1);
        assert_eq!((machine.pressed(), machine.closing()), (pressed.to_vec(), later.to_vec()), "{policy:?}");
        let stopped = machine.slots.guest().stopped.borrow().len();
        assert_eq!(stopped > 0, policy.request == OnRequest::Stop);
    }
}

#[test]
fn a_guest_lets_go_of_what_the_host_wants_before_it_is_taken() {
    let mut machine = Machine::new(&["1:0:0"]);
    let answer = machine.remove(&["1:0:0"], false, 60);
    machine.host("1:0:0", HostEvent::Request);
    assert_eq!(machine.slots.deadline(), Some(machine.now + Duration::from_secs(10)));
    machine.pass(9);
    machine.power_off(1);
    machine.on(Event::Closed(Place::Port(1)));
    assert_eq!(removed(&answer), (1, false));

    let mut machine = Machine::new(&["1:0:0"]);
    machine.slots.guest().unpowered.push(1);
    machine.host("1:0:0", HostEvent::Request);
    assert_eq!((machine.closing(), machine.pressed()), (vec![Place::Port(1)], vec![]));
}

#[test]
fn errors_are_dealt_with_as_asked() {
    for (policy, stops, signals) in
        [(OnError::Stop, true, false), (OnError::Log, false, false), (OnError::Pass, false, true)]
    {
        let policy = EventPolicy { error: policy, ..EventPolicy::default() };
        let mut machine = Machine::with(&["0:8:0", "1:0:0"], policy);
        for text in ["0:8:0", "1:0:0", "1:0:0", "5:0:0"] {
            machine.host(text, HostEvent::Error);
        }
        assert!(machine.closing().is_empty());
        let book = machine.slots.guest();
        let (stopped, signalled) = (book.stopped.borrow(), book.signalled.borrow());
        assert_eq!((stopped.len(), signalled.len()), (3 * usize::from(stops), 3 * usize::from(signals)));
        if let Some(Stop::Device { what }) = stopped.first() {
            assert!(what.contains("0:8:0") && what.contains("uncorrectable"), "{what}");
        }
    }
}
