//! What ends a program early: a processor exception, or a panic.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::{power, println};

/// Exit port values; nothing else of the runtime uses them.
const PANIC: u8 = 0x7c;
const EXCEPTION: u8 = 0x7d;

/// Written by `shim/vectors.s`.
#[repr(C)]
struct Exception {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rsp: u64,
    cr2: u64,
}

#[unsafe(no_mangle)]
extern "C" fn exception_report(exception: &Exception) -> ! {
    println!(
        "FAIL exception {} error {:#x} at {:#x}:{:#x} rsp {:#x} cr2 {:#x}",
        exception.vector, exception.error, exception.cs, exception.rip, exception.rsp, exception.cr2
    );
    power::exit(EXCEPTION)
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    if !PANICKING.swap(true, Ordering::Relaxed) {
        println!("FAIL {info}");
    }
    power::exit(PANIC)
}

/// The precompiled `core` refers to these two; with panic=abort nothing calls them.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    power::exit(PANIC)
}
