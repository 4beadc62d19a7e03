//! A virtual machine from power-on to its end.

mod absent_functions;
pub(crate) mod address_ranges;
mod config_writes;
mod description;
mod error;
mod events;
mod functions;
mod hosts;
mod hotplug;
mod platform;
mod root_ports;
mod serial_console;
#[cfg(test)]
mod tests;
mod vcpu_threads;

use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use log::{debug, info};
use passthru::attached::Attached;
use passthru::ports::Ports;
use passthru::space::AddressSpace;

use config_writes::ConfigWrites;
pub use description::{Description, Image, MOST_CPUS, Outcome, Ready};
use error::process;
pub use error::{MachineError, WhyNoReset};
pub use events::{EventPolicy, OnError, OnRequest};
pub use functions::BEHIND_PORT;
use functions::Functions;
use hosts::Hosts;
pub use hosts::UseIommufd;
use hotplug::{Hotplug, Machinery};
use platform::Platform;
use root_ports::RootPorts;
use serial_console::SerialConsole;
use vcpu_threads::VcpuThreads;

use absent_functions::AbsentFunctions;

use crate::acpi::{self, IntxPin};
use crate::boot::{Entry, Kernel};
use crate::bus::Bus;
use crate::console::{Console, OutputStop};
use crate::control::{Control, Stop, StopOnPanic};
use crate::control_socket::protocol::Status;
use crate::control_socket::{Server, SocketFile};
use crate::event_loop::EventLoop;
use crate::host::device_records::DeviceRecords;
use crate::kvm::events::KvmEvents;
use crate::kvm::interrupts::{KvmInterrupts, intx_gsi};
use crate::kvm::memory::KvmMemory;
use crate::kvm::vcpu::{Template, Vcpu};
use crate::kvm::{KvmError, Vm};
use crate::limits;
use crate::memory::{self, GuestMemory, Prefault};
use crate::progress;
use crate::signals::{self, Signals};
use crate::slot_map::SlotMap;
use crate::start_times::StartTimes;
use crate::stats::Stats;
use crate::vcpu_options::Affinity;
use crate::wording;

/// The share of the hypervisor's memory slots that ECAM's empty parts may take is one in so many.
const ABSENT_SHARE: usize = 4;

/// The machine's bus, which lets go of everybody at its end: the decoders of configuration space on it hold the
/// functions, these their hosts, these the guest's memory, and that the bus. Without this nobody of them would go.
struct MachineBus(Arc<Bus>);

impl Deref for MachineBus {
    type Target = Arc<Bus>;

    fn deref(&self) -> &Arc<Bus> {
        &self.0
    }
}

