//! What is done to the machine when functions come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use devices::acpi_pm::Pm1;
use devices::pci::root_port::PortWindows;
use devices::pci::topology::Topology;
use devices::pci::windows::{Available, PlanError, WindowKind};
use log::{error, info, warn};
use passthru::attached::Attached;
use passthru::host::HostFunction;
use passthru::pci::Slot;
use passthru::space::AddressSpace;

use super::slots::{Event, Guest, Place};
use super::{LaterBars, Message};
use crate::control::{Control, Stop};
use crate::control_socket::protocol::{Listed, Refusal, RefusalKind, Status};
use crate::machine::functions::{self, Functions};
use crate::machine::hosts::{self, Hosts};
use crate::machine::root_ports::RootPorts;
use crate::machine::vcpu_threads::VcpuThreads;
use crate::port_options::{PortOptions, PortWindow};
use crate::slot_map::{Assignment, SlotMap, SlotMapError};
use crate::{layout, wording};

/// How long a function that has left the guest may be held by a vCPU that has it in its view of the bus.
const LETTING_GO: Duration = Duration::from_secs(10);
/// How often the vCPUs are kicked meanwhile.
const KICK: Duration = Duration::from_millis(2);
/// How long a card is kept back from a slot whose power or power indicator is on. Linux takes a second from a card's
/// sudden end to that, and what its drivers need before it.
const DONE_WITH_SLOT: Duration = Duration::from_secs(15);
/// How often the slot is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// What of the machine is needed to plug functions in and to take them away.
pub struct Machinery {
    /// The root ports.
    pub root_ports: Arc<RootPorts>,
    /// The functions that are in slots.
    pub functions: Arc<Functions>,
    /// Where the guest finds them.
    pub topology: Arc<Topology>,
    /// Opens them.
    pub hosts: Hosts,
    /// Where their BARs answer.
    pub space: Arc<AddressSpace>,
    /// The windows of each port, by the bus behind it.
    pub windows: Vec<(u8, PortWindows)>,
    /// Whose views of the bus hold what they accessed last.
    pub vcpus: Arc<VcpuThreads>,
    /// Stops the guest.
    pub control: Arc<Control>,
    /// The registers that have the power button.
    pub power: Arc<Pm1>,
    /// How the machine is, but for what changes.
    pub status: Status,
    /// The machine ends: nobody waits for the guest any more.
    pub ending: AtomicBool,
}

/// Carries out what is decided.
pub struct Cards {
    machinery: Arc<Machinery>,
    later: LaterBars,
    sender: Sender<Message>,
    /// Threads that open or close functions.
    workers: Vec<JoinHandle<()>>,
}

/// Lets the thread that decides hear what the host tells of a function.
pub(super) fn listen(host: &Arc<dyn HostFunction>, slot: Slot, sender: &Sender<Message>) {
    let (sender, device) = (sender.clone(), host.name().to_string());
    let listener = Arc::new(move |event| {
        let function = Listed { slot, device: device.clone() };
        let _ = sender.send(Message::Event(Event::Host(function, event)));
    });
    if let Err(error) = host.listen(listener) {
        warn!("slot {slot}: {error}; what the host tells of this function is not heard");
    }
}

impl Cards {
    pub(super) fn new(machinery: Machinery, later: LaterBars, sender: Sender<Message>) -> Cards {
        Cards { machinery: Arc::new(machinery), later, sender, workers: Vec::new() }
    }

    /// Waits for what was begun.
    pub fn finish(&mut self) {
        self.machinery.ending.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }

    /// Does something that takes time, and then tells of it.
    fn work(&mut self, name: &str, act: impl FnOnce(&Machinery) -> Event + Send + 'static) {
        self.workers.retain(|worker| !worker.is_finished());
        let (machinery, sender) = (self.machinery.clone(), self.sender.clone());
        let run = move || {
            let event = act(&machinery);
            drop(machinery);
            let _ = sender.send(Message::Event(event));
        };
        match Builder::new().name(name.to_owned()).spawn(run) {
            Ok(worker) => self.workers.push(worker),
            // The closure is gone, and what it was to close with it, if not as well as it should.
            Err(source) => {
                error!("a thread to {name} functions: {source}");
                self.machinery.control.stop(Stop::Broken("a thread could not be started"));
            }
        }
    }
}

