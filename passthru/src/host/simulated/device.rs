//! What the simulated function does: registers, a DMA engine, and a timer that raises vectors.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vm_memory::VolatileSlice;

use super::config::MSIX_VECTORS;
use super::vectors::SimulatedTriggers;
use crate::ports::{DmaRegion, MemoryPort};

/// Offsets of BAR 0's registers, each of 32 bits.
mod register {
    pub const ID: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const SCRATCH: u64 = 0x08;
    pub const VECTORS: u64 = 0x0c;
    pub const DMA_SOURCE_LOW: u64 = 0x10;
    pub const DMA_SOURCE_HIGH: u64 = 0x14;
    pub const DMA_TARGET_LOW: u64 = 0x18;
    pub const DMA_TARGET_HIGH: u64 = 0x1c;
    pub const DMA_LEN: u64 = 0x20;
    pub const DMA_CONTROL: u64 = 0x24;
    pub const DMA_STATUS: u64 = 0x28;
    pub const TIMER_PERIOD: u64 = 0x30;
    pub const TIMER_COUNT: u64 = 0x34;
    pub const TIMER_FIRST: u64 = 0x38;
    pub const TIMER_LAST: u64 = 0x3c;
    pub const TIMER_CONTROL: u64 = 0x40;
    pub const TIMER_RAISED: u64 = 0x44;
    pub const TRIGGER: u64 = 0x48;
    pub const INTX: u64 = 0x4c;
}

/// "SLTP"
const ID: u32 = 0x5054_4c53;
const VERSION: u32 = 1;
/// Longest copy, in bytes.
const DMA_MOST: u32 = 16 << 20;
const DMA_START: u32 = 1 << 0;
const DMA_RAISE: u32 = 1 << 1;
const DMA_IDLE: u32 = 0;
const DMA_BUSY: u32 = 1;
const DMA_DONE: u32 = 2;
const DMA_ERROR: u32 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Registers {
    scratch: u32,
    io_scratch: u32,
    io_index: u32,
    dma_source: u64,
    dma_target: u64,
    dma_len: u32,
    dma_status: u32,
    timer_period: u32,
    timer_count: u32,
    timer_first: u32,
    timer_last: u32,
    timer_running: bool,
    timer_raised: u32,
    bus_master: bool,
    /// Grows with every reset and start of the timer, so that ticks of before do not come after.
    timer_generation: u64,
    /// Grows with every reset, so that a copy of before is neither made nor reported after.
    dma_generation: u64,
}

/// The function's inside, shared by the vCPUs that access it and the thread that works for it.
pub struct Device {
    shared: Arc<Shared>,
    work: Sender<Work>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    registers: Mutex<Registers>,
    /// Taken before the registers.
    copying: Mutex<()>,
    memory: Arc<dyn MemoryPort>,
    vectors: Arc<SimulatedTriggers>,
}

enum Work {
    Copy { source: u64, target: u64, len: u32, raise: Option<u16>, generation: u64 },
    Timer { generation: u64 },
    Stop,
}

impl Device {
    /// Starts its thread.
    pub fn new(memory: Arc<dyn MemoryPort>, vectors: Arc<SimulatedTriggers>) -> std::io::Result<Device> {
        let shared =
            Arc::new(Shared { registers: Mutex::default(), copying: Mutex::default(), memory, vectors });
        let (work, orders) = channel();
        let of_worker = shared.clone();
        let worker = Builder::new().name("simulated".to_owned()).spawn(move || of_worker.run(&orders))?;
        Ok(Device { shared, work, worker: Some(worker) })
    }

    /// Back to the state after power-on; what it was doing is dropped, but for a copy that is being made, which ends
    /// first.
    pub fn reset(&self) {
        // Held by a copy that is being made: after a reset nothing is written to memory any more.
        let _copying = self.shared.copying.lock();
        let mut registers = self.shared.registers.lock();
        let timer_generation = registers.timer_generation + 1;
        let dma_generation = registers.dma_generation + 1;
        *registers = Registers { timer_generation, dma_generation, ..Registers::default() };
    }

    /// Bus mastering as the command register has it: without it there is no DMA.
    pub fn set_bus_master(&self, on: bool) {
        self.shared.registers.lock().bus_master = on;
    }

    /// Reads a register of BAR 0; other offsets read zero.
    pub fn read(&self, offset: u64) -> u32 {
        let registers = self.shared.registers.lock();
        match offset {
            register::ID => ID,
            register::VERSION => VERSION,
            register::SCRATCH => registers.scratch,
            register::VECTORS => u32::from(MSIX_VECTORS),
            register::DMA_SOURCE_LOW => registers.dma_source as u32,
            register::DMA_SOURCE_HIGH => (registers.dma_source >> 32) as u32,
            register::DMA_TARGET_LOW => registers.dma_target as u32,
            register::DMA_TARGET_HIGH => (registers.dma_target >> 32) as u32,
            register::DMA_LEN => registers.dma_len,
            register::DMA_STATUS => registers.dma_status,
            register::TIMER_PERIOD => registers.timer_period,
            register::TIMER_COUNT => registers.timer_count,
            register::TIMER_FIRST => registers.timer_first,
            register::TIMER_LAST => registers.timer_last,
            register::TIMER_CONTROL => u32::from(registers.timer_running),
            register::TIMER_RAISED => registers.timer_raised,
            register::INTX => u32::from(self.shared.vectors.line().is_asserted()),
            _ => 0,
        }
    }

