//! A machine without a hypervisor: one simulated function in its slot, and the decoders that lead to it.

use std::sync::Arc;

use devices::pci::cf8::{self, Cf8};
use devices::pci::ecam::{self, Ecam};
use devices::pci::topology::Topology;
use passthru::attached::{Attached, Fresh};
use passthru::function::{Function, Shape};
use passthru::host::HostFunction;
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::registers::{COMMAND, COMMAND_BUS_MASTER, COMMAND_IO, COMMAND_MEMORY};
use passthru::pci::{Slot, Space};
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;
use vmm::bus::{Target, View};

use crate::ports::CountingPorts;

/// CONFIG_ADDRESS, the first of the configuration ports.
pub const CONFIG_ADDRESS: u64 = 0xcf8;
/// CONFIG_DATA.
pub const CONFIG_DATA: u64 = 0xcfc;
/// Where ECAM begins.
pub const ECAM: u64 = 0xe000_0000;
/// Where the window of 32-bit memory begins.
pub const MEMORY: u64 = 0xc000_0000;
/// Address of the simulated function's BAR 4, which begins with the MSI-X table.
pub const MSIX_TABLE: u64 = MEMORY + 0x10_0000;
/// The simulated function's MSI-X capability.
const MSIX_CAPABILITY: u64 = 0x70;

/// The core of the simulated function, and it alone.
pub fn core() -> Function {
    let ports = Arc::new(CountingPorts::default()).ports();
    let host = SimulatedFunction::new("demo", Slot::from_requester_id(0x40), ports).unwrap();
    Function::new(host.description(), host.report(), Shape::default()).unwrap().0
}

/// The simulated function at 0:8:0, its BARs placed and decoding.
pub struct Machine {
    /// What it asked its VMM for.
    pub ports: Arc<CountingPorts>,
    /// A vCPU's way to it.
    pub view: View,
    slot: Slot,
    _function: Attached,
}

impl Machine {
    /// A new one.
    pub fn new() -> Machine {
        let ports = Arc::new(CountingPorts::default());
        let slot: Slot = "0:8:0".parse().unwrap();
        let host = Arc::new(SimulatedFunction::new("demo", slot, ports.ports()).unwrap());
        let space = Arc::new(AddressSpace::new(ports.clone()));
        let windows = Windows { memory: vec![MEMORY..ECAM], io: vec![0x1000..0x1_0000] };
        let function =
            Attached::new(Fresh::one(host).unwrap(), slot, Shape::default(), space, Arc::new(windows))
                .unwrap();
        for (bar, address) in [(0, MEMORY), (1, 0x1000), (2, MEMORY + 0x20_0000), (4, MSIX_TABLE)] {
            function.assign(bar, address);
        }
        let mut builder = Topology::builder();
        builder.add(slot, function.config());
        let topology = Arc::new(builder.build().unwrap());

        let bus = &ports.bus;
        let ports_range = CONFIG_ADDRESS..CONFIG_ADDRESS + u64::from(cf8::SIZE);
        let cf8 = Arc::new(Cf8::new(topology.clone(), Arc::new(|_| ())));
        bus.add(Space::Io, ports_range, "config-ports", Target::Cf8(cf8)).unwrap();
        let ecam = Arc::new(Ecam::new(topology));
        bus.add(Space::Memory, ECAM..ECAM + ecam::SIZE, "ecam", Target::Ecam(ecam)).unwrap();

        let mut machine = Machine { view: bus.view(), ports, slot, _function: function };
        machine.write_config(u64::from(COMMAND), COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER);
        machine
    }

    /// Address of a configuration register in ECAM.
    pub fn ecam(&self, register: u64) -> u64 {
        ECAM + ecam::offset_of(self.slot) + register
    }

    /// What CONFIG_ADDRESS is set to for a configuration register.
    pub fn config_address(&self, register: u8) -> u32 {
        1 << 31 | u32::from(self.slot.requester_id()) << 8 | u32::from(register)
    }

    /// Writes 16 bits of configuration space.
    pub fn write_config(&mut self, register: u64, value: u16) {
        self.view.write(Space::Memory, self.ecam(register), &value.to_le_bytes());
    }

    /// Writes 32 bits of an MSI-X table entry; `dword` 0 to 3.
    #[inline]
    pub fn write_vector(&mut self, vector: u64, dword: u64, value: u32) {
        self.view.write(Space::Memory, MSIX_TABLE + 16 * vector + 4 * dword, &value.to_le_bytes());
    }

    /// Turns MSI-X on with one vector armed.
    pub fn arm(&mut self, vector: u64) {
        self.write_vector(vector, 0, 0xfee0_0000);
        self.write_vector(vector, 1, 0);
        self.write_vector(vector, 2, 0x40);
        self.write_vector(vector, 3, 0);
        self.write_config(MSIX_CAPABILITY + 2, 1 << 15);
    }
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new()
    }
}
