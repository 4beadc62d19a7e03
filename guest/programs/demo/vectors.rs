//! Interrupts of every kind that the function has.

use runtime::msi::Msi;
use runtime::msix::MsiX;
use runtime::time::{Deadline, sleep_microseconds};
use runtime::{Check, Text, apic, cpus, ensure, ensure_equal, fail, interrupt};

use crate::Demo;
use crate::simulated::{DMA_DONE, PATIENCE, TIMER_RAISED, VECTORS};

/// So many vectors of the function have processor vectors of their own at a time.
const AT_ONCE: u16 = 128;
const FIRST: u8 = 0x40;
/// How long to wait for an interrupt that must not come.
pub const QUIET_MICROSECONDS: u64 = 3000;

/// Processor vector of a vector of the function.
fn processor_vector(vector: u16) -> u8 {
    FIRST + (vector % AT_ONCE) as u8
}

/// Counts of the vectors from a point in time on.
pub struct Counts([u64; AT_ONCE as usize]);

impl Counts {
    pub fn now() -> Self {
        Self(core::array::from_fn(|n| interrupt::count(FIRST + n as u8)))
    }

    pub fn since(&self, vector: u16) -> u64 {
        interrupt::count(processor_vector(vector)) - self.0[usize::from(vector % AT_ONCE)]
    }

    /// Waits until each of these vectors has come, then sees that none came twice and no other came.
    pub fn expect_each_once(&self, vectors: core::ops::Range<u16>) -> Check {
        let deadline = Deadline::after_microseconds(PATIENCE);
        while let Some(missing) = vectors.clone().find(|&vector| self.since(vector) == 0) {
            ensure!(!deadline.passed(), "vector {missing} never came");
        }
        sleep_microseconds(QUIET_MICROSECONDS);
        let begin = vectors.start - vectors.start % AT_ONCE;
        for vector in begin..begin + AT_ONCE {
            let times = self.since(vector);
            let wanted = u64::from(vectors.contains(&vector));
            ensure!(times == wanted, "vector {vector} came {times} times instead of {wanted}");
        }
        Ok(())
    }
}

/// Programs these vectors, unmasked, all to this vCPU.
pub fn program(demo: &Demo, msix: &MsiX, vectors: core::ops::Range<u16>) -> Check {
    for vector in vectors {
        let message = apic::message(demo.boot.apic_id, processor_vector(vector));
        msix.program(vector, message, false);
        ensure!(
            msix.entry(vector) == (message.0, message.1, 0),
            "table entry {vector} reads {:x?}, should be {message:x?}",
            msix.entry(vector)
        );
    }
    Ok(())
}

fn mask(msix: &MsiX, vectors: core::ops::Range<u16>) {
    for vector in vectors {
        msix.set_mask(vector, true);
    }
}

pub fn each_once(demo: &Demo) -> Check<Text> {
    let msix = MsiX::of(demo.function)?;
    let count = msix.vectors();
    ensure_equal!(demo.device.registers.read32(VECTORS), count, "number of vectors in BAR0");
    for vector in 0..count {
        ensure_equal!(msix.entry(vector).2 & 1, 1u32, "mask of vector {vector} at the start");
    }
    msix.set_enabled(true);
    for begin in (0..count).step_by(usize::from(AT_ONCE)) {
        let round = begin..count.min(begin + AT_ONCE);
        program(demo, &msix, round.clone())?;
        let counts = Counts::now();
        for vector in round.clone() {
            demo.device.trigger(vector);
        }
        counts.expect_each_once(round.clone())?;
        mask(&msix, round);
    }
    program(demo, &msix, 0..1)?;
    let counts = Counts::now();
    demo.device.ring();
    counts.expect_each_once(0..1)?;
    mask(&msix, 0..1);
    ensure!(!msix.any_pending(), "a vector is pending");
    Ok(Text::new(format_args!("{count} vectors, and vector 0 by the doorbell")))
}

/// Raises a masked vector twice and sees that it pends, that nothing comes, and that it comes once when `unmask` has
/// let it.
fn pends(demo: &Demo, msix: &MsiX, vector: u16, unmask: impl FnOnce()) -> Check {
    let counts = Counts::now();
    demo.device.trigger(vector);
    demo.device.trigger(vector);
    let deadline = Deadline::after_microseconds(PATIENCE);
    while !msix.is_pending(vector) {
        ensure!(!deadline.passed(), "vector {vector} is masked and raised, but not pending");
    }
    sleep_microseconds(QUIET_MICROSECONDS);
    ensure_equal!(counts.since(vector), 0u64, "deliveries of masked vector {vector}");
    for other in (0..msix.vectors()).filter(|&other| other != vector) {
        ensure!(!msix.is_pending(other), "vector {other} is pending, only {vector} was raised");
    }
    unmask();
    counts.expect_each_once(vector..vector + 1)?;
    ensure!(!msix.is_pending(vector), "vector {vector} is pending still after it was delivered");
    Ok(())
}

