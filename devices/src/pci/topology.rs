//! Which function is in which slot, and where the guest finds it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use passthru::pci::{ConfigAccess, Slot};

use super::host_bridge::HostBridge;
use super::ports::{PortBuses, root_port_slot};
use super::slots::{self, HOST_BRIDGE, SlotConflict};

/// A function, as decoders reach it.
pub type Function = Arc<dyn ConfigAccess>;

/// Functions by device and function number.
type Bus = [Option<Function>; 256];

fn empty_bus() -> Bus {
    [const { None }; 256]
}

/// All functions of the guest, the host bridge and the root ports among them.
///
/// Functions on root buses are where their slot says. Those behind a port are on whichever bus the guest has made the
/// port's secondary one, and come and go while the guest runs. So lookups go through [`Routes`], which are made anew at
/// each change and swapped: a lookup takes no lock.
pub struct Topology {
    routes: ArcSwap<Routes>,
    /// Held while new routes are made.
    state: Mutex<State>,
}

/// Where the guest finds which function, at one moment.
pub struct Routes {
    buses: Box<[Option<Arc<Bus>>; 256]>,
}

struct State {
    roots: Box<[Option<Arc<Bus>>; 256]>,
    /// By the bus number of the slots behind each.
    ports: Vec<(u8, BehindPort)>,
}

/// What is behind one port.
struct BehindPort {
    functions: Arc<Bus>,
    /// Which buses the guest finds there.
    buses: Option<RangeInclusive<u8>>,
}

/// Why a function cannot be plugged in or unplugged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    /// No port leads there.
    #[error("slot {slot} is not behind a root port; only slots of ports can change while a guest runs")]
    NoPort {
        /// The slot.
        slot: Slot,
    },
    /// A function is there.
    #[error("slot {slot} is taken; remove what is there first")]
    Taken {
        /// The slot.
        slot: Slot,
    },
    /// A port's link leads to one device.
    #[error("slot {slot}: a root port leads to one device, which is slot {zero}")]
    Device {
        /// The slot.
        slot: Slot,
        /// Function 0 of the device that can be there.
        zero: Slot,
    },
}

/// Collects functions for a [`Topology`].
#[derive(Default)]
pub struct Builder {
    functions: Vec<(Slot, Function)>,
    ports: Vec<(u8, Function)>,
}

impl Builder {
    /// Puts `function` at `slot`.
    pub fn add(&mut self, slot: Slot, function: Function) {
        self.functions.push((slot, function));
    }

    /// Makes `bus` (1 to 15) the bus behind a root port, which goes to [`root_port_slot`] of it.
    pub fn add_port(&mut self, bus: u8, port: Function) {
        self.ports.push((bus, port));
    }

    /// The topology, or everything that [`slots::check`] has against it. No port leads anywhere yet.
    pub fn build(self) -> Result<Topology, Vec<SlotConflict>> {
        let slots: Vec<Slot> = self.functions.iter().map(|(slot, _)| *slot).collect();
        let ports = PortBuses::from_iter(self.ports.iter().map(|(bus, _)| *bus));
        slots::check(&slots, ports)?;

        let mut buses: Box<[Option<Box<Bus>>; 256]> = Box::new([const { None }; 256]);
        let mut put = |slot: Slot, function: Function| {
            if let Some(bus) = buses.get_mut(usize::from(slot.bus())) {
                set(bus.get_or_insert_with(|| Box::new(empty_bus())), slot, Some(function));
            }
        };
        let host_bridge = HostBridge::new(slots::is_multi_function(&slots, HOST_BRIDGE));
        put(HOST_BRIDGE, Arc::new(host_bridge));
        for (bus, port) in self.ports {
            if let Some(slot) = root_port_slot(bus) {
                put(slot, port);
            }
        }
        for (slot, function) in self.functions {
            put(slot, function);
        }
        let mut roots = Box::new([const { None }; 256]);
        let mut behind = Vec::new();
        for (number, bus) in (0..=u8::MAX).zip(*buses) {
            let bus = bus.map(Arc::from);
            if ports.contains(number) {
                let functions = bus.unwrap_or_else(|| Arc::new(empty_bus()));
                behind.push((number, BehindPort { functions, buses: None }));
            } else if let Some(root) = roots.get_mut(usize::from(number)) {
                *root = bus;
            }
        }
        let state = State { roots, ports: behind };
        Ok(Topology { routes: ArcSwap::from_pointee(state.routes()), state: Mutex::new(state) })
    }
}

fn set(bus: &mut Bus, slot: Slot, function: Option<Function>) -> Option<Function> {
    let entry = bus.get_mut(usize::from(slot.devfn()))?;
    std::mem::replace(entry, function)
}

impl State {
    /// A host bridge takes the accesses to its own bus before any port does; of ports that the guest gave the same
    /// bus, the first one takes them.
    fn routes(&self) -> Routes {
        let mut buses = self.roots.clone();
        for (_, port) in &self.ports {
            // Only the secondary bus has somebody on it: there are no bridges behind a port.
            let secondary = port.buses.as_ref().map(|buses| *buses.start());
            if let Some(entry) = secondary.and_then(|bus| buses.get_mut(usize::from(bus)))
                && entry.is_none()
            {
                *entry = Some(port.functions.clone());
            }
        }
        Routes { buses }
    }