impl Drop for MachineBus {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// A virtual machine. Fields are dropped in this order: vCPUs, whose views hold whatever they accessed last; functions,
/// which are detached while the machine is still whole; then those who hold them otherwise, devices and bus, with
/// which the hosts of functions go; and only then the event loop, which hosts call to end their watches. [`Machine::new`]
/// makes them in the opposite order, so that the same holds when it fails.
struct Machine {
    vcpus: Vec<Vcpu>,
    affinity: Arc<Affinity>,
    threads: Arc<VcpuThreads>,
    hotplug: Hotplug,
    functions: Arc<Functions>,
    root_ports: Arc<RootPorts>,
    config_writes: Option<ConfigWrites>,
    platform: Platform,
    bus: MachineBus,
    _events: EventLoop,
    kernel: Kernel,
    /// As it was loaded for the first time.
    entry: Option<Entry>,
    tables: acpi::Tables,
    map: SlotMap,
    output: OutputStop,
    memory: Arc<KvmMemory>,
    interrupts: Arc<KvmInterrupts>,
    control: Arc<Control>,
    records: Option<Arc<DeviceRecords>>,
    start: StartTimes,
    /// When the first vCPU entered guest mode.
    entered: Arc<OnceLock<Instant>>,
    vm: Vm,
}

/// Checks a description, makes the machine, runs the guest to its end, and gives everything back.
pub fn run(description: &Description) -> Result<Outcome, MachineError> {
    signals::prepare().map_err(process("signal handlers"))?;
    limits::raise_open_files();
    let mut machine = Machine::new(description)?;
    machine.boot()?;
    if description.running.as_ref().is_some_and(|ready| !ready.running()) {
        let stats = machine.stats();
        return Ok(Outcome { stop: Stop::Asked("whoever started it"), stats });
    }
    loop {
        let stop = machine.run_until_stop()?;
        if stop != Stop::Reset || description.no_reboot {
            let stats = machine.stats();
            return Ok(Outcome { stop, stats });
        }
        debug!("guest reset");
        machine.reset()?;
        machine.boot()?;
    }
}

impl Machine {
    fn new(description: &Description) -> Result<Machine, MachineError> {
        let mut start = StartTimes::begin();
        // From the cheap to the dear: whatever is wrong with the description is said before a device is touched.
        let line = &description.command_line;
        let mut kernel = match &description.image {
            Image::Files { kernel, initrd } => Kernel::open(kernel, initrd.as_deref(), line)?,
            Image::Embedded { name, bytes } => Kernel::embedded(name, bytes, line)?,
        };
        kernel.check_room(description.memory)?;
        let vm = Vm::new()?;
        let most = vm.kvm().get_max_vcpus().min(MOST_CPUS as usize);
        if description.cpus as usize > most {
            return Err(MachineError::Cpus { wanted: description.cpus, most });
        }
        let options = &description.vcpu_options;
        let affinity = Arc::new(Affinity::new(&options.pins, description.cpus)?);
        if let Some(most) = options.halt_poll {
            vm.set_halt_poll(most)?;
        }
        if !options.disabled_exits.is_empty() {
            vm.disable_exits(options.disabled_exits)?;
        }
        let template = Template::new(vm.kvm(), description.cpus)?.leaving(options.disabled_exits);
        let ram_end = address_ranges::ram_end(description.memory);
        let available = address_ranges::available(ram_end, template.address_bits());
        let map = SlotMap::check(
            &description.assignments,
            &description.ports,
            &available,
            description.ppt.as_deref(),
        )
        .map_err(MachineError::SlotMap)?;
        // Before a device is touched: another machine may have it, or this path.
        if let Some(records) = &description.records {
            records.claim(&hosts::with_slots(&map.functions)).map_err(MachineError::Record)?;
        }
        let socket = description.control.as_deref().map(SocketFile::make).transpose()?;
        let bridges: Vec<acpi::HostBridge> = map
            .plan
            .buses()
            .iter()
            .map(|windows| acpi::HostBridge {
                bus: windows.bus,
                last_behind_ports: map.ports.last().filter(|_| windows.bus == 0),
                io: windows.io.iter().cloned().collect(),
                memory: windows.memory32.iter().chain(&windows.memory64).cloned().collect(),
            })
            .collect();
        let platform = acpi::Platform { cpus: description.cpus, host_bridges: &bridges, gsi };
        let tables = acpi::Tables::build(&platform)?;
        start.ends("checks");

        let bus = Arc::new(Bus::new());
        let ram = memory::allocate(description.memory, description.backing)?;
        // Only a function of this host's needs all of it.
        let prefault = hosts::any_of_this_host(&map.functions).then(|| Prefault::start(&ram));
        let memory = Arc::new(KvmMemory::new(vm.fd().clone(), bus.clone(), ram)?);
        let interrupts = Arc::new(KvmInterrupts::new(vm.fd().clone(), map.ports)?);
        let control = Arc::new(Control::default());
        let events = EventLoop::start(control.clone()).map_err(process("event loop"))?;
        let bus = MachineBus(bus);
        let ports = Ports {
            memory: memory.clone(),
            interrupts: interrupts.clone(),
            events: Arc::new(KvmEvents::new(vm.fd().clone(), events.watches())),
        };
        let functions = Arc::new(Functions::default());
        let root_ports = Arc::new(RootPorts::new(&map, functions.clone(), vm.fd().clone()));
        let hosts = Hosts::new(
            ports.clone(),
            description.iommufd,
            description.require_reset,
            description.ppt.clone(),
            description.records.clone(),
        );
        let space = Arc::new(AddressSpace::new(memory.clone()));
        start.ends("memory");
        let what = format!(
            "opening {} functions, mapping {} of guest memory for their DMA",
            map.functions.len(),
            wording::size(description.memory.bytes())
        );
        // A function mostly waits for its reset meanwhile, and does not reach the memory before the guest allows it to.
        let (attached, (loaded, loading)) = thread::scope(|scope| {
            let load = || {
                let begun = Instant::now();
                (load(&mut kernel, &tables, memory.ram()), begun.elapsed())
            };
            let loaded = Builder::new().name("kernel".to_owned()).spawn_scoped(scope, load)?;
            let attached = progress::during(what, || functions::attach(&map, &space, &hosts));
            Ok((attached, loaded.join().unwrap_or_else(|panic| resume_unwind(panic))))
        })
        .map_err(process("thread that loads the kernel"))?;
        functions.add(attached?);
        let entry = loaded?;
        if let Some(prefault) = prefault {
            prefault.wait();
        }
        start.ends("functions");
        start.meanwhile("kernel", loading);
        if let Some(mapped) = hosts.mapped() {
            start.meanwhile("dma_map", mapped.time);
        }
        let topology = Arc::new(functions::topology(&functions, &root_ports)?);
        root_ports.connect(&topology);
        let most = vm.kvm().get_nr_memslots() / ABSENT_SHARE;
        AbsentFunctions::follow(&topology, memory.clone(), most);

        let stop = control.clone();
        let sink: devices::EventSink = Arc::new(move |event| stop.stop(Stop::from(event)));
        let mut vcpus = (0..description.cpus)
            .map(|id| {
                let view = if description.page_times { bus.view().timed() } else { bus.view() };
                let mut vcpu = Vcpu::new(vm.fd(), id, &template, view)?;
                // A host may take a function's BARs away at any time.
                let space = space.clone();
                vcpu.set_repair(Arc::new(move || space.withdraw_unanswered()));
                Ok(vcpu)
            })
            .collect::<Result<Vec<_>, KvmError>>()?;
        // The terminal goes to raw mode last, so that no error of the above is printed on one.
        let console = match &description.console {
            Some(stream) => Console::socket(stream)?,
            None => Console::stdio()?,
        };
        let output = console.output.stop_handle();
        let platform = Platform::new(&vm, &bus, topology.clone(), console.output, sink)?;
        let config_writes = ConfigWrites::new(&vm, &mut vcpus, &platform, events.watches())?;
        let serial = SerialConsole::new(
            console.input,
            platform.serial.clone(),
            platform.room.clone(),
            control.clone(),
        );
        let signals = Signals::new(control.clone()).map_err(process("signalfd"))?;
        events.subscribe(Box::new(serial)).map_err(process("event loop"))?;
        events.subscribe(Box::new(signals)).map_err(process("event loop"))?;
        let threads = Arc::new(VcpuThreads::default());
        let machinery = Machinery {
            root_ports: root_ports.clone(),
            functions: functions.clone(),
            topology,
            hosts,
            space,
            windows: map.plan.ports().to_vec(),
            vcpus: threads.clone(),
            control: control.clone(),
            power: platform.power.clone(),
            status: Status::of(description.cpus, description.memory),
            ending: AtomicBool::new(false),
        };
        let hotplug = Hotplug::start(machinery, description.events, &functions, &root_ports, control.clone())
            .map_err(process("hot-plug thread"))?;
        if let Some(socket) = socket {
            let server =
                Server::new(socket, Box::new(hotplug.requests())).map_err(process("control socket"))?;
            events.subscribe(Box::new(server)).map_err(process("event loop"))?;
        }
        start.ends("machine");
        Ok(Machine {
            vcpus,
            affinity,
            threads,
            hotplug,
            functions,
            root_ports,
            config_writes,
            platform,
            bus,
            _events: events,
            kernel,
            entry: Some(entry),
            tables,
            map,
            output,
            memory,
            interrupts,
            control,
            records: description.records.clone(),
            start,
            entered: Arc::default(),
            vm,
        })
    }