impl Guest for Cards {
    fn ports(&self) -> Vec<u8> {
        self.machinery.root_ports.iter().map(|(bus, _)| bus).collect()
    }

    fn functions(&self) -> Vec<Listed> {
        let mut functions: Vec<Listed> = self.machinery.functions.lock().iter().map(listed).collect();
        functions.sort_by_key(|function| function.slot);
        functions
    }

    fn is_powered(&self, bus: u8) -> bool {
        self.machinery.root_ports.port(bus).is_some_and(|port| port.is_powered())
    }

    fn permits_exchange(&self, bus: u8) -> bool {
        self.machinery.root_ports.port(bus).is_some_and(|port| port.permits_exchange())
    }

    fn is_blinking(&self, bus: u8) -> bool {
        self.machinery.root_ports.port(bus).is_some_and(|port| port.is_blinking())
    }

    fn press_attention(&self, bus: u8) {
        if let Some(port) = self.machinery.root_ports.port(bus) {
            port.press_attention();
        }
    }

    fn signal_error(&self, slot: Slot) -> bool {
        self.machinery.root_ports.port(slot.bus()).is_some_and(|port| port.signal_error(slot.devfn()))
    }

    fn add(&mut self, bus: u8, functions: Vec<Assignment>) {
        let (later, sender) = (self.later.clone(), self.sender.clone());
        self.work("add", move |machinery| {
            Event::Added(bus, machinery.plug_in(bus, functions, &later, &sender))
        });
    }

    fn close(&mut self, place: Place) {
        // Out of the guest's reach before this returns.
        let card = match place {
            Place::Port(bus) => self.machinery.root_ports.remove(bus),
            Place::Root(slot) => self.machinery.withdraw(slot),
        };
        self.work("close", move |machinery| {
            machinery.close(card);
            Event::Closed(place)
        });
    }

    fn press_power(&self) -> bool {
        self.machinery.power.press_power_button()
    }

    fn stop(&self, cause: Stop) {
        self.machinery.control.stop(cause);
    }

    fn status(&self) -> Status {
        let (functions, ports) = (self.machinery.functions.lock().len(), self.ports().len());
        Status { functions, ports, ..self.machinery.status.clone() }
    }
}

fn listed(function: &Attached) -> Listed {
    Listed { slot: function.slot(), device: function.host().name().to_string() }
}

impl Machinery {
    /// Opens functions, resets them, attaches them with decoding off, and puts them into the slot of a port. When one of
    /// them cannot be used, none is.
    fn plug_in(
        &self,
        bus: u8,
        functions: Vec<Assignment>,
        later: &LaterBars,
        sender: &Sender<Message>,
    ) -> Result<Vec<Listed>, Refusal> {
        let device = |message: String| Refusal::new(RefusalKind::Device, message);
        let map = self.check(bus, functions).map_err(device)?;
        let claimed = hosts::with_slots(&map.functions);
        if let Some(records) = self.hosts.records() {
            records.claim(&claimed).map_err(|error| device(error.to_string()))?;
        }
        let card = functions::attach(&map, &self.space, &self.hosts).map_err(|error| {
            // Nothing of them is open any more.
            claimed.iter().for_each(|(_, address)| self.let_go(&address.to_string()));
            device(error.to_string())
        })?;
        let hosts: Vec<_> = card.iter().map(|function| (function.slot(), function.host().clone())).collect();
        let added: Vec<Listed> = card.iter().map(listed).collect();
        let has_io = self.window(bus).io.is_some();
        let bars = map.plan.bars().iter().filter(|bar| has_io || bar.window != WindowKind::Io);
        later.lock().insert(bus, bars.copied().collect());
        self.await_exchange(bus);
        if let Err(error) = self.root_ports.insert(bus, card) {
            // The last to let go of a host closes it.
            drop(hosts);
            claimed.iter().for_each(|(_, address)| self.let_go(&address.to_string()));
            return Err(Refusal::new(RefusalKind::Occupied, error.to_string()));
        }
        for (slot, host) in &hosts {
            listen(host, *slot, sender);
        }
        Ok(added)
    }

