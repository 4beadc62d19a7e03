//! The functions in the guest's slots: opened, attached, and given addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use devices::pci::root_port::{LINK_SPEED, LINK_WIDTH};
use devices::pci::slots;
use devices::pci::topology::Topology;
use devices::pci::windows::{PlacedBar, Plan};
use log::info;
use parking_lot::{Mutex, MutexGuard};
use passthru::attached::{Attached, Fresh};
use passthru::function::{Place, Shape};
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

use super::error::MachineError;
use super::hosts::Hosts;
use super::root_ports::RootPorts;
use crate::slot_map::SlotMap;

/// The functions that are in slots now. Those behind root ports come and go while the guest runs.
#[derive(Default)]
pub struct Functions(Mutex<Vec<Attached>>);

impl Functions {
    /// All of them, for as long as they are needed. Meanwhile nobody may call a root port.
    pub fn lock(&self) -> MutexGuard<'_, Vec<Attached>> {
        self.0.lock()
    }

    /// More of them.
    pub fn add(&self, functions: Vec<Attached>) {
        self.0.lock().extend(functions);
    }

    /// Takes those of one bus away.
    pub fn take(&self, bus: u8) -> Vec<Attached> {
        self.0.lock().extract_if(.., |function| function.slot().bus() == bus).collect()
    }

    /// What is to be done with those of one bus.
    pub fn behind(&self, bus: u8, act: impl FnOnce(&mut dyn Iterator<Item = &Attached>)) {
        let functions = self.0.lock();
        act(&mut functions.iter().filter(|function| function.slot().bus() == bus));
    }

    /// The buses that have functions.
    pub fn buses(&self) -> BTreeSet<u8> {
        self.0.lock().iter().map(|function| function.slot().bus()).collect()
    }
}

/// Where a function behind a root port stands: both ends of its link say the same of it.
pub const BEHIND_PORT: Place = Place::BehindPort { speed: LINK_SPEED, width: LINK_WIDTH };

/// All functions of the slot map in their slots, or none: what was attached before a failure is detached again.
pub fn attach(
    map: &SlotMap,
    space: &Arc<AddressSpace>,
    hosts: &Hosts,
) -> Result<Vec<Attached>, MachineError> {
    let slots = map.slots();
    let opened = hosts.open(&map.functions)?;
    // All of them at once, now that all are open: some can only be reset together.
    let fresh = Fresh::all(opened).map_err(MachineError::Reset)?;
    if let Some(records) = hosts.records() {
        let reset = fresh.iter().filter(|function| function.host().report().reset.is_some());
        reset.for_each(|function| records.forget_last_user(function.host().name()));
    }
    let mut attached = Vec::new();
    for ((slot, _), host) in map.functions.iter().zip(fresh) {
        let behind_port = map.ports.contains(slot.bus());
        let place = if behind_port { BEHIND_PORT } else { Place::RootBus };
        let multi_function = slots::is_multi_function(&slots, *slot);
        let shape = Shape { multi_function, place, trap_msix: map.msix_trapped.contains(slot) };
        // What is behind a port answers where the port's registers say.
        let windows = if behind_port { Windows::default() } else { windows_of(&map.plan, slot.bus()) };
        let windows = Arc::new(windows);
        let rom = map.roms.get(slot).cloned();
        let function = Attached::with_rom(host, *slot, shape, rom, space.clone(), windows)
            .map_err(|source| MachineError::Attach { slot: *slot, source })?;
        info!("slot {slot}: {}", function.host().name());
        attached.push(function);
    }
    if let Some(records) = hosts.records() {
        attached.iter().for_each(|function| records.forget_last_user(function.host().name()));
    }
    Ok(attached)
}

/// The windows of a root bus' host bridge.
pub fn windows_of(plan: &Plan, bus: u8) -> Windows {
    let windows = plan.buses().iter().find(|windows| windows.bus == bus);
    windows.map_or_else(Windows::default, |windows| Windows {
        memory: windows.memory32.iter().chain(&windows.memory64).cloned().collect(),
        io: windows.io.iter().cloned().collect(),
    })
}

/// Where the guest's decoders find the functions, the root ports, and the host bridge at 0:0:0.
pub fn topology(functions: &Functions, ports: &RootPorts) -> Result<Topology, MachineError> {
    let mut builder = Topology::builder();
    for function in functions.lock().iter() {
        builder.add(function.slot(), function.config());
    }
    for (bus, port) in ports.iter() {
        builder.add_port(bus, port.clone());
    }
    builder
        .build()
        .map_err(|conflicts| MachineError::SlotMap(conflicts.into_iter().map(Into::into).collect()))
}

/// Puts the planned addresses into the BARs, with decoding off, as firmware would: those of `later`, by bus, where
/// functions were plugged in since the start.
pub fn place(functions: &Functions, plan: &Plan, later: &BTreeMap<u8, Vec<PlacedBar>>) {
    for function in functions.lock().iter() {
        let slot = function.slot();
        let bars = later.get(&slot.bus()).map_or(plan.bars_of(slot), Vec::as_slice);
        for bar in bars.iter().filter(|bar| bar.slot == slot) {
            function.assign(bar.index, bar.address);
        }
    }
}
