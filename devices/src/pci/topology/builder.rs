//! A topology, function by function, before the guest starts.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use passthru::pci::Slot;

use super::{BehindPort, Bus, Function, State, Topology, empty_bus, set};
use crate::pci::host_bridge::HostBridge;
use crate::pci::ports::{PortBuses, root_port_slot};
use crate::pci::slots::{self, HOST_BRIDGE, SlotConflict};

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
        let state = State { watcher: None, roots, ports: behind };
        Ok(Topology { routes: ArcSwap::from_pointee(state.routes()), state: Mutex::new(state) })
    }
}
