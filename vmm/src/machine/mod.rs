//! A virtual machine from power-on to its end.

mod error;
mod functions;
mod platform;
mod serial_console;

use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use devices::pci::windows::Available;
use log::{debug, info};
use passthru::attached::Attached;
use passthru::ports::Ports;
use vmm_sys_util::signal::Killable;

pub use error::MachineError;
use error::process;
use platform::Platform;
use serial_console::SerialConsole;

use crate::acpi::{self, IntxPin};
use crate::boot::Kernel;
use crate::bus::Bus;
use crate::console::{Console, OutputStop};
use crate::control::{Control, Stop, StopOnPanic};
use crate::event_loop::EventLoop;
use crate::kvm::events::KvmEvents;
use crate::kvm::interrupts::{KvmInterrupts, intx_gsi};
use crate::kvm::memory::KvmMemory;
use crate::kvm::vcpu::{Template, Vcpu};
use crate::kvm::{KvmError, Vm};
use crate::memory::{self, Backing, RamSize};
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
    /// Refuse functions that cannot be reset.
    pub require_reset: bool,
    /// A reset by the guest ends it.
    pub no_reboot: bool,
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
    functions: Vec<Attached>,
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
        let map = SlotMap::check(&description.assignments, &available(ram_end, template.address_bits()))
            .map_err(MachineError::SlotMap)?;
        let bridges: Vec<acpi::HostBridge> = map
            .plan
            .buses()
            .iter()
            .map(|windows| acpi::HostBridge {
                bus: windows.bus,
                io: windows.io.iter().cloned().collect(),
                memory: windows.memory32.iter().chain(&windows.memory64).cloned().collect(),
            })
            .collect();
        let platform = acpi::Platform { cpus: description.cpus, host_bridges: &bridges, gsi };
        let tables = acpi::Tables::build(&platform)?;

        let bus = Arc::new(Bus::new());
        let ram = memory::allocate(description.memory, description.backing)?;
        let memory = Arc::new(KvmMemory::new(vm.fd().clone(), bus.clone(), ram)?);
        let interrupts = Arc::new(KvmInterrupts::new(vm.fd().clone())?);
        let control = Arc::new(Control::default());
        let events = EventLoop::start(control.clone()).map_err(process("event loop"))?;
        let bus = MachineBus(bus);
        let ports = Ports {
            memory: memory.clone(),
            interrupts: interrupts.clone(),
            events: Arc::new(KvmEvents::new(vm.fd().clone(), events.watches())),
        };
        let functions = functions::attach(&map, &ports, description.require_reset)?;
        let topology = Arc::new(functions::topology(&functions)?);

        let stop = control.clone();
        let sink: devices::EventSink = Arc::new(move |event| stop.stop(Stop::from(event)));
        let vcpus = (0..description.cpus)
            .map(|id| Vcpu::new(vm.fd(), id, &template, bus.view()))
            .collect::<Result<Vec<_>, KvmError>>()?;
        // The terminal goes to raw mode last, so that no error of the above is printed on one.
        let console = Console::stdio()?;
        let output = console.output.stop_handle();
        let platform = Platform::new(&vm, &bus, topology, console.output, sink)?;
        let serial = SerialConsole::new(
            console.input,
            platform.serial.clone(),
            platform.room.clone(),
            control.clone(),
        );
        let signals = Signals::new(control.clone()).map_err(process("signalfd"))?;
        events.subscribe(Box::new(serial)).map_err(process("event loop"))?;
        events.subscribe(Box::new(signals)).map_err(process("event loop"))?;
        Ok(Machine {
            vcpus,
            functions,
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
        functions::place(&self.functions, &self.map.plan);
        let entry = self.kernel.load(self.memory.ram(), self.tables.rsdp())?;
        self.tables.write(self.memory.ram())?;
        if let Some(first) = self.vcpus.first() {
            first.enter_at(&entry)?;
        }
        Ok(())
    }

    /// Everything back to its state after power-on. No vCPU runs.
    fn reset(&mut self) -> Result<(), MachineError> {
        // The functions first: once they are silent, nothing reaches the interrupt controllers or the memory that the
        // next kernel is loaded to.
        functions::reset(&self.functions);
        self.platform.reset();
        self.vm.reset()?;
        for vcpu in &mut self.vcpus {
            vcpu.reset()?;
        }
        Ok(())
    }

    fn run_until_stop(&mut self) -> Result<Stop, MachineError> {
        let mut threads = Vec::new();
        let mut failed = None;
        for mut vcpu in std::mem::take(&mut self.vcpus) {
            let guard = StopOnPanic::new(self.control.clone(), "a vCPU's thread panicked");
            let run = move || {
                vcpu.run(guard.control());
                vcpu
            };
            match Builder::new().name(format!("vcpu{}", threads.len())).spawn(run) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    failed = Some(error);
                    self.control.stop(Stop::Broken("a vCPU's thread could not be started"));
                }
            }
        }
        self.control.wait();
        for thread in threads {
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
            if let Err(error) = thread.kill(signals::kick_signal()) {
                debug!("vCPU thread: {error}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().ok()
    }

    fn stats(&self) -> Stats {
        let calls = [self.memory.calls(), self.interrupts.calls()];
        Stats::collect(&self.vcpus, &self.bus, &self.functions, calls)
    }
}

fn gsi(pin: IntxPin) -> u32 {
    intx_gsi(pin.device, pin.pin + 1)
}

impl Drop for Machine {
    fn drop(&mut self) {
        info!("detaching {} functions", self.functions.len());
        // The fields' order does the rest.
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn description(slots: &[&str]) -> Description {
        Description {
            image: Image::Embedded { name: "demo", bytes: guest::DEMO },
            command_line: String::new(),
            memory: "64M".parse().unwrap(),
            backing: Backing::Transparent,
            cpus: 2,
            assignments: slots.iter().map(|slot| slot.parse().unwrap()).collect(),
            require_reset: false,
            no_reboot: true,
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
        let mut machine = Machine::new(&description(&["0:8:0=sim:demo", "3:0:0=sim:demo"])).unwrap();
        machine.boot().unwrap();
        let bus = Arc::downgrade(&machine.bus);
        let memory = Arc::downgrade(&machine.memory);
        let interrupts = Arc::downgrade(&machine.interrupts);
        let hosts: Vec<_> = machine.functions.iter().map(|f| Arc::downgrade(f.host())).collect();
        assert_eq!((hosts.len(), memory.strong_count() > 1), (2, true));
        drop(machine);
        assert_eq!(hosts.iter().map(|host| host.strong_count()).collect::<Vec<_>>(), [0, 0]);
        assert_eq!([bus.strong_count(), memory.strong_count(), interrupts.strong_count()], [0; 3]);
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
