//! Interrupt vectors: counted and timed by `shim/vectors.s`, which also ends them.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::apic;
use crate::call::{Call, call};
use crate::time::Deadline;

/// Vectors for level interrupts: after [`hold`], the program ends them itself, once their device is silent.
pub const HELD: Range<u8> = 0x20..0x30;
/// The first vector that is not an exception and never held.
pub const FIRST: u8 = 0x30;
/// Non-maskable interrupts are counted, and nothing else.
pub const NON_MASKABLE: u8 = 2;
/// The last one free for devices.
pub const LAST: u8 = 0xef;
/// The local APIC's timer, whose ticks end a halt.
pub(crate) const TIMER: u8 = 0xf0;
/// Wakes a vCPU that waits for work.
pub(crate) const WAKE: u8 = 0xf1;
pub(crate) const SPURIOUS: u8 = 0xff;

#[repr(C)]
struct Record {
    count: AtomicU64,
    handled_at: AtomicU64,
}

unsafe extern "C" {
    static vector_records: [Record; 256];
    static hold_interrupts: AtomicU32;
}

/// Whether the vectors of [`HELD`] stay in service until [`end`].
pub fn hold(on: bool) {
    // SAFETY: defined by shim/vectors.s, which only reads it.
    unsafe { &hold_interrupts }.store(u32::from(on), Ordering::Release);
}

/// Ends the interrupt that is in service at this vCPU; until then those of its class and below wait.
pub fn end() {
    apic::end_of_interrupt();
}

fn record(vector: u8) -> &'static Record {
    // SAFETY: defined by shim/vectors.s; both sides access it atomically.
    unsafe { &vector_records[usize::from(vector)] }
}

/// How often the vector was delivered since boot, to any vCPU.
#[must_use]
pub fn count(vector: u8) -> u64 {
    record(vector).count.load(Ordering::Acquire)
}

/// Time stamp counter when the handler of the latest delivery began.
#[must_use]
pub fn handled_at(vector: u8) -> u64 {
    record(vector).handled_at.load(Ordering::Acquire)
}

/// Whether the vector has been delivered `count` times within `microseconds`. Spins, so that the vector meets a
/// vCPU that runs.
#[must_use]
pub fn reaches(vector: u8, wanted: u64, microseconds: u64) -> bool {
    let deadline = Deadline::after_microseconds(microseconds);
    loop {
        if count(vector) >= wanted {
            return true;
        }
        if deadline.passed() {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Like [`reaches`], but halts, so that the vector has to wake the vCPU.
#[must_use]
pub fn wakes(vector: u8, wanted: u64, microseconds: u64) -> bool {
    let deadline = Deadline::after_microseconds(microseconds);
    apic::start_ticks(microseconds);
    let woken = loop {
        let seen = count(vector);
        if seen >= wanted {
            break true;
        }
        if deadline.passed() {
            break false;
        }
        halt_while(vector, seen);
    };
    apic::stop_ticks();
    woken
}

/// Halts until any interrupt comes, unless `vector` was delivered since `seen`.
pub(crate) fn halt_while(vector: u8, seen: u64) {
    // SAFETY: the shim compares the counter with interrupts off and halts with them on.
    unsafe { call(Call::Wait, (&raw const record(vector).count) as u64, seen) };
}
