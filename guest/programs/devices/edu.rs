//! QEMU's educational device (QEMU documentation, `specs/edu`): registers, a computation, DMA both ways, MSI.

use runtime::function::Function;
use runtime::msi::Msi;
use runtime::time::Deadline;
use runtime::window::Window;
use runtime::{Boot, Check, Text, apic, ensure, ensure_equal, fail, interrupt, pattern};

const IDENTIFICATION: u64 = 0x00;
const LIVENESS: u64 = 0x04;
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;
const STATUS_COMPUTING: u32 = 0x01;
const STATUS_INTERRUPT: u32 = 0x80;
const INTERRUPT_STATUS: u64 = 0x24;
const INTERRUPT_RAISE: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
const DMA_START: u64 = 1;
const DMA_TO_MEMORY: u64 = 2;
const DMA_INTERRUPT: u64 = 4;

const INTERRUPT_OF_FACTORIAL: u32 = 0x001;
const INTERRUPT_OF_DMA: u32 = 0x100;

/// The device's own memory, as seen by its DMA. It has 4096 bytes, of which some versions do not take the last.
const DEVICE_MEMORY: u64 = 0x40000;
const LENGTH: u64 = 2048;
/// By default the device reaches 28 bits.
const DMA_LIMIT: u64 = 1 << 28;

const VECTOR: u8 = 0x50;
/// A transfer takes the device 100 ms; on an emulated machine inside another one, much may come between.
const PATIENCE: u64 = 10_000_000;

struct Edu {
    registers: Window,
}

pub fn check(boot: &Boot, function: &Function) -> Check<Text> {
    function.expect_id(0x1234, 0x11e8)?;
    let edu = Edu { registers: function.memory_bar(0)? };
    let identification = edu.registers.read32(IDENTIFICATION);
    ensure!(identification & 0xffff == 0x00ed, "identification is {identification:#x}");
    for value in [0, u32::MAX, 0x1234_5678] {
        edu.registers.write32(LIVENESS, value);
        ensure_equal!(edu.registers.read32(LIVENESS), !value, "liveness");
    }

    let msi = Msi::of(function)?;
    msi.enable(apic::message(boot.apic_id, VECTOR), 1);
    edu.interrupt("a raised one", 0x1234, || edu.registers.write32(INTERRUPT_RAISE, 0x1234))?;
    edu.interrupt("the factorial", INTERRUPT_OF_FACTORIAL, || {
        edu.registers.write32(STATUS, STATUS_INTERRUPT);
        edu.registers.write32(FACTORIAL, 10);
    })?;
    let deadline = Deadline::after_microseconds(PATIENCE);
    while edu.registers.read32(STATUS) & STATUS_COMPUTING != 0 {
        ensure!(!deadline.passed(), "the factorial is never done");
    }
    edu.registers.write32(STATUS, 0);
    ensure_equal!(edu.registers.read32(FACTORIAL), 3_628_800u32, "10!");
    edu.dma(boot)?;
    msi.disable();
    Ok(Text::new(format_args!(
        "revision {}.{}, 10! computed, {LENGTH} bytes by DMA both ways, {} MSIs",
        identification >> 24,
        identification >> 16 & 0xff,
        interrupt::count(VECTOR)
    )))
}

impl Edu {
    /// Starts something and sees that it raises exactly one interrupt, with that status.
    fn interrupt(&self, what: &str, status: u32, start: impl FnOnce()) -> Check {
        let before = interrupt::count(VECTOR);
        start();
        if !interrupt::wakes(VECTOR, before + 1, PATIENCE) {
            fail!("interrupt of {what}: none, status {:#x}", self.registers.read32(INTERRUPT_STATUS));
        }
        ensure_equal!(self.registers.read32(INTERRUPT_STATUS), status, "interrupt status of {what}");
        self.registers.write32(INTERRUPT_ACKNOWLEDGE, status);
        ensure_equal!(self.registers.read32(INTERRUPT_STATUS), 0u32, "interrupt status after {what}");
        ensure_equal!(interrupt::count(VECTOR), before + 1, "interrupts of {what}");
        Ok(())
    }

    fn copy(&self, what: &str, source: u64, destination: u64, command: u64) -> Check {
        self.registers.write64(DMA_SOURCE, source);
        self.registers.write64(DMA_DESTINATION, destination);
        self.registers.write64(DMA_COUNT, LENGTH);
        self.interrupt(what, INTERRUPT_OF_DMA, || {
            self.registers.write64(DMA_COMMAND, DMA_START | DMA_INTERRUPT | command);
        })?;
        ensure_equal!(self.registers.read64(DMA_COMMAND) & DMA_START, 0u64, "DMA busy after {what}");
        Ok(())
    }

    fn dma(&self, boot: &Boot) -> Check {
        let buffer = |length| boot.memory.buffer(length, 4096, DMA_LIMIT);
        let (Some(source), Some(destination)) = (buffer(LENGTH), buffer(LENGTH + 16)) else {
            fail!("no memory for DMA buffers below {DMA_LIMIT:#x}");
        };
        for offset in (0..LENGTH).step_by(8) {
            source.write64(offset, pattern::word(offset, 0xed));
        }
        for offset in (0..LENGTH + 16).step_by(8) {
            destination.write64(offset, 0);
        }
        self.copy("DMA to the device", source.address(), DEVICE_MEMORY, 0)?;
        // So that the way back has to bring the bytes.
        for offset in (0..LENGTH).step_by(8) {
            source.write64(offset, 0);
        }
        self.copy("DMA to memory", DEVICE_MEMORY, destination.address() + 8, DMA_TO_MEMORY)?;
        for offset in (0..LENGTH).step_by(8) {
            ensure_equal!(destination.read64(offset + 8), pattern::word(offset, 0xed), "DMA at {offset:#x}");
        }
        ensure_equal!(destination.read64(0), 0u64, "DMA, before the buffer");
        ensure_equal!(destination.read64(LENGTH + 8), 0u64, "DMA, behind the buffer");
        Ok(())
    }
}
