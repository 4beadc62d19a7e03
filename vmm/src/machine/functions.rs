//! The functions in the guest's slots: opened, attached, and given addresses.

use std::sync::Arc;

use devices::pci::slots;
use devices::pci::topology::Topology;
use devices::pci::windows::Plan;
use log::{info, warn};
use passthru::attached::Attached;
use passthru::function::Shape;
use passthru::host::HostFunction;
use passthru::host::simulated::SimulatedFunction;
use passthru::host::vfio::{Container, VfioFunction};
use passthru::pci::Slot;
use passthru::ports::Ports;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

use super::error::MachineError;
use crate::slot_map::{Found, SlotMap};

/// All functions of the slot map in their slots, or none: what was attached before a failure is detached again.
pub fn attach(map: &SlotMap, ports: &Ports, require_reset: bool) -> Result<Vec<Attached>, MachineError> {
    let slots = map.slots();
    let space = Arc::new(AddressSpace::new(ports.memory.clone()));
    let mut container: Option<Arc<Container>> = None;
    let mut attached = Vec::new();
    for (slot, found) in &map.functions {
        let host = open(*slot, found, &mut container, ports)?;
        if host.report().reset.is_none() {
            let device = host.name().to_string();
            if require_reset {
                return Err(MachineError::NoReset { slot: *slot, device });
            }
            warn!(
                "slot {slot}: {device} has no way to be reset that this host knows: the guest finds it as its last user \
                 left it (--require-reset refuses such functions)"
            );
        }
        let shape = Shape { multi_function: slots::is_multi_function(&slots, *slot) };
        let windows = Arc::new(windows_of(&map.plan, slot.bus()));
        let function = Attached::new(host, *slot, shape, space.clone(), windows)
            .map_err(|source| MachineError::Attach { slot: *slot, source })?;
        info!("slot {slot}: {}", function.host().name());
        attached.push(function);
    }
    Ok(attached)
}

fn open(
    slot: Slot,
    found: &Found,
    container: &mut Option<Arc<Container>>,
    ports: &Ports,
) -> Result<Arc<dyn HostFunction>, MachineError> {
    match found {
        Found::Simulated(name) => SimulatedFunction::new(name, slot, ports.clone())
            .map(|function| Arc::new(function) as Arc<dyn HostFunction>)
            .map_err(|source| MachineError::Simulated { slot, source }),
        Found::Host(function) => {
            let error = |source| MachineError::Open { slot, source };
            let container = match container {
                Some(container) => container,
                none => none.insert(Container::open(ports.clone()).map_err(error)?),
            };
            let function = VfioFunction::open(container, function, slot).map_err(error)?;
            Ok(Arc::new(function))
        }
    }
}

fn windows_of(plan: &Plan, bus: u8) -> Windows {
    let windows = plan.buses().iter().find(|windows| windows.bus == bus);
    windows.map_or_else(Windows::default, |windows| Windows {
        memory: windows.memory32.iter().chain(&windows.memory64).cloned().collect(),
        io: windows.io.iter().cloned().collect(),
    })
}

/// Where the guest's decoders find the functions, and the host bridge at 0:0:0.
pub fn topology(functions: &[Attached]) -> Result<Topology, MachineError> {
    let mut builder = Topology::builder();
    for function in functions {
        builder.add(function.slot(), function.config());
    }
    builder
        .build()
        .map_err(|conflicts| MachineError::SlotMap(conflicts.into_iter().map(Into::into).collect()))
}

/// Puts the planned addresses into the BARs, with decoding off, as firmware would.
pub fn place(functions: &[Attached], plan: &Plan) {
    for function in functions {
        for bar in plan.bars_of(function.slot()) {
            function.assign(bar.index, bar.address);
        }
    }
}

/// All functions back to their state after power-on. One that fails to reset is as silent as the others, but the guest
/// finds it as it left it.
pub fn reset(functions: &[Attached]) {
    for function in functions {
        if let Err(error) = function.reset() {
            warn!("slot {}: {error}; the guest finds the function as it left it", function.slot());
        }
    }
}
