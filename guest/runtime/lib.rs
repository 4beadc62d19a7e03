//! What every guest program stands on: boot, printing, ports, PCI, interrupts, memory, power.
//!
//! A program is one crate with a `fn main(&Boot) -> Outcome` and `runtime::program!(main)`. It runs at CPL3 with 0 to
//! 4 GiB identity mapped; `shim/` is what lies below it.
#![no_std]

pub mod acpi;
pub mod apic;
pub mod bar;
pub mod boot;
mod call;
pub mod capability;
pub mod command_line;
pub mod config;
pub mod cpus;
mod exception;
pub mod function;
pub mod interrupt;
pub mod io_apic;
pub mod memory;
pub mod msi;
pub mod msix;
pub mod msr;
mod paging;
pub mod pattern;
pub mod port;
pub mod power;
pub mod reserved;
pub mod serial;
pub mod sleep_type;
pub mod slot;
pub mod text;
pub mod time;
pub mod window;

pub use boot::Boot;
pub use power::Outcome;
pub use text::{Check, Text};

/// Names the program's main function: `fn(&Boot) -> Outcome`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        // The runtime is compiled before the program, so it can reach the program only by name.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "Rust" fn program_main(boot: &$crate::Boot) -> $crate::Outcome {
            let main: fn(&$crate::Boot) -> $crate::Outcome = $main;
            main(boot)
        }
    };
}
