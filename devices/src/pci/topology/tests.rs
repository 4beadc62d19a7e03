use super::*;
use crate::pci::slots::HOST_BRIDGE;

/// A function whose registers read as its own id, and that keeps the accesses it got.
#[derive(Default)]
pub(crate) struct Probe {
    pub(crate) id: u8,
    pub(crate) reads: Mutex<Vec<(u16, usize)>>,
    pub(crate) writes: Mutex<Vec<(u16, Vec<u8>)>>,
}

impl Probe {
    pub(crate) fn new(id: u8) -> Arc<Probe> {
        Arc::new(Probe { id, ..Probe::default() })
    }
}

impl ConfigAccess for Probe {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        assert!(offset < 4096 && matches!(data.len(), 1 | 2 | 4), "{offset} {}", data.len());
        assert!(usize::from(offset & 3) + data.len() <= 4, "crosses a dword: {offset} {}", data.len());
        self.reads.lock().push((offset, data.len()));
        data.fill(self.id);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        assert!(offset < 4096 && matches!(data.len(), 1 | 2 | 4), "{offset} {}", data.len());
        assert!(usize::from(offset & 3) + data.len() <= 4, "crosses a dword: {offset} {}", data.len());
        self.writes.lock().push((offset, data.to_vec()));
    }
}

fn slot(text: &str) -> Slot {
    text.parse().unwrap()
}

fn builder(functions: &[(&str, Arc<Probe>)]) -> Builder {
    let mut builder = Topology::builder();
    for (text, function) in functions {
        builder.add(slot(text), function.clone());
    }
    builder
}

pub(crate) fn topology(functions: &[(&str, Arc<Probe>)]) -> Topology {
    builder(functions).build().unwrap()
}

fn first_byte(function: &Function) -> u8 {
    let mut data = [0];
    function.config_read(0, &mut data);
    data[0]
}

fn found(topology: &Topology) -> Vec<(String, u8)> {
    topology.routes().iter().map(|(slot, function)| (slot.to_string(), first_byte(function))).collect()
}

fn named<const N: usize>(expected: [(&str, u8); N]) -> Vec<(String, u8)> {
    expected.map(|(slot, id)| (slot.to_owned(), id)).to_vec()
}

#[test]
fn lookup_and_order() {
    let built = topology(&[
        ("3:5:0", Probe::new(4)),
        ("0:8:1", Probe::new(2)),
        ("255:31:0", Probe::new(5)),
        ("0:8:0", Probe::new(1)),
        ("3:0:0", Probe::new(3)),
    ]);
    let expected = [("0:0:0", 0x36), ("0:8:0", 1), ("0:8:1", 2), ("3:0:0", 3), ("3:5:0", 4), ("255:31:0", 5)];
    assert_eq!(found(&built), named(expected));
    assert_eq!(built.slots(), expected.map(|(text, _)| slot(text)));

    for (text, id) in [("0:8:1", Some(2)), ("0:8:2", None), ("1:8:0", None), ("255:31:0", Some(5))] {
        assert_eq!(built.routes().get(slot(text)).map(first_byte), id, "{text}");
    }
}

#[test]
fn full() {
    let mut builder = Topology::builder();
    for id in 1..=u16::MAX {
        builder.add(Slot::from_requester_id(id), Probe::new(id as u8));
    }
    let built = builder.build().unwrap();
    let routes = built.routes();
    assert_eq!(routes.iter().count(), 1 << 16);
    assert!(routes.iter().skip(1).all(|(slot, function)| first_byte(function) == slot.devfn()));
}

#[test]
fn what_is_withdrawn_from_a_root_bus_is_found_no_more() {
    let built = topology(&[("0:8:0", Probe::new(1)), ("0:8:1", Probe::new(2)), ("3:0:0", Probe::new(3))]);
    assert_eq!(built.withdraw(slot("0:8:0")).as_ref().map(first_byte), Some(1));
    assert!(built.withdraw(slot("0:8:0")).is_none() && built.withdraw(slot("9:0:0")).is_none());
    assert_eq!(found(&built), named([("0:0:0", 0x36), ("0:8:1", 2), ("3:0:0", 3)]));
    assert_eq!(built.slots(), ["0:0:0", "0:8:1", "3:0:0"].map(slot));
}

#[test]
fn who_watches_hears_of_every_change_before_it_is_over() {
    let built = with_ports();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = seen.clone();
    built.watch(move |routes| heard.lock().push(routes.iter().count()));
    built.set_buses(1, Some(1..=1));
    assert_eq!(*seen.lock(), [5, 7]);
    built.plug(slot("1:0:2"), Probe::new(1)).unwrap();
    built.unplug(slot("1:0:0"));
    built.set_buses(1, None);
    built.withdraw(slot("0:8:0"));
    assert_eq!(*seen.lock(), [5, 7, 8, 7, 5, 4]);
    assert!(built.plug(slot("3:0:0"), Probe::new(1)).is_err());
    assert_eq!(seen.lock().len(), 6);
}