    /// Waits until the guest has done with what was in the slot before. One whose indicator says otherwise for long does
    /// not look at the slot, or is not to be waited for.
    fn await_exchange(&self, bus: u8) {
        let until = Instant::now() + DONE_WITH_SLOT;
        let busy = || self.root_ports.port(bus).is_some_and(|port| !port.permits_exchange());
        let ends = || self.ending.load(Ordering::Relaxed) || self.control.peek().is_some();
        while busy() && Instant::now() < until && !ends() {
            thread::sleep(LOOK);
        }
    }

    fn window(&self, bus: u8) -> PortWindows {
        let window = self.windows.iter().find(|(port, _)| *port == bus);
        window.map(|(_, window)| window.clone()).unwrap_or_default()
    }

    /// What can be known without opening a device: the functions are there, in no other slot, and their BARs have room
    /// in the port's windows.
    fn check(&self, bus: u8, mut functions: Vec<Assignment>) -> Result<SlotMap, String> {
        for function in &mut functions {
            function.port = true;
        }
        let PortWindows { io, memory, prefetchable } = self.window(bus);
        let room = Available {
            memory32: memory.unwrap_or_default(),
            memory64: prefetchable.unwrap_or_default(),
            // A port without an I/O window, as most are, does not keep functions away that have memory BARs as well:
            // their I/O BARs stay without an address.
            io: io.unwrap_or(layout::WINDOW_IO),
            excluded: Vec::new(),
        };
        let options = PortOptions { empty: Vec::new(), window: PortWindow::NONE };
        let map = SlotMap::check(&functions, &options, &room, self.hosts.ppt())
            .map_err(|errors| errors.iter().map(in_a_window).collect::<Vec<_>>().join("\n"))?;
        let there = self.functions.lock();
        for (slot, found) in &map.functions {
            let Some(name) = found.only_one() else { continue };
            if let Some(other) = there.iter().find(|other| **other.host().name() == *name) {
                return Err(format!("slot {slot}: {name} is in slot {} of this guest already", other.slot()));
            }
        }
        Ok(map)
    }

    /// Takes a function from a root bus: the guest finds nothing there any more.
    fn withdraw(&self, slot: Slot) -> Vec<Attached> {
        let card: Vec<Attached> =
            self.functions.lock().extract_if(.., |function| function.slot() == slot).collect();
        drop(self.topology.withdraw(slot));
        card
    }

    /// Detaches functions that the guest no longer reaches, and sees to it that their hosts are closed: who wants one of
    /// them back waits for that.
    fn close(&self, card: Vec<Attached>) {
        let hosts: Vec<Arc<dyn HostFunction>> = card.iter().map(|function| function.host().clone()).collect();
        let not_reset = Attached::detach_all(card);
        if let Some(records) = self.hosts.records() {
            not_reset.iter().for_each(|name| records.was_not_reset(name));
        }
        // An idle vCPU's view of the bus is that of its last access, until it is kicked. The last to let go of a host
        // closes it, which takes time and the event loop: so that is done here.
        let until = Instant::now() + LETTING_GO;
        let is_held = |host: &Arc<dyn HostFunction>| Arc::strong_count(host) > 1;
        while hosts.iter().any(is_held) && Instant::now() < until {
            self.vcpus.kick();
            thread::sleep(KICK);
        }
        for host in hosts {
            if is_held(&host) {
                warn!("{}: still open, since something of the guest holds it", host.name());
            } else {
                info!("{}: closed", host.name());
                let name = host.name().clone();
                drop(host);
                self.let_go(&name);
            }
        }
    }

    /// The guest no longer has a function, and it is closed.
    fn let_go(&self, name: &str) {
        if let Some(records) = self.hosts.records() {
            records.let_go(name);
        }
    }
}

/// A reason against a card; where it is about windows, of the port that it is for.
fn in_a_window(error: &SlotMapError) -> String {
    match error {
        SlotMapError::Windows(PlanError::NoRoomForPort { bus, size, window, range, .. }) => format!(
            "bus {bus}: the functions need {} in the {window} window, and their root port has {}; give root ports more \
             room when the guest is started (--port-window)",
            wording::size(*size),
            wording::size(range.end.saturating_sub(range.start)),
        ),
        other => other.to_string(),
    }
}
