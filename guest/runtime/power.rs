//! How a guest ends.

use crate::acpi::{Acpi, Register};
use crate::boot::Boot;
use crate::call::{Call, call};
use crate::window::Window;
use crate::{Check, interrupt, port, println, time};

/// A write of v ends the hypervisor with exit code (v << 1) | 1.
const EXIT_PORT: u16 = 0xf4;
const SLEEP_ENABLE: u16 = 1 << 13;

/// How long a device may take to act on a write that should have ended the guest.
const PATIENCE: u64 = 100_000;

/// What a program returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// This value goes to the exit port.
    Exit(u8),
    /// Powers off by ACPI; if the machine does not, 0 goes to the exit port.
    PowerOff,
}

impl Outcome {
    /// Something was not as it should be.
    pub const FAILED: Outcome = Outcome::Exit(1);
    /// A word of the command line means nothing here.
    pub const UNKNOWN_WORD: Outcome = Outcome::Exit(2);

    /// Of a program that takes these words and does one thing, to be named when that fails.
    pub fn of(boot: &Boot, name: &str, words: &[&str], run: impl FnOnce(&Boot) -> Check) -> Outcome {
        if let Some((word, value)) = boot.command_line.words().find(|(word, _)| !words.contains(word)) {
            println!("FAIL unknown word {word}={value}");
            return Outcome::UNKNOWN_WORD;
        }
        match run(boot) {
            Ok(()) => Outcome::PowerOff,
            Err(why) => {
                println!("FAIL {name} {why}");
                Outcome::FAILED
            }
        }
    }
}

pub(crate) fn end(boot: &Boot, outcome: Outcome) -> ! {
    match outcome {
        Outcome::Exit(value) => exit(value),
        Outcome::PowerOff => {
            power_off(boot.acpi.as_ref());
            exit(0)
        }
    }
}

/// Ends the guest by the exit port, or halts for good if there is none.
pub fn exit(value: u8) -> ! {
    port::write8(EXIT_PORT, value);
    halt()
}

/// Halts for good.
pub fn halt() -> ! {
    loop {
        interrupt::halt_while(interrupt::SPURIOUS, interrupt::count(interrupt::SPURIOUS));
    }
}

/// Goes to ACPI's S5. Returns if the machine has no such thing or does not act on it.
pub fn power_off(acpi: Option<&Acpi>) {
    if let Some((control, sleep_type)) = acpi.and_then(Acpi::power_off) {
        port::write16(control, SLEEP_ENABLE | u16::from(sleep_type) << 10);
        time::sleep_microseconds(PATIENCE);
    }
}

/// Resets by the register that the FADT names, otherwise by port 0xCF9, otherwise by the keyboard controller.
/// Returns if nothing of that works.
pub fn reset(acpi: Option<&Acpi>) {
    match acpi.and_then(Acpi::reset) {
        Some((Register::Port(port), value)) => port::write8(port, value),
        Some((Register::Memory(address), value)) => Window::device(address, 1).write8(0, value),
        None => {
            port::write8(0xcf9, 0x02);
            port::write8(0xcf9, 0x06);
        }
    }
    time::sleep_microseconds(PATIENCE);
    port::write8(0x64, 0xfe);
    time::sleep_microseconds(PATIENCE);
}

/// How a vCPU waits for good, with interrupts off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stay {
    Spinning,
    Halted,
}

/// Resets by port 0xCF9, and does nothing after that by which the hypervisor would notice.
pub fn reset_and_stay(how: Stay) -> ! {
    // SAFETY: as for a port write; it does not return.
    unsafe { call(Call::ResetAndStay, u64::from(how == Stay::Halted), 0) };
    halt()
}

/// An exception without any gate to go to.
pub fn triple_fault() -> ! {
    // SAFETY: does not return, so nothing relies on the gates any more.
    unsafe { call(Call::TripleFault, 0, 0) };
    halt()
}
