//! The registers of slotpass' simulated function.

use runtime::bar::{Bar, Kind};
use runtime::function::Function;
use runtime::time::Deadline;
use runtime::window::Window;
use runtime::{Check, ensure, fail, port};

pub const VENDOR: u16 = 0x5350;
pub const DEVICE: u16 = 0x0001;

/// "SLTP"
pub const IDENTITY: u32 = 0x5054_4c53;

/// Registers in BAR0.
pub const ID: u64 = 0x00;
pub const VERSION: u64 = 0x04;
pub const SCRATCH: u64 = 0x08;
pub const VECTORS: u64 = 0x0c;
const DMA_SOURCE: u64 = 0x10;
const DMA_DESTINATION: u64 = 0x18;
const DMA_LENGTH: u64 = 0x20;
const DMA_CONTROL: u64 = 0x24;
const DMA_STATUS: u64 = 0x28;
const TIMER_PERIOD: u64 = 0x30;
const TIMER_COUNT: u64 = 0x34;
const TIMER_FIRST: u64 = 0x38;
const TIMER_LAST: u64 = 0x3c;
const TIMER_CONTROL: u64 = 0x40;
pub const TIMER_RAISED: u64 = 0x44;
pub const TRIGGER: u64 = 0x48;
const DOORBELL: u64 = 0x50;

const DMA_START: u32 = 1;
const DMA_RAISE: u32 = 2;
const DMA_BUSY: u32 = 1;
pub const DMA_DONE: u32 = 2;
pub const DMA_ERROR: u32 = 3;
pub const LONGEST_DMA: u32 = 16 << 20;

/// Ports in BAR1.
pub const IO_ID: u16 = 0x00;
pub const IO_SCRATCH: u16 = 0x04;
pub const IO_INDEX: u16 = 0x08;
pub const IO_DATA: u16 = 0x0c;

/// In BAR4: memory before and behind the page with the pending bits.
pub const TABLE_MEMORY: [(u64, u64); 2] = [(0x1000, 0x7000), (0x9000, 0x7000)];

/// Microseconds, for a device whose work another thread of a busy host does.
pub const PATIENCE: u64 = 5_000_000;

/// Kind and size of each BAR.
const BARS: [Option<(Kind, u64)>; 6] = [
    Some((Kind::Memory32 { prefetchable: false }, 4 << 10)),
    Some((Kind::Io, 64)),
    Some((Kind::Memory64 { prefetchable: true }, 1 << 20)),
    None,
    Some((Kind::Memory64 { prefetchable: false }, 64 << 10)),
    None,
];

pub struct Simulated {
    /// BAR0, trapped.
    pub registers: Window,
    /// BAR1, first port.
    pub ports: u16,
    /// BAR2, mapped.
    pub memory: Window,
    /// BAR4, with the MSI-X table and the pending bits; the rest is mapped.
    pub tables: Window,
}

impl Simulated {
    /// Fails if the BARs are not as they should be.
    pub fn of(function: &Function) -> Check<Self> {
        for (index, (seen, wanted)) in function.bars().iter().zip(BARS).enumerate() {
            match (seen, wanted) {
                (None, None) => {}
                (Some(Bar { kind, size, .. }), Some(wanted)) if (*kind, *size) == wanted => {}
                (Some(Bar { kind, size, .. }), Some((wanted_kind, wanted_size))) => {
                    fail!("BAR{index} is {kind} of {size:#x}, should be {wanted_kind} of {wanted_size:#x}")
                }
                (None, Some(_)) => fail!("BAR{index} is missing"),
                (Some(_), None) => fail!("BAR{index} should not be there"),
            }
        }
        Ok(Self {
            registers: function.memory_bar(0)?,
            ports: function.io_bar(1)?,
            memory: function.memory_bar(2)?,
            tables: function.memory_bar(4)?,
        })
    }

    #[inline]
    pub fn trigger(&self, vector: u16) {
        self.registers.write32(TRIGGER, u32::from(vector));
    }

    /// Raises vector 0 a little later.
    pub fn ring(&self) {
        self.registers.write32(DOORBELL, 0);
    }

    /// Copies guest memory and returns the status it ends with. `raise`: the vector that says so.
    pub fn copy(&self, source: u64, destination: u64, length: u32, raise: Option<u16>) -> Check<u32> {
        self.write_address(DMA_SOURCE, source);
        self.write_address(DMA_DESTINATION, destination);
        self.registers.write32(DMA_LENGTH, length);
        let raise = raise.map_or(0, |vector| DMA_RAISE | u32::from(vector) << 16);
        self.registers.write32(DMA_CONTROL, DMA_START | raise);
        let deadline = Deadline::after_microseconds(PATIENCE);
        loop {
            let status = self.registers.read32(DMA_STATUS);
            if status != DMA_BUSY {
                return Ok(status);
            }
            ensure!(!deadline.passed(), "DMA of {length} bytes is never done");
        }
    }

    fn write_address(&self, register: u64, address: u64) {
        self.registers.write32(register, address as u32);
        self.registers.write32(register + 4, (address >> 32) as u32);
    }

    /// Starts `count` ticks over the vectors from `first` to `last`, in turn.
    pub fn start_timer(&self, microseconds: u32, count: u32, first: u16, last: u16) {
        self.registers.write32(TIMER_PERIOD, microseconds);
        self.registers.write32(TIMER_COUNT, count);
        self.registers.write32(TIMER_FIRST, u32::from(first));
        self.registers.write32(TIMER_LAST, u32::from(last));
        self.registers.write32(TIMER_CONTROL, 1);
    }

    pub fn timer_runs(&self) -> bool {
        self.registers.read32(TIMER_CONTROL) & 1 != 0
    }

    pub fn stop_timer(&self) {
        self.registers.write32(TIMER_CONTROL, 0);
    }

    /// Reads a BAR0 register through BAR1.
    pub fn read_indexed(&self, register: u64) -> u32 {
        port::write32(self.ports + IO_INDEX, register as u32);
        port::read32(self.ports + IO_DATA)
    }

    pub fn write_indexed(&self, register: u64, value: u32) {
        port::write32(self.ports + IO_INDEX, register as u32);
        port::write32(self.ports + IO_DATA, value);
    }
}
