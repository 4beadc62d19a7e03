//! A virtual machine from power-on to its end.

mod error;
mod events;
mod functions;
mod hosts;
mod hotplug;
mod platform;
mod root_ports;
mod serial_console;
mod vcpu_threads;

use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use devices::pci::windows::Available;
use log::{debug, info};
use passthru::attached::Attached;
use passthru::ports::Ports;
use passthru::space::AddressSpace;

pub use error::MachineError;
use error::process;
pub use events::{EventPolicy, OnError, OnRequest};
use functions::Functions;
use hosts::Hosts;
pub use hosts::UseIommufd;
use hotplug::{Hotplug, Machinery};
use platform::Platform;
use root_ports::RootPorts;
use serial_console::SerialConsole;
use vcpu_threads::VcpuThreads;

use crate::acpi::{self, IntxPin};
use crate::boot::Kernel;
use crate::bus::Bus;
use crate::console::{Console, OutputStop};
use crate::control::{Control, Stop, StopOnPanic};
use crate::control_socket::protocol::Status;
use crate::control_socket::{Server, SocketFile};
use crate::event_loop::EventLoop;
use crate::kvm::events::KvmEvents;
use crate::kvm::interrupts::{KvmInterrupts, intx_gsi};
use crate::kvm::memory::KvmMemory;
use crate::kvm::vcpu::{Template, Vcpu};
use crate::kvm::{KvmError, Vm};
use crate::memory::{self, Backing, RamSize};
use crate::port_options::PortOptions;
use crate::signals::{self, Signals};
use crate::slot_map::{Assignment, SlotMap};
use crate::stats::Stats;
use crate::{layout, limits};

/// Most processors. Interrupt messages and I/O APIC entries have 8 bits for the local APIC's id (Intel SDM vol. 3A
/// §12.11.1), of which 255 is all of them; KVM takes longer ids only when `KVM_CAP_X2APIC_API` is set up.
pub const MOST_CPUS: u32 = 254;

/// What a guest is booted from.
#[derive(Clone, Debug)]
pub enum Image {
    /// Files of this host.
    Files {
        /// Kernel.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
    },
    /// Part of this program.
    Embedded {
        /// For messages.
        name: &'static str,
        /// An ELF image.
        bytes: &'static [u8],
    },
}

/// What a machine is to be.
#[derive(Clone, Debug)]
pub struct Description {
    /// What it boots.
    pub image: Image,
    /// Kernel command line.
    pub command_line: String,
    /// Size of its memory.
    pub memory: RamSize,
    /// What backs it.
    pub backing: Backing,
    /// Processors, 1 to [`MOST_CPUS`].
    pub cpus: u32,
    /// Which device goes where.
    pub assignments: Vec<Assignment>,
    /// Root ports beside those that the assignments ask for, and their room.
    pub ports: PortOptions,
    /// Refuse functions that cannot be reset.
    pub require_reset: bool,
    /// How functions of this host are opened.
    pub iommufd: UseIommufd,
    /// A reset by the guest ends it.
    pub no_reboot: bool,
    /// What is done about what hosts tell of functions.
    pub events: EventPolicy,
    /// Where the control socket is to be.
    pub control: Option<PathBuf>,
    /// Take the time of accesses to trapped pages, for [`Outcome::stats`].
    pub page_times: bool,
}

/// How a guest ended, and what it did.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub stop: Stop,
    /// What was counted.
    pub stats: Stats,
}

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
    threads: Arc<VcpuThreads>,
    hotplug: Hotplug,
    functions: Arc<Functions>,
    root_ports: Arc<RootPorts>,
    platform: Platform,
    bus: MachineBus,
    _events: EventLoop,
    kernel: Kernel,
    tables: acpi::Tables,
    map: SlotMap,
    output: OutputStop,
    memory: Arc<KvmMemory>,
    interrupts: Arc<KvmInterrupts>,
    control: Arc<Control>,
    vm: Vm,
}