    /// Places the BARs, loads kernel and tables, and points the first vCPU at the kernel.
    fn boot(&mut self) -> Result<(), MachineError> {
        self.root_ports.place(&self.map.plan, self.hotplug.later());
        let entry = match self.entry.take() {
            Some(entry) => entry,
            None => load(&mut self.kernel, &self.tables, self.memory.ram())?,
        };
        if let Some(first) = self.vcpus.first() {
            first.enter_at(&entry)?;
        }
        Ok(())
    }

    /// Everything back to its state after power-on. No vCPU runs.
    fn reset(&mut self) -> Result<(), MachineError> {
        // What the guest was asked to let go of goes before it starts anew.
        self.hotplug.guest_reset();
        // The functions first: once they are silent, nothing reaches the interrupt controllers or the memory that the
        // next kernel is loaded to.
        Attached::reset_all(&self.functions.lock());
        self.root_ports.reset();
        self.platform.reset();
        self.vm.reset()?;
        for vcpu in &mut self.vcpus {
            vcpu.reset()?;
            vcpu.view.reload();
        }
        Ok(())
    }

    fn run_until_stop(&mut self) -> Result<Stop, MachineError> {
        let mut failed = None;
        if let Some(writes) = &self.config_writes {
            writes.start();
        }
        for (number, mut vcpu) in std::mem::take(&mut self.vcpus).into_iter().enumerate() {
            let guard = StopOnPanic::new(self.control.clone(), "a vCPU's thread panicked");
            let (affinity, entered) = (self.affinity.clone(), self.entered.clone());
            let run = move || {
                affinity.bind(vcpu.id());
                entered.get_or_init(Instant::now);
                vcpu.run(guard.control());
                vcpu
            };
            match Builder::new().name(format!("vcpu{number}")).spawn(run) {
                Ok(thread) => self.threads.add(thread),
                Err(error) => {
                    failed = Some(error);
                    self.control.stop(Stop::Broken("a vCPU's thread could not be started"));
                }
            }
        }
        self.control.wait();
        for thread in self.threads.take() {
            self.vcpus.extend(self.collect(thread));
        }
        // Or a write that nobody has seen yet would stop the guest when it has begun anew.
        if let Some(writes) = &self.config_writes {
            writes.stop();
        }
        match failed {
            Some(error) => Err(process("vCPU thread")(error)),
            None => Ok(self.control.take().unwrap_or(Stop::PowerOff)),
        }
    }

