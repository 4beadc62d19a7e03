//! Drives QEMU's test devices, each named on the command line with its slot, in that order.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod edu;
mod ivshmem;
mod testdev;

use runtime::function::Function;
use runtime::slot::Slot;
use runtime::{Boot, Outcome, Text, println};

runtime::program!(main);

/// Exit port value if a check failed.
const FAILED: u8 = 1;
/// Exit port value for a word that means nothing here.
const UNKNOWN_WORD: u8 = 2;

fn main(boot: &Boot) -> Outcome {
    let mut outcome = Outcome::Exit(0);
    for (name, value) in boot.command_line.words() {
        let check = match name {
            "edu" => edu::check,
            "testdev" => testdev::check,
            "ivshmem" => ivshmem::check,
            "poweroff" => {
                if outcome == Outcome::Exit(0) {
                    outcome = Outcome::PowerOff;
                }
                continue;
            }
            // Read by ivshmem.
            "step" | "seed" | "at" => continue,
            _ => {
                println!("FAIL unknown word {name}={value}");
                return Outcome::Exit(UNKNOWN_WORD);
            }
        };
        let result = match Slot::parse(value) {
            Some(slot) => Function::find(slot, boot.acpi.as_ref()).and_then(|function| {
                function.enable();
                check(boot, &function)
            }),
            None => Err(Text::new(format_args!("{value:?} is not a slot"))),
        };
        match result {
            Ok(seen) => println!("ok {name} {value} {seen}"),
            Err(failure) => {
                println!("FAIL {name} {value} {failure}");
                outcome = Outcome::Exit(FAILED);
            }
        }
    }
    outcome
}
