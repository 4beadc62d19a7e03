//! Which function is in which slot, and where the guest finds it.

mod builder;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::ops::RangeInclusive;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use passthru::pci::{ConfigAccess, Slot};

pub use builder::Builder;
pub use view::RoutesView;

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
    /// The bus number that the slots of each bus have, whatever number the guest gave it.
    numbers: Box<[u8; 256]>,
}

/// Who is told of new routes.
type Watcher = Box<dyn Fn(&Routes) + Send + Sync>;

struct State {
    watcher: Option<Watcher>,
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

fn set(bus: &mut Bus, slot: Slot, function: Option<Function>) -> Option<Function> {
    let entry = bus.get_mut(usize::from(slot.devfn()))?;
    std::mem::replace(entry, function)
}

impl State {
    /// A host bridge takes the accesses to its own bus before any port does; of ports that the guest gave the same
    /// bus, the first one takes them.
    fn routes(&self) -> Routes {
        let mut buses = self.roots.clone();
        let mut numbers = Box::new(std::array::from_fn(|bus| bus as u8));
        for (number, port) in &self.ports {
            // Only the secondary bus has somebody on it: there are no bridges behind a port.
            let Some(secondary) = port.buses.as_ref().map(|buses| usize::from(*buses.start())) else {
                continue;
            };
            if let (Some(entry @ None), Some(named)) = (buses.get_mut(secondary), numbers.get_mut(secondary))
            {
                *entry = Some(port.functions.clone());
                *named = *number;
            }
        }
        Routes { buses, numbers }
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

    /// The function that answers configuration accesses to `place`, and its slot: another one than `place` where the guest
    /// has moved the bus behind a port.
    #[inline]
    pub fn reach(&self, place: Slot) -> Option<(Slot, &Function)> {
        let function = self.get(place)?;
        let bus = *self.numbers.get(usize::from(place.bus()))?;
        Some((Slot::from_requester_id(u16::from_be_bytes([bus, place.devfn()])), function))
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
    /// A topology to be filled; the host bridge at [`HOST_BRIDGE`](super::slots::HOST_BRIDGE) comes by itself.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where the guest finds which function now. To be held for an access, not longer: what was unplugged meanwhile
    /// is held with it.
    #[inline]
    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Calls `changed` with where the guest finds the functions, and again after each change, before what brought the change
    /// about returns. One call at a time, in the order of the changes, with the topology locked: it must not change it.
    pub fn watch(&self, changed: impl Fn(&Routes) + Send + Sync + 'static) {
        let mut state = self.state.lock();
        changed(&self.routes.load());
        state.watcher = Some(Box::new(changed));
    }

    fn change(&self, state: &State) {
        let routes = Arc::new(state.routes());
        self.routes.store(routes.clone());
        if let Some(changed) = &state.watcher {
            changed(&routes);
        }
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
            self.change(&state);
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
        self.change(&state);
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
        self.change(&state);
        Some(function)
    }

    /// Takes a function from behind a port and gives it back; an access that is under way may still reach it.
    pub fn unplug(&self, slot: Slot) -> Option<Function> {
        let mut state = self.state.lock();
        let port = state.port(slot.bus())?;
        let mut functions = Bus::clone(&port.functions);
        let function = set(&mut functions, slot, None)?;
        port.functions = Arc::new(functions);
        self.change(&state);
        Some(function)
    }
}