    /// Gets a vCPU back from its thread.
    fn collect(&self, thread: JoinHandle<Vcpu>) -> Option<Vcpu> {
        while !thread.is_finished() {
            // A vCPU may wait for whoever reads this program's output. For a reset it does so until that reads on; but
            // what began as a reset becomes an end when the program is asked to end meanwhile.
            if !matches!(self.control.peek(), Some(Stop::Reset)) {
                self.output.stop();
            }
            // A signal that arrives just before the vCPU enters guest mode is lost on it, so it is sent again.
            vcpu_threads::kick(&thread);
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().ok()
    }

    fn stats(&self) -> Stats {
        let calls = [self.memory.calls(), self.interrupts.calls()];
        let coalesced = self.config_writes.as_ref().map_or(0, ConfigWrites::count);
        let mut start = self.start.clone();
        if let Some(entered) = self.entered.get() {
            start.ended("boot", *entered);
        }
        Stats::collect(&self.vcpus, &self.bus, &self.functions.lock(), calls, coalesced, start)
    }
}

/// Kernel and tables into a guest's memory.
fn load(kernel: &mut Kernel, tables: &acpi::Tables, memory: &GuestMemory) -> Result<Entry, MachineError> {
    let entry = kernel.load(memory, tables.rsdp())?;
    tables.write(memory)?;
    Ok(entry)
}

fn gsi(pin: IntxPin) -> u32 {
    intx_gsi(pin.device, pin.pin + 1)
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The vCPUs first, whose views hold functions that are being closed; then nothing comes or goes any more. The
        // fields' order does the rest.
        self.vcpus.clear();
        self.hotplug.end();
        let functions = std::mem::take(&mut *self.functions.lock());
        info!("detaching {} functions", functions.len());
        let not_reset = Attached::detach_all(functions);
        if let Some(records) = &self.records {
            not_reset.iter().for_each(|name| records.was_not_reset(name));
        }
    }
}
