//! Config space, by the two mechanisms that a PC has.

use crate::port;
use crate::slot::Slot;
use crate::window::Window;

/// Ports 0xCF8 and 0xCFC: the first 256 bytes of any function of segment 0.
#[derive(Clone, Copy, Debug)]
pub struct Ports;

/// Memory-mapped config space as the ACPI table MCFG names it: 4 KiB of each function.
#[derive(Clone, Copy, Debug)]
pub struct Ecam {
    window: Window,
    first_bus: u8,
    last_bus: u8,
}

/// Accesses to the config space of one function. Offsets are naturally aligned.
pub trait ConfigSpace {
    fn read8(&self, offset: u16) -> u8;
    fn read16(&self, offset: u16) -> u16;
    fn read32(&self, offset: u16) -> u32;
    fn write8(&self, offset: u16, value: u8);
    fn write16(&self, offset: u16, value: u16);
    fn write32(&self, offset: u16, value: u32);
}

#[derive(Clone, Copy, Debug)]
pub struct PortsConfig(Slot);

#[derive(Clone, Copy, Debug)]
pub struct EcamConfig(Window);

impl Ports {
    #[must_use]
    pub fn at(self, slot: Slot) -> PortsConfig {
        PortsConfig(slot)
    }
}

impl PortsConfig {
    /// What selects a register at port 0xCF8.
    ///
    /// # Panics
    /// If the offset is beyond the first 256 bytes.
    #[must_use]
    pub fn address(self, offset: u16) -> u32 {
        assert!(offset < 256, "no CF8 address for offset {offset:#x}");
        1 << 31 | u32::from(self.0.bits()) << 8 | u32::from(offset & 0xfc)
    }

    fn select(self, offset: u16) -> u16 {
        port::write32(0xcf8, self.address(offset));
        0xcfc + (offset & 3)
    }
}

impl ConfigSpace for PortsConfig {
    fn read8(&self, offset: u16) -> u8 {
        port::read8(self.select(offset))
    }
    fn read16(&self, offset: u16) -> u16 {
        port::read16(self.select(offset))
    }
    fn read32(&self, offset: u16) -> u32 {
        port::read32(self.select(offset))
    }
    fn write8(&self, offset: u16, value: u8) {
        port::write8(self.select(offset), value);
    }
    fn write16(&self, offset: u16, value: u16) {
        port::write16(self.select(offset), value);
    }
    fn write32(&self, offset: u16, value: u32) {
        port::write32(self.select(offset), value);
    }
}

impl Ecam {
    /// # Panics
    /// If the buses are in the wrong order.
    #[must_use]
    pub fn new(base: u64, first_bus: u8, last_bus: u8) -> Self {
        assert!(first_bus <= last_bus, "ECAM from bus {first_bus} to bus {last_bus}");
        // The base is where bus 0 is or would be (PCI Firmware Specification 3.3, 4.1.2).
        let begin = base + (u64::from(first_bus) << 20);
        let window = Window::device(begin, (u64::from(last_bus - first_bus) + 1) << 20);
        Self { window, first_bus, last_bus }
    }

    #[must_use]
    pub fn base(&self) -> u64 {
        self.window.address() - (u64::from(self.first_bus) << 20)
    }

    #[must_use]
    pub fn buses(&self) -> (u8, u8) {
        (self.first_bus, self.last_bus)
    }

    /// `None` if the window does not hold that bus.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<EcamConfig> {
        let held = (self.first_bus..=self.last_bus).contains(&slot.bus);
        let offset = || (u64::from(slot.bits()) << 12) - (u64::from(self.first_bus) << 20);
        held.then(|| EcamConfig(self.window.part(offset(), 4096)))
    }
}

impl EcamConfig {
    /// All 4 KiB, for accesses of any kind.
    #[must_use]
    pub fn window(&self) -> Window {
        self.0
    }
}

impl ConfigSpace for EcamConfig {
    fn read8(&self, offset: u16) -> u8 {
        self.0.read8(u64::from(offset))
    }
    fn read16(&self, offset: u16) -> u16 {
        self.0.read16(u64::from(offset))
    }
    fn read32(&self, offset: u16) -> u32 {
        self.0.read32(u64::from(offset))
    }
    fn write8(&self, offset: u16, value: u8) {
        self.0.write8(u64::from(offset), value);
    }
    fn write16(&self, offset: u16, value: u16) {
        self.0.write16(u64::from(offset), value);
    }
    fn write32(&self, offset: u16, value: u32) {
        self.0.write32(u64::from(offset), value);
    }
}
