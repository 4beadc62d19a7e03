//! Cycles from one instruction of the guest to the next.

use runtime::config::{ConfigSpace, Ports};
use runtime::msix::MsiX;
use runtime::slot::Slot;
use runtime::time::{self, cycles};
use runtime::{Check, apic, ensure, interrupt, port, println};

use crate::Demo;
use crate::simulated::{IO_SCRATCH, PATIENCE, SCRATCH};

const ITERATIONS: u64 = 500;
const MOST_ITERATIONS: usize = 4096;
/// A port that no device claims.
const UNCLAIMED_PORT: u16 = 0x2c0;
const VECTOR: u8 = 0x40;

/// Times of one measurement.
struct Samples {
    cycles: [u32; MOST_ITERATIONS],
    count: usize,
}

impl Samples {
    /// Measures and prints. `one` returns the cycles of one iteration.
    fn measure(&mut self, name: &str, mut one: impl FnMut() -> Check<u64>) -> Check {
        // The first access may fill caches and page tables.
        one()?;
        let samples = &mut self.cycles[..self.count];
        for sample in samples.iter_mut() {
            *sample = u32::try_from(one()?).unwrap_or(u32::MAX);
        }
        samples.sort_unstable();
        let (least, median) = (samples[0], samples[samples.len() / 2]);
        let nanoseconds = u64::from(median) * 1000 / time::cycles_per_microsecond();
        println!("  {name:<38}{least:>10}{median:>10}{nanoseconds:>12}");
        Ok(())
    }
}

/// Cycles of an access, together with one read of the time stamp counter.
#[inline(always)]
fn timed<T>(access: impl FnOnce() -> T) -> Check<u64> {
    let begin = cycles();
    let result = access();
    let end = cycles();
    core::hint::black_box(result);
    Ok(end.wrapping_sub(begin))
}

pub fn run(demo: &Demo) -> Check {
    let iterations = demo.boot.command_line.number("iterations").unwrap_or(ITERATIONS);
    let count = usize::try_from(iterations).unwrap_or(MOST_ITERATIONS).clamp(1, MOST_ITERATIONS);
    let mut samples = Samples { cycles: [0; MOST_ITERATIONS], count };
    let (function, device) = (demo.function, &demo.device);
    let msix = MsiX::of(function)?;
    let table = msix.table();

    println!("\n{:<40}{:>10}{:>10}{:>12}", "cycles of", "least", "median", "median, ns");
    samples.measure("nothing", || timed(|| ()))?;
    let address = function.ports().address(0);
    samples.measure("config read by CF8", || Ok(port::cycles_of_config_read(address)))?;
    if let Some(ecam) = function.ecam() {
        samples.measure("config read by ECAM", || timed(|| ecam.read32(0)))?;
    }
    let absent = Ports.at(Slot::new(function.slot().bus, 31, 7)).address(0);
    samples.measure("config read by CF8, absent function", || Ok(port::cycles_of_config_read(absent)))?;
    samples.measure("trapped register, read", || timed(|| device.registers.read32(SCRATCH)))?;
    samples.measure("trapped register, write", || timed(|| device.registers.write32(SCRATCH, 1)))?;
    samples.measure("I/O BAR, read", || Ok(port::cycles_of_read32(device.ports + IO_SCRATCH)))?;
    samples.measure("mapped BAR, read", || timed(|| device.memory.read32(64)))?;
    samples.measure("mapped BAR, write", || timed(|| device.memory.write32(64, 1)))?;
    samples.measure("MSI-X table, read", || timed(|| table.read32(8)))?;
    // The data of a masked vector, so that nothing has to be armed.
    msix.set_mask(0, true);
    let mut data = 0;
    samples.measure("MSI-X table, write", || {
        data += 1;
        timed(|| table.write32(8, data))
    })?;
    samples.measure("unclaimed port, read", || Ok(port::cycles_of_read32(UNCLAIMED_PORT)))?;

    msix.program(0, apic::message(demo.boot.apic_id, VECTOR), false);
    samples.measure("vector, from trigger to handler", || {
        let next = interrupt::count(VECTOR) + 1;
        let begin = cycles();
        device.trigger(0);
        ensure!(interrupt::reaches(VECTOR, next, PATIENCE), "vector 0 never came");
        Ok(interrupt::handled_at(VECTOR).wrapping_sub(begin))
    })?;
    msix.set_mask(0, true);
    Ok(())
}
