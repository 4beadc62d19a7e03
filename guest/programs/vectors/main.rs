//! All vectors of a function with a large MSI-X table.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod nvme;
mod raiser;
mod steps;

use runtime::function::Function;
use runtime::msix::MsiX;
use runtime::slot::Slot;
use runtime::{Boot, Check, Outcome, println};

use raiser::Raiser;
use steps::Steps;

runtime::program!(main);

const SLOT: Slot = Slot::new(0, 8, 0);

fn main(boot: &Boot) -> Outcome {
    let words = ["slot", "vectors", "some", "twice", "at-once", "one-by-one", "pending"];
    Outcome::of(boot, "vectors", &words, run)
}

fn run(boot: &Boot) -> Check {
    let slot = boot.command_line.slot("slot").unwrap_or(SLOT);
    let function = Function::find(slot, boot.acpi.as_ref())?;
    function.enable();
    let msix = MsiX::of(&function)?;
    let most = boot.command_line.number("vectors").map_or(u16::MAX, |number| number.clamp(2, 2048) as u16);
    let mut steps = Steps {
        vectors: msix.vectors().min(most),
        msix,
        raiser: Raiser::of(boot, &function)?,
        apic_id: boot.apic_id,
        may_miss: boot.command_line.has("some"),
        twice: boot.command_line.number("twice").unwrap_or(0),
    };
    for (name, _) in boot.command_line.words() {
        let seen = match name {
            "at-once" => steps.at_once()?,
            "one-by-one" => steps.one_by_one()?,
            "pending" => steps.pending()?,
            _ => continue,
        };
        println!("ok {name} {seen}");
    }
    Ok(())
}
