//! One function: its ids, its BARs, its switches.

use core::fmt;

use crate::acpi::Acpi;
use crate::bar::{self, Bar, Kind, Register};
use crate::capability::{self, Capability};
use crate::config::{ConfigSpace, EcamConfig, Ports, PortsConfig};
use crate::slot::Slot;
use crate::window::Window;
use crate::{Check, fail};

pub const COMMAND: u16 = 0x04;
pub const DECODE_IO: u16 = 1;
pub const DECODE_MEMORY: u16 = 2;
pub const BUS_MASTER: u16 = 4;
pub const INTX_DISABLE: u16 = 1 << 10;

pub const STATUS: u16 = 0x06;
/// The function asserts INTx, whether the disable bit holds it back or not.
pub const STATUS_INTX: u16 = 1 << 3;

/// 1 to 4, or 0 if the function has no INTx.
pub const INTERRUPT_PIN: u16 = 0x3d;

/// Config accesses go by ECAM where there is one.
pub struct Function {
    slot: Slot,
    ports: PortsConfig,
    ecam: Option<EcamConfig>,
}

impl Function {
    /// The function in that slot. Fails if the slot is empty.
    pub fn find(slot: Slot, acpi: Option<&Acpi>) -> Check<Self> {
        let ecam = acpi.and_then(Acpi::ecam).and_then(|ecam| ecam.at(slot));
        let function = Self { slot, ports: Ports.at(slot), ecam };
        if function.read32(0) == u32::MAX {
            fail!("no function at {slot}");
        }
        Ok(function)
    }

    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    #[must_use]
    pub fn ports(&self) -> &PortsConfig {
        &self.ports
    }

    #[must_use]
    pub fn ecam(&self) -> Option<&EcamConfig> {
        self.ecam.as_ref()
    }

    /// Vendor in the lower half, device in the upper.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.read32(0)
    }

    pub fn expect_id(&self, vendor: u16, device: u16) -> Check {
        let wanted = u32::from(vendor) | u32::from(device) << 16;
        if self.id() != wanted {
            fail!("{} is {}, not {vendor:04x}:{device:04x}", self.slot, Id(self.id()));
        }
        Ok(())
    }

    pub fn capabilities(&self) -> impl Iterator<Item = Capability> {
        capability::walk(|offset| self.read8(u16::from(offset)))
    }

    #[must_use]
    pub fn capability(&self, id: u8) -> Option<u16> {
        self.capabilities().find(|capability| capability.id == id).map(|found| u16::from(found.offset))
    }

    /// Sizes all BARs, with decode off meanwhile, and leaves them as they were.
    #[must_use]
    pub fn bars(&self) -> [Option<Bar>; 6] {
        let command = self.read16(COMMAND);
        self.write16(COMMAND, command & !(DECODE_IO | DECODE_MEMORY));
        let registers: [Register; 6] = core::array::from_fn(|index| {
            let offset = 0x10 + 4 * index as u16;
            let value = self.read32(offset);
            self.write32(offset, u32::MAX);
            let mask = self.read32(offset);
            self.write32(offset, value);
            Register { value, mask }
        });
        self.write16(COMMAND, command);
        let mut bars = [None; 6];
        let mut index = 0;
        while index < 6 {
            let upper = registers.get(index + 1).copied().unwrap_or_default();
            bars[index] = bar::decode(index as u8, registers[index], upper);
            index += if bars[index].is_some_and(|bar| bar.kind.is_pair()) { 2 } else { 1 };
        }
        bars
    }

    /// Puts a 64-bit memory BAR somewhere else, with decode off meanwhile.
    pub fn move_bar(&self, index: u8, address: u64) -> Check {
        match self.bars().get(usize::from(index)) {
            Some(Some(bar)) if bar.kind.is_pair() => {}
            _ => fail!("BAR{index} is not a 64-bit memory BAR"),
        }
        let register = 0x10 + 4 * u16::from(index);
        let command = self.read16(COMMAND);
        self.write16(COMMAND, command & !DECODE_MEMORY);
        self.write32(register, address as u32);
        self.write32(register + 4, (address >> 32) as u32);
        self.write16(COMMAND, command);
        Ok(())
    }

    /// The memory BAR, mapped. Decode must be on for it to answer.
    pub fn memory_bar(&self, index: u8) -> Check<Window> {
        let bar = self.placed_memory_bar(index)?;
        Ok(Window::device(bar.address, bar.size))
    }

    /// A part of the memory BAR, mapped without the rest, which may be more than there are page tables for.
    pub fn memory_bar_part(&self, index: u8, offset: u64, length: u64) -> Check<Window> {
        let bar = self.placed_memory_bar(index)?;
        if offset.checked_add(length).is_none_or(|end| end > bar.size) {
            fail!("{offset:#x}+{length:#x} in BAR{index}, which has {:#x} bytes", bar.size);
        }
        Ok(Window::device(bar.address + offset, length))
    }

    /// The memory BAR, which has an address.
    pub fn placed_memory_bar(&self, index: u8) -> Check<Bar> {
        match self.bars().get(usize::from(index)) {
            Some(Some(bar)) if bar.kind != Kind::Io && bar.address != 0 => Ok(*bar),
            Some(Some(bar)) if bar.kind != Kind::Io => fail!("BAR{index} has no address"),
            _ => fail!("BAR{index} is not a memory BAR"),
        }
    }

    /// First port of the I/O BAR.
    pub fn io_bar(&self, index: u8) -> Check<u16> {
        match self.bars()[usize::from(index)] {
            Some(Bar { kind: Kind::Io, address, .. }) if address != 0 => Ok(address as u16),
            Some(Bar { kind: Kind::Io, .. }) => fail!("BAR{index} has no address"),
            _ => fail!("BAR{index} is not an I/O BAR"),
        }
    }

    /// Turns decode and bus mastering on, INTx off.
    pub fn enable(&self) {
        self.write16(COMMAND, DECODE_IO | DECODE_MEMORY | BUS_MASTER | INTX_DISABLE);
    }

    /// Turns the named bits of the command register on or off.
    pub fn set_command(&self, bits: u16, on: bool) {
        let command = self.read16(COMMAND);
        self.write16(COMMAND, if on { command | bits } else { command & !bits });
    }

    fn space(&self) -> &dyn ConfigSpace {
        match &self.ecam {
            Some(ecam) => ecam,
            None => &self.ports,
        }
    }
}

impl ConfigSpace for Function {
    fn read8(&self, offset: u16) -> u8 {
        self.space().read8(offset)
    }
    fn read16(&self, offset: u16) -> u16 {
        self.space().read16(offset)
    }
    fn read32(&self, offset: u16) -> u32 {
        self.space().read32(offset)
    }
    fn write8(&self, offset: u16, value: u8) {
        self.space().write8(offset, value);
    }
    fn write16(&self, offset: u16, value: u16) {
        self.space().write16(offset, value);
    }
    fn write32(&self, offset: u16, value: u32) {
        self.space().write32(offset, value);
    }
}

/// Prints as `vendor:device`.
pub struct Id(pub u32);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.0 & 0xffff, self.0 >> 16)
    }
}