/// Checks a description, makes the machine, runs the guest to its end, and gives everything back.
pub fn run(description: &Description) -> Result<Outcome, MachineError> {
    signals::prepare().map_err(process("signal handlers"))?;
    limits::raise_open_files();
    let mut machine = Machine::new(description)?;
    machine.boot()?;
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

/// The range that AMD processors reserve for HyperTransport: no IOMMU maps it (AMD I/O Virtualization Technology
/// 48882 §2.1.2).
const HYPERTRANSPORT: Range<u64> = 0xfd_0000_0000..0x100_0000_0000;

fn ram_end(size: RamSize) -> u64 {
    let high = size.bytes().saturating_sub(layout::LOW_RAM_END);
    if high == 0 { size.bytes() } else { layout::HIGH_RAM_START + high }
}

/// Addresses that the host bridges may have, for this much memory and processors of this width.
fn available(ram_end: u64, address_bits: u32) -> Available {
    // Close behind the RAM rather than at the top: an IOMMU of 39 bits still reaches BARs there.
    let start = ram_end.max(layout::HIGH_RAM_START).next_multiple_of(1 << 30);
    let mut end = 1u64 << address_bits.clamp(32, 46);
    if start < HYPERTRANSPORT.start {
        end = end.min(HYPERTRANSPORT.start);
    }
    Available {
        memory32: layout::WINDOW32,
        memory64: start..end.max(start),
        io: layout::WINDOW_IO,
        excluded: vec![HYPERTRANSPORT],
    }
}

impl Machine {
    fn new(description: &Description) -> Result<Machine, MachineError> {
        // From the cheap to the dear: whatever is wrong with the description is said before a device is touched.
        let line = &description.command_line;
        let kernel = match &description.image {
            Image::Files { kernel, initrd } => Kernel::open(kernel, initrd.as_deref(), line)?,
            Image::Embedded { name, bytes } => Kernel::embedded(name, bytes, line)?,
        };
        let vm = Vm::new()?;
        let most = vm.kvm().get_max_vcpus().min(MOST_CPUS as usize);
        if description.cpus as usize > most {
            return Err(MachineError::Cpus { wanted: description.cpus, most });
        }
        let template = Template::new(vm.kvm(), description.cpus)?;
        let ram_end = ram_end(description.memory);
        let available = available(ram_end, template.address_bits());
        let map = SlotMap::check(&description.assignments, &description.ports, &available)
            .map_err(MachineError::SlotMap)?;
        // Before a device is touched: another machine may have this path.
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

        let bus = Arc::new(Bus::new());
        let ram = memory::allocate(description.memory, description.backing)?;
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
        let hosts = Hosts::new(ports.clone(), description.iommufd, description.require_reset);
        let space = Arc::new(AddressSpace::new(memory.clone()));
        functions.add(functions::attach(&map, &space, &hosts)?);
        let topology = Arc::new(functions::topology(&functions, &root_ports)?);
        root_ports.connect(&topology);

        let stop = control.clone();
        let sink: devices::EventSink = Arc::new(move |event| stop.stop(Stop::from(event)));
        let vcpus = (0..description.cpus)
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
        let console = Console::stdio()?;
        let output = console.output.stop_handle();
        let platform = Platform::new(&vm, &bus, topology.clone(), console.output, sink)?;
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
            status: Status::of(description.cpus, description.memory),
        };
        let hotplug = Hotplug::start(machinery, description.events, &functions, &root_ports, control.clone())
            .map_err(process("hot-plug thread"))?;
        if let Some(socket) = socket {
            let server =
                Server::new(socket, Box::new(hotplug.requests())).map_err(process("control socket"))?;
            events.subscribe(Box::new(server)).map_err(process("event loop"))?;
        }
        Ok(Machine {
            vcpus,
            threads,
            hotplug,
            functions,
            root_ports,
            platform,
            bus,
            _events: events,
            kernel,
            tables,
            map,
            output,
            memory,
            interrupts,
            control,
            vm,
        })
    }

    /// Places the BARs, loads kernel and tables, and points the first vCPU at the kernel.
    fn boot(&mut self) -> Result<(), MachineError> {
        self.root_ports.place(&self.map.plan);
        functions::place(&self.functions, &self.map.plan, &self.hotplug.later().lock());
        let entry = self.kernel.load(self.memory.ram(), self.tables.rsdp())?;
        self.tables.write(self.memory.ram())?;
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
        for (number, mut vcpu) in std::mem::take(&mut self.vcpus).into_iter().enumerate() {
            let guard = StopOnPanic::new(self.control.clone(), "a vCPU's thread panicked");
            let run = move || {
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
        Stats::collect(&self.vcpus, &self.bus, &self.functions.lock(), calls)
    }
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
        Attached::detach_all(functions);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::control_socket::protocol::Command;

    fn description(slots: &[&str]) -> Description {
        Description {
            image: Image::Embedded { name: "demo", bytes: guest::DEMO },
            command_line: String::new(),
            memory: "64M".parse().unwrap(),
            backing: Backing::Transparent,
            cpus: 2,
            assignments: slots.iter().map(|slot| slot.parse().unwrap()).collect(),
            ports: PortOptions { empty: vec![2], ..PortOptions::default() },
            require_reset: false,
            iommufd: UseIommufd::Auto,
            no_reboot: true,
            events: EventPolicy::default(),
            control: None,
            page_times: false,
        }
    }

    /// Machines need KVM; without it a test says that it did nothing.
    fn has_kvm(test: &str) -> bool {
        let kvm = Vm::new();
        if let Err(error) = &kvm {
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
        }
        kvm.is_ok()
    }

    #[test]
    fn nothing_of_a_machine_is_left_when_it_is_dropped() {
        if !has_kvm("nothing_of_a_machine_is_left_when_it_is_dropped") {
            return;
        }
        let mut machine = Machine::new(&description(&["0:8:0=sim:demo", "1:0:0=sim:demo,port"])).unwrap();
        machine.boot().unwrap();
        let bus = Arc::downgrade(&machine.bus);
        let memory = Arc::downgrade(&machine.memory);
        let interrupts = Arc::downgrade(&machine.interrupts);
        let hosts: Vec<_> = machine.functions.lock().iter().map(|f| Arc::downgrade(f.host())).collect();
        assert_eq!((hosts.len(), memory.strong_count() > 1), (2, true));
        drop(machine);
        assert_eq!(hosts.iter().map(|host| host.strong_count()).collect::<Vec<_>>(), [0, 0]);
        assert_eq!([bus.strong_count(), memory.strong_count(), interrupts.strong_count()], [0; 3]);
    }

    #[test]
    fn what_is_plugged_in_has_addresses_after_a_reset_and_is_closed_when_it_is_taken() {
        if !has_kvm("what_is_plugged_in_has_addresses_after_a_reset_and_is_closed_when_it_is_taken") {
            return;
        }
        let mut machine = Machine::new(&description(&["1:0:0=sim:demo,port"])).unwrap();
        machine.boot().unwrap();
        let bar_0 = |machine: &Machine| {
            let mut data = [0; 4];
            let functions = machine.functions.lock();
            let function = functions.iter().find(|function| function.slot().bus() == 2).unwrap();
            function.config().config_read(0x10, &mut data);
            u32::from_le_bytes(data) & !0xf
        };
        let functions = vec!["2:0:0=sim:demo".parse().unwrap()];
        machine.hotplug.ask(Command::Add { functions }).unwrap();
        assert_eq!(bar_0(&machine), 0);
        machine.reset().unwrap();
        machine.boot().unwrap();
        let window = machine.map.plan.ports()[1].1.memory.clone().unwrap();
        assert!(window.contains(&u64::from(bar_0(&machine))), "{:#x}", bar_0(&machine));

        let host = Arc::downgrade(machine.functions.lock()[1].host());
        let slots = vec!["2:0:0".parse().unwrap()];
        machine.hotplug.ask(Command::Remove { slots, force: true, timeout: Duration::ZERO }).unwrap();
        assert_eq!((host.strong_count(), machine.functions.lock().len()), (0, 1));
    }

    #[test]
    fn the_64_bit_window_is_behind_the_ram_and_within_the_processors_reach() {
        for (ram_end, bits, start, end) in [
            (256 << 20, 40, 1 << 32, 0xfd_0000_0000),
            (0x1_4000_0000, 39, 0x1_4000_0000, 1 << 39),
            (0x1_4010_0000, 52, 0x1_8000_0000, 0xfd_0000_0000),
            (0x101_0000_0000, 52, 0x101_0000_0000, 1 << 46),
            (1 << 32, 32, 1 << 32, 1 << 32),
        ] {
            assert_eq!(available(ram_end, bits).memory64, start..end);
        }
    }
}