    fn port(&mut self, bus: u8) -> Option<&mut BehindPort> {
        self.ports.iter_mut().find(|(number, _)| *number == bus).map(|(_, port)| port)
    }
}

impl Routes {
    /// The function that answers configuration accesses to `slot`.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&Function> {
        let bus = self.buses.get(usize::from(slot.bus()))?.as_deref()?;
        bus.get(usize::from(slot.devfn()))?.as_ref()
    }

    /// All functions that the guest can find, by bus, device and function.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Function)> {
        (0..=u8::MAX).zip(self.buses.iter()).flat_map(|(bus, functions)| {
            let functions = (0..=u8::MAX).zip(functions.iter().flat_map(|functions| functions.iter()));
            functions.filter_map(move |(devfn, function)| {
                Some((Slot::from_requester_id(u16::from_be_bytes([bus, devfn])), function.as_ref()?))
            })
        })
    }
}

impl Topology {
    /// A topology to be filled; the host bridge at [`HOST_BRIDGE`] comes by itself.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where the guest finds which function now. To be held for an access, not longer: what was unplugged meanwhile
    /// is held with it.
    #[inline]
    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// The slots of all functions, by bus, device and function. Those behind ports are named as they were given,
    /// wherever the guest finds them.
    pub fn slots(&self) -> Vec<Slot> {
        let state = self.state.lock();
        let roots =
            (0..=u8::MAX).zip(state.roots.iter()).filter_map(|(number, bus)| Some((number, bus.as_ref()?)));
        let behind = state.ports.iter().map(|(number, port)| (*number, &port.functions));
        let slots = roots.chain(behind).flat_map(|(number, bus)| {
            let taken = (0..=u8::MAX).zip(bus.iter()).filter(|(_, function)| function.is_some());
            taken.map(move |(devfn, _)| Slot::from_requester_id(u16::from_be_bytes([number, devfn])))
        });
        let mut slots: Vec<Slot> = slots.collect();
        slots.sort_unstable();
        slots
    }

    /// The guest finds the bus behind the port of `bus` on `buses` from now on, or nowhere. For [`PortEvent::Buses`].
    ///
    /// [`PortEvent::Buses`]: super::root_port::PortEvent::Buses
    pub fn set_buses(&self, bus: u8, buses: Option<RangeInclusive<u8>>) {
        let mut state = self.state.lock();
        if let Some(port) = state.port(bus) {
            port.buses = buses;
            self.routes.store(Arc::new(state.routes()));
        }
    }

    /// Puts a function behind a port. The guest finds it once the port's link is up.
    pub fn plug(&self, slot: Slot, function: Function) -> Result<(), PlugError> {
        let mut state = self.state.lock();
        let port = state.port(slot.bus()).ok_or(PlugError::NoPort { slot })?;
        if slot.device() != 0 {
            let zero = Slot::from_requester_id(u16::from(slot.bus()) << 8);
            return Err(PlugError::Device { slot, zero });
        }
        let mut functions = Bus::clone(&port.functions);
        if set(&mut functions, slot, Some(function)).is_some() {
            return Err(PlugError::Taken { slot });
        }
        port.functions = Arc::new(functions);
        self.routes.store(Arc::new(state.routes()));
        Ok(())
    }

    /// Takes a function from a root bus for good, where there is no hot-plug: the guest finds nothing in its place, without
    /// being told.
    pub fn withdraw(&self, slot: Slot) -> Option<Function> {
        let mut state = self.state.lock();
        let root = state.roots.get_mut(usize::from(slot.bus()))?.as_mut()?;
        let mut functions = Bus::clone(root);
        let function = set(&mut functions, slot, None)?;
        *root = Arc::new(functions);
        self.routes.store(Arc::new(state.routes()));
        Some(function)
    }

    /// Takes a function from behind a port and gives it back; an access that is under way may still reach it.
    pub fn unplug(&self, slot: Slot) -> Option<Function> {
        let mut state = self.state.lock();
        let port = state.port(slot.bus())?;
        let mut functions = Bus::clone(&port.functions);
        let function = set(&mut functions, slot, None)?;
        port.functions = Arc::new(functions);
        self.routes.store(Arc::new(state.routes()));
        Some(function)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
        let expected =
            [("0:0:0", 0x36), ("0:8:0", 1), ("0:8:1", 2), ("3:0:0", 3), ("3:5:0", 4), ("255:31:0", 5)];
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
        built.set_buses(1, None);
        assert_eq!(built.routes().get(slot("4:0:0")).map(first_byte), Some(5));
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
                        [slot("5:0:0"), slot("6:0:0")]
                            .iter()
                            .filter(|slot| routes.get(**slot).is_some())
                            .count()
                    })
                    .all(|count| count == 1)
            });
            for step in 0u8..200 {
                built.set_buses(1, Some(5 + step % 2..=7));
            }
            assert!(reader.join().unwrap());
        });
    }
}
