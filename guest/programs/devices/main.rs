//! Drives QEMU's test devices, each named on the command line with its slot, in that order.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod doorbell;
mod edu;
mod intx;
mod ivshmem;
mod reset;
mod testdev;

use runtime::function::Function;
use runtime::slot::Slot;
use runtime::{Boot, Check, Outcome, Text, fail, println};

runtime::program!(main);

fn main(boot: &Boot) -> Outcome {
    let mut outcome = Outcome::Exit(0);
    for (name, value) in boot.command_line.words() {
        let check = match name {
            "edu" => edu::check,
            "testdev" => testdev::check,
            "ivshmem" => ivshmem::check,
            "doorbell" => doorbell::check,
            "intx" => intx::alone,
            "flr" => reset::by_itself,
            "power" => reset::sleeps,
            "shares" => {
                outcome = report(outcome, name, value, shares(boot, value));
                continue;
            }
            "poweroff" => {
                if outcome == Outcome::Exit(0) {
                    outcome = Outcome::PowerOff;
                }
                continue;
            }
            // Read by ivshmem, doorbell and intx.
            "step" | "seed" | "at" | "peer" | "gsi" => continue,
            _ => {
                println!("FAIL unknown word {name}={value}");
                return Outcome::UNKNOWN_WORD;
            }
        };
        let result = found(boot, value).and_then(|function| check(boot, &function));
        outcome = report(outcome, name, value, result);
    }
    outcome
}

/// The function in that slot, with decoding and bus mastering on.
fn found(boot: &Boot, slot: &str) -> Check<Function> {
    let Some(slot) = Slot::parse(slot) else { fail!("{slot:?} is not a slot") };
    let function = Function::find(slot, boot.acpi.as_ref())?;
    function.enable();
    Ok(function)
}

fn shares(boot: &Boot, slots: &str) -> Check<Text> {
    let Some((first, second)) = slots.split_once(',') else { fail!("{slots:?} is not two slots") };
    intx::shared(boot, &found(boot, first)?, &found(boot, second)?)
}

fn report(outcome: Outcome, name: &str, value: &str, result: Check<Text>) -> Outcome {
    match result {
        Ok(seen) => {
            println!("ok {name} {value} {seen}");
            outcome
        }
        Err(failure) => {
            println!("FAIL {name} {value} {failure}");
            Outcome::FAILED
        }
    }
}
