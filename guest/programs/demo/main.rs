//! Finds slotpass' simulated function, prints what it is, checks all it can do, and measures.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod checks;
mod config;
mod dma;
mod figures;
mod msix_changes;
mod msix_pages;
mod report;
mod simulated;
mod vectors;

use runtime::function::Function;
use runtime::slot::Slot;
use runtime::{Boot, Check, Outcome, cpus, println};

use simulated::Simulated;

runtime::program!(main);

/// Where the function is unless the command line says otherwise.
const SLOT: Slot = Slot::new(0, 8, 0);
/// Exit port value if there is no such function, or it does not look as it should.
const NOT_FOUND: u8 = 0x70;
/// Exit port value if a measurement failed.
const NOT_MEASURED: u8 = 0x71;

/// What every check works with.
struct Demo<'a> {
    boot: &'a Boot<'a>,
    function: &'a Function,
    device: Simulated,
    /// Running vCPUs.
    vcpus: usize,
}

fn main(boot: &Boot) -> Outcome {
    let slot = boot.command_line.slot("slot").unwrap_or(SLOT);
    let vcpus = cpus::start(boot);
    println!("slotpass demo: the function in slot {slot}, as its guest sees it");
    report::machine(boot, vcpus);
    let function = match find(boot, slot) {
        Ok(function) => function,
        Err(why) => {
            println!("FAIL {why}");
            return Outcome::Exit(NOT_FOUND);
        }
    };
    report::function(&function);
    function.enable();
    let device = match Simulated::of(&function) {
        Ok(device) => device,
        Err(why) => {
            println!("FAIL {why}");
            return Outcome::Exit(NOT_FOUND);
        }
    };
    let demo = Demo { boot, function: &function, device, vcpus };
    if let Err(number) = checks::run(&demo) {
        return Outcome::Exit(number);
    }
    if let Err(why) = figures::run(&demo) {
        println!("FAIL figures: {why}");
        return Outcome::Exit(NOT_MEASURED);
    }
    Outcome::PowerOff
}

fn find(boot: &Boot, slot: Slot) -> Check<Function> {
    let function = Function::find(slot, boot.acpi.as_ref())?;
    function.expect_id(simulated::VENDOR, simulated::DEVICE)?;
    Ok(function)
}
