//! The time stamp counter, and waiting.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{apic, interrupt};

/// Cycles per microsecond.
static RATE: AtomicU64 = AtomicU64::new(1000);

/// The time stamp counter.
#[must_use]
#[inline]
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has it, and CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// TSC cycles of two readings of the counter, with nothing between them but what [`Window::cycles_of_read32`] has there too.
///
/// [`Window::cycles_of_read32`]: crate::window::Window::cycles_of_read32
#[must_use]
pub fn cycles_of_nothing() -> u64 {
    let cycles: u32;
    // SAFETY: as `cycles`.
    unsafe {
        asm!(
            "lfence", "rdtsc", "mov {begin:e}, eax", "lfence", "rdtsc", "sub eax, {begin:e}",
            begin = out(reg) _, out("eax") cycles, out("edx") _, options(nomem, nostack)
        );
    }
    cycles.into()
}

/// Rate of the time stamp counter as measured at boot against the local APIC's timer.
#[must_use]
pub fn cycles_per_microsecond() -> u64 {
    RATE.load(Ordering::Relaxed)
}

/// Measures the rate. Where the host takes the processor away in the middle of a measurement, that one is wrong, by any
/// factor: so it is the median of several.
pub(crate) fn set_up() {
    let mut rates = [(); 5].map(|()| measure());
    rates.sort_unstable();
    if let Some(rate) = rates[rates.len() / 2] {
        RATE.store(rate, Ordering::Relaxed);
    }
}

/// Cycles per microsecond over a millisecond; nothing if the timer stands still.
fn measure() -> Option<u64> {
    const START: u32 = u32::MAX;
    const SPAN: u32 = 1_000_000;
    // This many cycles are more than a millisecond on any processor.
    const MOST_CYCLES: u64 = 1_000_000_000;
    let left = apic::count_down(START);
    // The counter's first reading is behind one access, so that both ends of the span have the same delay.
    let first = left();
    let begin = cycles();
    let rate = loop {
        let passed = first.saturating_sub(left());
        let spent = cycles().wrapping_sub(begin);
        if passed >= SPAN {
            break Some((spent * 1000 / u64::from(passed)).max(1));
        }
        if spent > MOST_CYCLES {
            break None;
        }
    };
    apic::stop_ticks();
    rate
}

#[derive(Clone, Copy)]
pub struct Deadline {
    begin: u64,
    span: u64,
}

impl Deadline {
    #[must_use]
    pub fn after_microseconds(microseconds: u64) -> Self {
        Self { begin: cycles(), span: microseconds.saturating_mul(cycles_per_microsecond()) }
    }

    #[must_use]
    pub fn passed(self) -> bool {
        cycles().wrapping_sub(self.begin) >= self.span
    }
}

/// Halts for about that long.
pub fn sleep_microseconds(microseconds: u64) {
    let deadline = Deadline::after_microseconds(microseconds);
    apic::start_ticks(microseconds);
    while !deadline.passed() {
        interrupt::halt_while(interrupt::TIMER, interrupt::count(interrupt::TIMER));
    }
    apic::stop_ticks();
}
