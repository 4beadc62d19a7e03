//! The guest's root ports, and what becomes of their events.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

use devices::pci::RootPort;
use devices::pci::root_port::{PortEvent, PortWindows};
use devices::pci::topology::{PlugError, Topology};
use devices::pci::windows::Plan;
use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use log::debug;
use parking_lot::Mutex;
use passthru::attached::Attached;
use passthru::ports::MsiMessage;
use passthru::space::layout::Windows;

use super::functions::{self, Functions, windows_of};
use super::hotplug::LaterBars;
use crate::slot_map::SlotMap;

/// Told when the guest lets cards be put into the slot behind the port of a bus and be taken out of it, or no longer.
/// Called on a vCPU's thread in the middle of an access, with the port locked: it must not call back into [`RootPorts`],
/// but hand over to another thread.
pub type ExchangeSink = Box<dyn Fn(u8) + Send + Sync>;

/// All root ports, by the bus behind each.
///
/// A port's lock is taken before that of the functions, since its events reach them. So nobody calls a port who holds
/// the functions.
pub struct RootPorts {
    ports: BTreeMap<u8, Arc<RootPort>>,
    reach: Arc<Reach>,
    /// Held while a card comes or goes, and while the guest's firmware would look at the slots: what it finds in them is
    /// whole. Taken before a port's lock.
    exchange: Mutex<()>,
}

/// What a port's events reach.
struct Reach {
    /// Weak: the topology holds the ports.
    topology: OnceLock<Weak<Topology>>,
    functions: Arc<Functions>,
    /// Windows of bus 0's host bridge: nothing behind its ports answers outside them, wherever the guest has the ports'.
    root: Windows,
    exchange: OnceLock<ExchangeSink>,
    vm: Arc<VmFd>,
}

impl RootPorts {
    /// The ports of a slot map, with empty slots, whose interrupts go to `vm`.
    pub fn new(map: &SlotMap, functions: Arc<Functions>, vm: Arc<VmFd>) -> RootPorts {
        let root = windows_of(&map.plan, 0);
        let (topology, exchange) = (OnceLock::new(), OnceLock::new());
        let reach = Arc::new(Reach { topology, functions, root, exchange, vm });
        let port = |bus| {
            let reach = reach.clone();
            (bus, Arc::new(RootPort::new(bus, Box::new(move |event| reach.carry_out(bus, event)))))
        };
        RootPorts { ports: map.ports.iter().map(port).collect(), reach, exchange: Mutex::new(()) }
    }

    /// Says where lookups go; before the guest starts.
    pub fn connect(&self, topology: &Arc<Topology>) {
        let _ = self.reach.topology.set(Arc::downgrade(topology));
    }

    /// Says who is told when cards may come and go; once, before the guest starts.
    pub fn on_exchange(&self, sink: ExchangeSink) {
        let _ = self.reach.exchange.set(sink);
    }

    /// The ports, by the bus behind each.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Arc<RootPort>)> {
        self.ports.iter().map(|(bus, port)| (*bus, port))
    }

    /// The port that `bus` is behind.
    pub fn port(&self, bus: u8) -> Option<&Arc<RootPort>> {
        self.ports.get(&bus)
    }

    /// All ports back to their state after power-on. The functions behind them are reset by the caller.
    pub fn reset(&self) {
        for port in self.ports.values() {
            port.reset();
        }
    }

    /// What firmware would do before the guest starts: gives the ports bus numbers and the planned windows, the slots
    /// those cards that the functions are, and the functions their addresses, by [`functions::place`].
    pub fn place(&self, plan: &Plan, later: &LaterBars) {
        let _whole = self.exchange.lock();
        let full = self.reach.functions.buses();
        for (bus, windows) in plan.ports() {
            let Some(port) = self.ports.get(bus) else { continue };
            port.set_present(full.contains(bus));
            port.reset();
            port.preset(*bus, windows);
        }
        functions::place(&self.reach.functions, plan, &later.lock());
    }

    /// Puts a card into the slot of `bus`: functions that were attached with [`Windows::default`], on device 0 of the
    /// bus. From here on the guest may turn the slot's power on and use them; it is told.
    pub fn insert(&self, bus: u8, card: Vec<Attached>) -> Result<(), PlugError> {
        let _whole = self.exchange.lock();
        let topology = self.topology();
        let mut plugged = Vec::new();
        for function in &card {
            let Some(topology) = &topology else { break };
            if let Err(error) = topology.plug(function.slot(), function.config()) {
                plugged.into_iter().for_each(|slot| drop(topology.unplug(slot)));
                return Err(error);
            }
            plugged.push(function.slot());
        }
        self.reach.functions.add(card);
        if let Some(port) = self.ports.get(&bus) {
            port.set_present(true);
        }
        Ok(())
    }

    /// Takes the card out of the slot of `bus`, whether the guest has let go of it or not, and gives its functions back,
    /// to be detached. The guest no longer reaches them, and is told that they are gone.
    pub fn remove(&self, bus: u8) -> Vec<Attached> {
        let _whole = self.exchange.lock();
        if let Some(port) = self.ports.get(&bus) {
            port.set_present(false);
        }
        let card = self.reach.functions.take(bus);
        if let Some(topology) = self.topology() {
            card.iter().for_each(|function| drop(topology.unplug(function.slot())));
        }
        card
    }

    fn topology(&self) -> Option<Arc<Topology>> {
        self.reach.topology.get().and_then(Weak::upgrade)
    }
}