#[test]
fn the_host_bridge_shares_its_device() {
    for (functions, header_type) in
        [(&[][..], 0), (&[("0:1:0", Probe::new(1))], 0), (&[("0:0:1", Probe::new(1))], 0x80)]
    {
        let mut data = [0xff];
        topology(functions).routes().get(HOST_BRIDGE).unwrap().config_read(0x0e, &mut data);
        assert_eq!(data, [header_type]);
    }
}

#[test]
fn conflicts_are_refused() {
    let conflicting = builder(&[("0:0:0", Probe::new(1)), ("0:8:1", Probe::new(1))]);
    assert_eq!(conflicting.build().err().map(|conflicts| conflicts.len()), Some(2));
}

fn with_ports() -> Topology {
    let mut builder = builder(&[
        ("0:8:0", Probe::new(1)),
        ("1:0:0", Probe::new(2)),
        ("1:0:1", Probe::new(3)),
        ("9:4:0", Probe::new(4)),
    ]);
    builder.add_port(1, Probe::new(0x11));
    builder.add_port(2, Probe::new(0x12));
    builder.build().unwrap()
}

#[test]
fn functions_are_where_the_guest_has_put_their_bus() {
    let roots = [("0:0:0", 0x36), ("0:8:0", 1), ("0:16:0", 0x11), ("0:17:0", 0x12), ("9:4:0", 4)];
    let built = with_ports();
    assert_eq!(found(&built), named(roots));
    assert_eq!(built.slots().len(), 7);
    for (buses, behind) in [
        (Some(1..=1), &[("1:0:0", Some(2)), ("1:0:1", Some(3)), ("1:0:2", None)][..]),
        (Some(5..=7), &[("5:0:0", Some(2)), ("1:0:0", None), ("6:0:0", None), ("5:1:0", None)]),
        // A host bridge's own bus.
        (Some(9..=9), &[("9:4:0", Some(4)), ("9:0:0", None)]),
        (Some(200..=255), &[("200:0:1", Some(3))]),
        (None, &[("1:0:0", None)]),
    ] {
        built.set_buses(1, buses.clone());
        for (text, id) in behind {
            assert_eq!(built.routes().get(slot(text)).map(first_byte), *id, "{buses:?} {text}");
            // The functions behind the port have ids 2 and 3.
            let named = match id {
                None => None,
                Some(id @ 2..=3) => Some(Slot::from_requester_id(0x100 | u16::from(id - 2))),
                Some(_) => Some(slot(text)),
            };
            assert_eq!(built.routes().reach(slot(text)).map(|(slot, _)| slot), named, "{buses:?} {text}");
        }
        assert_eq!(built.slots().len(), 7);
    }
    built.set_buses(3, Some(3..=3));
    assert_eq!(found(&built), named(roots), "there is no port of bus 3");
}

#[test]
fn two_ports_with_one_bus() {
    let built = with_ports();
    built.plug(slot("2:0:0"), Probe::new(5)).unwrap();
    built.set_buses(2, Some(4..=4));
    built.set_buses(1, Some(4..=4));
    assert_eq!(built.routes().get(slot("4:0:0")).map(first_byte), Some(2));
    assert_eq!(built.routes().reach(slot("4:0:0")).map(|(slot, _)| slot), Some(slot("1:0:0")));
    built.set_buses(1, None);
    assert_eq!(built.routes().get(slot("4:0:0")).map(first_byte), Some(5));
    assert_eq!(built.routes().reach(slot("4:0:0")).map(|(slot, _)| slot), Some(slot("2:0:0")));
}

#[test]
fn functions_come_and_go() {
    let built = with_ports();
    built.set_buses(2, Some(2..=2));
    let card = slot("2:0:0");
    assert!(built.unplug(card).is_none());
    built.plug(card, Probe::new(6)).unwrap();
    let during = built.routes();
    assert_eq!(built.plug(card, Probe::new(7)), Err(PlugError::Taken { slot: card }));
    assert_eq!(built.unplug(card).as_ref().map(first_byte), Some(6));
    assert!(built.routes().get(card).is_none() && built.unplug(card).is_none());
    assert_eq!(during.get(card).map(first_byte), Some(6), "an access that was under way");
    for (text, error) in [
        ("0:9:0", PlugError::NoPort { slot: slot("0:9:0") }),
        ("9:0:0", PlugError::NoPort { slot: slot("9:0:0") }),
        ("2:1:0", PlugError::Device { slot: slot("2:1:0"), zero: card }),
    ] {
        assert_eq!(built.plug(slot(text), Probe::new(1)), Err(error), "{text}");
    }
}

#[test]
fn lookups_see_the_routes_before_or_after_a_change() {
    let built = with_ports();
    built.set_buses(1, Some(5..=7));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            (0..20_000)
                .map(|_| {
                    let routes = built.routes();
                    [slot("5:0:0"), slot("6:0:0")].iter().filter(|slot| routes.get(**slot).is_some()).count()
                })
                .all(|count| count == 1)
        });
        for step in 0u8..200 {
            built.set_buses(1, Some(5 + step % 2..=7));
        }
        assert!(reader.join().unwrap());
    });
}
