//! What there is to attack: every function of every bus, as it was before the attack.

use runtime::bar::{Bar, Kind};
use runtime::capability::{ADVANCED_FEATURES, MSI, MSIX, PCI_EXPRESS, POWER_MANAGEMENT};
use runtime::config::{ConfigSpace, Ecam};
use runtime::function::{COMMAND, DECODE_IO, DECODE_MEMORY, Function, INTX_DISABLE};
use runtime::msix;
use runtime::slot::Slot;
use runtime::window::Window;
use runtime::{Boot, Check, fail};

/// Functions beyond that are left alone, and memory BARs too.
const MOST: usize = 24;
const HEADER_TYPE: u16 = 0x0e;
const CLASS: u16 = 0x0a;
const HOST_BRIDGE: u16 = 0x0600;

/// Of a bridge: the windows that it forwards, a register for each 4 bytes.
const FORWARDED: core::ops::Range<u16> = 0x1c..0x34;
const BRIDGE_CONTROL: u16 = 0x3e;
/// A port has a slot, whose power it may control (PCIe 6.0 §7.5.3.2, §7.5.3.10).
const HAS_SLOT: u16 = 1 << 8;
const SLOT_CONTROL: u16 = 0x18;

pub struct Target {
    pub function: Function,
    pub id: u32,
    pub is_bridge: bool,
    /// What it forwards at the start, if it is one.
    forwarded: [u32; 6],
    /// BARs where they were at the start.
    pub bars: [Option<Bar>; 6],
    pub power: Option<u16>,
    pub express: Option<u16>,
    pub advanced: Option<u16>,
    pub msi: Option<u16>,
    /// Place of the table in a memory BAR, and the table's bytes.
    pub msix: Option<(u16, msix::Place, u64)>,
}

#[derive(Default)]
pub struct Targets {
    list: [Option<Target>; MOST],
    used: usize,
    homes: [Option<Window>; MOST],
    homes_used: usize,
}

impl Targets {
    /// All functions on buses 0 to `last_bus`, their memory BARs mapped.
    pub fn find(boot: &Boot, last_bus: u8) -> Check<Self> {
        let Some(ecam) = boot.acpi.as_ref().and_then(|acpi| acpi.ecam()) else { fail!("no ECAM") };
        let mut found = Self::default();
        for device in 0..(u16::from(last_bus) + 1) << 5 {
            for function in 0..8 {
                let slot = Slot::new((device >> 5) as u8, (device & 31) as u8, function);
                let header = header_type(&ecam, slot);
                if header == u8::MAX && function == 0 {
                    break;
                }
                if header != u8::MAX && found.used < MOST {
                    found.add(Target::new(boot, slot, header)?);
                }
                if function == 0 && header & 0x80 == 0 {
                    break;
                }
            }
        }
        Ok(found)
    }

    fn add(&mut self, target: Target) {
        for home in (0..6).filter_map(|index| target.home(index)).take(MOST - self.homes_used) {
            self.homes[self.homes_used] = Some(home);
            self.homes_used += 1;
        }
        self.list[self.used] = Some(target);
        self.used += 1;
    }

    /// Where the n-th memory BAR of all was at the start, beginning anew behind the last.
    pub fn home(&self, n: u64) -> Option<Window> {
        self.homes[n.checked_rem(self.homes_used as u64)? as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.list.iter().flatten()
    }

    pub fn count(&self) -> usize {
        self.used
    }

    /// The n-th one, beginning anew behind the last.
    pub fn nth(&self, n: u64) -> Option<&Target> {
        self.list.get(n.checked_rem(self.used as u64)? as usize)?.as_ref()
    }

    pub fn has(&self, id: u32) -> bool {
        self.iter().any(|target| target.id == id)
    }
}

fn header_type(ecam: &Ecam, slot: Slot) -> u8 {
    ecam.at(slot).map_or(u8::MAX, |config| config.read8(HEADER_TYPE))
}

impl Target {
    fn new(boot: &Boot, slot: Slot, header: u8) -> Check<Self> {
        let function = Function::find(slot, boot.acpi.as_ref())?;
        let is_bridge = header & 0x7f != 0;
        let is_host_bridge = function.read16(CLASS) == HOST_BRIDGE;
        let bars = if is_bridge || is_host_bridge { [None; 6] } else { function.bars() };
        let msix = function.capability(MSIX).map(|capability| {
            let (vectors, table, _) = msix::describe(&function, capability);
            (capability, table, u64::from(vectors) * 16)
        });
        Ok(Self {
            id: function.id(),
            is_bridge,
            forwarded: core::array::from_fn(|n| function.read32(FORWARDED.start + 4 * n as u16)),
            bars,
            power: function.capability(POWER_MANAGEMENT),
            express: function.capability(PCI_EXPRESS),
            advanced: function.capability(ADVANCED_FEATURES),
            msi: function.capability(MSI),
            msix,
            function,
        })
    }

    /// The memory BAR with that index, where it was at the start.
    pub fn home(&self, index: u8) -> Option<Window> {
        let bar = self.bars.get(usize::from(index)).copied().flatten()?;
        (bar.kind != Kind::Io && bar.address != 0).then(|| Window::device(bar.address, bar.size))
    }

    /// First port and number of ports of the I/O BAR with that index, where it was at the start.
    pub fn ports(&self, index: u8) -> Option<(u16, u64)> {
        let bar = self.bars.get(usize::from(index)).copied().flatten()?;
        (bar.kind == Kind::Io && bar.address >= 0x1000).then_some((bar.address as u16, bar.size))
    }

    /// Awake, and its BARs where they were at the start, answering or not; a bridge forwards what it did, and what is
    /// below it has power and no reset. Returns the number of writes.
    pub fn restore(&self, decode: bool) -> u64 {
        let function = &self.function;
        if self.is_bridge {
            return self.restore_bridge();
        }
        let mut writes = 1;
        if let Some(power) = self.power {
            function.write16(power + 4, 0);
            writes += 1;
        }
        for bar in self.bars.iter().flatten() {
            let register = 0x10 + 4 * u16::from(bar.index);
            function.write32(register, bar.address as u32);
            writes += 1;
            if bar.kind.is_pair() {
                function.write32(register + 4, (bar.address >> 32) as u32);
                writes += 1;
            }
        }
        let decode = if decode { DECODE_IO | DECODE_MEMORY } else { 0 };
        function.write16(COMMAND, decode | INTX_DISABLE);
        writes
    }

    fn restore_bridge(&self) -> u64 {
        let function = &self.function;
        let mut writes = 2;
        function.write16(BRIDGE_CONTROL, 0);
        if let Some(power) = self.power {
            function.write16(power + 4, 0);
            writes += 1;
        }
        if let Some(express) = self.express
            && function.read16(express + 2) & HAS_SLOT != 0
        {
            function.write16(express + SLOT_CONTROL, 0);
            writes += 1;
        }
        for (offset, value) in FORWARDED.step_by(4).zip(self.forwarded) {
            function.write32(offset, value);
            writes += 1;
        }
        function.write16(COMMAND, DECODE_IO | DECODE_MEMORY | INTX_DISABLE);
        writes
    }
}