impl Reach {
    fn carry_out(&self, bus: u8, event: PortEvent) {
        match event {
            PortEvent::Buses(buses) => {
                if let Some(topology) = self.topology.get().and_then(Weak::upgrade) {
                    topology.set_buses(bus, buses);
                }
            }
            PortEvent::Windows(windows) => {
                let windows = Arc::new(within(&self.root, &windows));
                self.functions.behind(bus, |functions| {
                    functions.for_each(|function| function.set_windows(windows.clone()));
                });
            }
            PortEvent::LinkDown => self.functions.behind(bus, |functions| {
                // Not waited for: they answer nothing until they are done.
                drop(Attached::begin_resets(functions));
            }),
            PortEvent::Exchange(_) => {
                if let Some(sink) = self.exchange.get() {
                    sink(bus);
                }
            }
            PortEvent::Interrupt(message) => self.interrupt(bus, message),
        }
    }

    fn interrupt(&self, bus: u8, MsiMessage { address, data }: MsiMessage) {
        let message = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..kvm_msi::default()
        };
        // The guest says where it goes, so it can be nowhere.
        if let Err(error) = self.vm.signal_msi(message) {
            debug!("KVM_SIGNAL_MSI of bus {bus}'s root port, {address:#x} = {data:#x}: {error}");
        }
    }
}

/// What of a port's windows its host bridge forwards.
fn within(root: &Windows, port: &PortWindows) -> Windows {
    let clip = |root: &[Range<u64>], window: &Range<u64>| -> Vec<Range<u64>> {
        let common = |root: &Range<u64>| root.start.max(window.start)..root.end.min(window.end);
        root.iter().map(common).filter(|common| !common.is_empty()).collect()
    };
    let memory = port.memory.iter().chain(&port.prefetchable);
    Windows {
        memory: memory.flat_map(|window| clip(&root.memory, window)).collect(),
        io: port.io.iter().flat_map(|window| clip(&root.io, window)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_forward_what_reaches_them() {
        let root = Windows {
            memory: vec![0xc000_0000..0xe000_0000, 0x1_0000_0000..0x10_0000_0000],
            io: vec![0x1000..0x1_0000],
        };
        for (io, memory, prefetchable, want_io, want_memory) in [
            (None, None, None, vec![], vec![]),
            (
                Some(0x2000..0x3000),
                Some(0xc400_0000..0xc800_0000),
                Some(0x2_0000_0000..0x3_0000_0000),
                vec![0x2000..0x3000],
                vec![0xc400_0000..0xc800_0000, 0x2_0000_0000..0x3_0000_0000],
            ),
            // Over RAM, ECAM and what else is below and above.
            (
                Some(0..0x1_0000),
                Some(0..1 << 32),
                None,
                vec![0x1000..0x1_0000],
                vec![0xc000_0000..0xe000_0000],
            ),
            (None, Some(0xe000_0000..0xf000_0000), Some(0..u64::MAX), vec![], root.memory.clone()),
        ] {
            let port = PortWindows { io, memory, prefetchable };
            assert_eq!(within(&root, &port), Windows { memory: want_memory, io: want_io }, "{port:x?}");
        }
    }
}