pub fn masked(demo: &Demo) -> Check<Text> {
    let msix = MsiX::of(demo.function)?;
    let last = msix.vectors() - 1;
    for vector in [0, last / 2, last] {
        program(demo, &msix, vector..vector + 1)?;
        msix.set_mask(vector, true);
        pends(demo, &msix, vector, || msix.set_mask(vector, false))?;
        msix.set_mask(vector, true);
    }
    Ok(Text::new(format_args!("vectors 0, {} and {last}: pending bit, one delivery on unmask", last / 2)))
}

pub fn function_masked(demo: &Demo) -> Check<Text> {
    let msix = MsiX::of(demo.function)?;
    program(demo, &msix, 1..2)?;
    msix.set_function_mask(true);
    let result = pends(demo, &msix, 1, || msix.set_function_mask(false));
    msix.set_function_mask(false);
    msix.set_mask(1, true);
    result?;
    Ok(Text::new(format_args!("pending bit, one delivery on unmask")))
}

pub fn timer(demo: &Demo) -> Check<Text> {
    const PERIOD: u32 = 100;
    let msix = MsiX::of(demo.function)?;
    let round = 0..msix.vectors().min(AT_ONCE);
    program(demo, &msix, round.clone())?;
    let counts = Counts::now();
    // Each vector once: two ticks of one vector could merge in the local APIC of a vCPU that does not run.
    demo.device.start_timer(PERIOD, u32::from(round.end), 0, round.end - 1);
    counts.expect_each_once(round.clone())?;
    ensure_equal!(demo.device.registers.read32(TIMER_RAISED), round.end, "ticks raised");
    let deadline = Deadline::after_microseconds(PATIENCE);
    while demo.device.timer_runs() {
        ensure!(!deadline.passed(), "the timer runs on after its last tick");
    }
    demo.device.stop_timer();

    let counts = Counts::now();
    let Some(buffer) = demo.boot.memory.buffer(4096, 4096, 1 << 32) else { fail!("no memory left") };
    let status = demo.device.copy(buffer.address(), buffer.address() + 2048, 2048, Some(round.end - 1))?;
    ensure_equal!(status, DMA_DONE, "DMA status");
    counts.expect_each_once(round.end - 1..round.end)?;
    mask(&msix, round.clone());
    Ok(Text::new(format_args!("{} ticks of {PERIOD} us over as many vectors; DMA's own vector", round.end)))
}

pub fn msi(demo: &Demo) -> Check<Text> {
    let msix = MsiX::of(demo.function)?;
    let msi = Msi::of(demo.function)?;
    msix.set_enabled(false);
    let result = msi_vectors(demo, &msi);
    msi.disable();
    msix.set_enabled(true);
    result
}

fn msi_vectors(demo: &Demo, msi: &Msi) -> Check<Text> {
    let count = u16::from(msi.vectors());
    let counts = Counts::now();
    if msi.is_maskable() {
        msi.set_mask(0);
    }
    msi.enable(apic::message(demo.boot.apic_id, FIRST), msi.vectors());
    for vector in 0..count {
        demo.device.trigger(vector);
    }
    counts.expect_each_once(0..count)?;
    if !msi.is_maskable() {
        return Ok(Text::new(format_args!("{count} vectors")));
    }
    let last = count - 1;
    msi.set_mask(1 << last);
    let counts = Counts::now();
    demo.device.trigger(last);
    let deadline = Deadline::after_microseconds(PATIENCE);
    while msi.pending() != 1 << last {
        ensure!(
            !deadline.passed(),
            "vector {last} is masked and raised, pending bits are {:#x}",
            msi.pending()
        );
    }
    ensure_equal!(counts.since(last), 0u64, "deliveries of masked vector {last}");
    msi.set_mask(0);
    counts.expect_each_once(last..count)?;
    ensure_equal!(msi.pending(), 0u32, "pending bits after the delivery");
    Ok(Text::new(format_args!("{count} vectors; a masked one pends")))
}

pub fn each_vcpu(demo: &Demo) -> Check<Text> {
    let msix = MsiX::of(demo.function)?;
    for index in 0..demo.vcpus {
        let id = if index == 0 { Some(demo.boot.apic_id) } else { cpus::apic_id(index) };
        let Some(id) = id else { fail!("vCPU {index} has not come up") };
        let counts = Counts::now();
        msix.program(0, apic::message(id, processor_vector(0)), false);
        demo.device.trigger(0);
        counts.expect_each_once(0..1)?;
        ensure!(index == 0 || cpus::run(index, || ()), "vCPU {index} does not work");
    }
    msix.set_mask(0, true);
    Ok(Text::new(format_args!("{}", demo.vcpus)))
}