    /// Writes a register of BAR 0.
    pub fn write(&self, offset: u64, value: u32) {
        let mut registers = self.shared.registers.lock();
        let low = |old: u64| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            register::SCRATCH => registers.scratch = value,
            register::DMA_SOURCE_LOW => registers.dma_source = low(registers.dma_source),
            register::DMA_SOURCE_HIGH => registers.dma_source = high(registers.dma_source),
            register::DMA_TARGET_LOW => registers.dma_target = low(registers.dma_target),
            register::DMA_TARGET_HIGH => registers.dma_target = high(registers.dma_target),
            register::DMA_LEN => registers.dma_len = value,
            // While it is busy it takes no further order.
            register::DMA_CONTROL if value & DMA_START != 0 && registers.dma_status != DMA_BUSY => {
                registers.dma_status = DMA_BUSY;
                let raise = (value & DMA_RAISE != 0).then_some((value >> 16) as u16);
                let Registers {
                    dma_source: source,
                    dma_target: target,
                    dma_len: len,
                    dma_generation: generation,
                    ..
                } = *registers;
                let _ = self.work.send(Work::Copy { source, target, len, raise, generation });
            }
            register::TIMER_PERIOD => registers.timer_period = value,
            register::TIMER_COUNT => registers.timer_count = value,
            register::TIMER_FIRST => registers.timer_first = value,
            register::TIMER_LAST => registers.timer_last = value,
            register::TIMER_CONTROL => {
                registers.timer_generation += 1;
                registers.timer_running = value & 1 != 0;
                if registers.timer_running {
                    registers.timer_raised = 0;
                    let _ = self.work.send(Work::Timer { generation: registers.timer_generation });
                }
            }
            register::INTX if value & 1 != 0 => {
                drop(registers);
                self.shared.vectors.line().assert(false);
            }
            register::TRIGGER => {
                drop(registers);
                if let Ok(vector) = u16::try_from(value) {
                    self.shared.vectors.raise(vector);
                }
            }
            _ => {}
        }
    }

    /// Reads a register of BAR 1, the I/O BAR.
    pub fn io_read(&self, offset: u64) -> u32 {
        match offset {
            0x0 => ID,
            0x4 => self.shared.registers.lock().io_scratch,
            0x8 => self.shared.registers.lock().io_index,
            0xc => {
                let index = self.shared.registers.lock().io_index;
                self.read(u64::from(index))
            }
            _ => 0,
        }
    }

    /// Writes a register of BAR 1.
    pub fn io_write(&self, offset: u64, value: u32) {
        match offset {
            0x4 => self.shared.registers.lock().io_scratch = value,
            0x8 => self.shared.registers.lock().io_index = value,
            0xc => {
                let index = self.shared.registers.lock().io_index;
                self.write(u64::from(index), value);
            }
            _ => {}
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.reset();
        let _ = self.work.send(Work::Stop);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn run(&self, orders: &Receiver<Work>) {
        let mut tick: Option<(Instant, u64)> = None;
        loop {
            let wait = tick.map_or(Duration::MAX, |(at, _)| at.saturating_duration_since(Instant::now()));
            match orders.recv_timeout(wait) {
                Ok(Work::Copy { source, target, len, raise, generation }) => {
                    self.copy(source, target, len, raise, generation);
                }
                Ok(Work::Timer { generation }) => {
                    tick = Some((Instant::now() + self.period(), generation));
                }
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    tick = tick.and_then(|(at, generation)| {
                        self.tick(generation).then(|| (at + self.period(), generation))
                    });
                }
            }
        }
    }

    fn period(&self) -> Duration {
        Duration::from_micros(u64::from(self.registers.lock().timer_period.max(1)))
    }

    /// Raises the next vector; says whether there are more to come.
    fn tick(&self, generation: u64) -> bool {
        let mut registers = self.registers.lock();
        if registers.timer_generation != generation || registers.timer_raised >= registers.timer_count {
            return false;
        }
        let span = registers.timer_last.saturating_sub(registers.timer_first).saturating_add(1);
        let vector = registers.timer_first.wrapping_add(registers.timer_raised % span.max(1));
        registers.timer_raised += 1;
        let more = registers.timer_raised < registers.timer_count;
        registers.timer_running = more;
        drop(registers);
        if let Ok(vector) = u16::try_from(vector) {
            self.vectors.raise(vector);
        }
        more
    }

    fn copy(&self, source: u64, target: u64, len: u32, raise: Option<u16>, generation: u64) {
        let _copying = self.copying.lock();
        let now = *self.registers.lock();
        if now.dma_generation != generation {
            return;
        }
        let allowed = now.bus_master && len <= DMA_MOST;
        let done = allowed && copy(&self.memory.dma_regions(), source, target, len as usize);
        let mut registers = self.registers.lock();
        registers.dma_status = if done { DMA_DONE } else { DMA_ERROR };
        drop(registers);
        if let Some(vector) = raise.filter(|_| done) {
            self.vectors.raise(vector);
        }
    }
}

fn copy(regions: &[DmaRegion], source: u64, target: u64, len: usize) -> bool {
    match (slice(regions, source, len), slice(regions, target, len)) {
        (Some(source), Some(target)) => {
            source.copy_to_volatile_slice(target);
            true
        }
        _ => false,
    }
}

fn slice(regions: &[DmaRegion], address: u64, len: usize) -> Option<VolatileSlice<'_>> {
    let region = regions.iter().find(|r| {
        let offset = address.checked_sub(r.guest);
        offset.is_some_and(|o| o.checked_add(len as u64).is_some_and(|end| end <= r.len))
    })?;
    let offset = usize::try_from(address - region.guest).ok()?;
    // SAFETY: the VMM keeps its guest's memory mapped while functions are attached, the range was checked to lie inside
    // of it, and volatile slices are what shared memory is accessed by.
    Some(unsafe { VolatileSlice::new(region.host.add(offset), len) })
}

const _: () = assert!(DMA_IDLE == 0, "the status after a reset is the default of its field");
