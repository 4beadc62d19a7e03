//! Does what its command line says, in order: prints, resets, faults, waits, ends. See the package's docs for the words.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod absent;
mod button;
mod config_race;
mod echo;
mod msix;
mod renumber;
mod resets;

use runtime::power::Stay;
use runtime::{Boot, Outcome, cpus, power, println};

runtime::program!(main);

fn main(boot: &Boot) -> Outcome {
    println!("exit: {}", boot.command_line.text());
    for (name, value) in boot.command_line.words() {
        let number = runtime::command_line::number(value);
        match (name, number) {
            ("code", Some(code)) => return Outcome::Exit(code as u8),
            ("poweroff", None) => return Outcome::PowerOff,
            ("triple-fault", None) => power::triple_fault(),
            ("spin", None) => loop {
                core::hint::spin_loop();
            },
            ("halt", None) => power::halt(),
            ("panic", None) => panic!("as asked"),
            ("echo", None) => echo::until_quit(),
            ("reset", None) => {
                power::reset(boot.acpi.as_ref());
                println!("FAIL reset: still running");
                return Outcome::Exit(1);
            }
            ("reset", Some(times)) => {
                if !resets::enough(times as u8) {
                    power::reset(boot.acpi.as_ref());
                    println!("FAIL reset: still running");
                    return Outcome::Exit(1);
                }
                println!("ok reset {times} times");
                return Outcome::PowerOff;
            }
            ("reset-and-spin" | "reset-and-halt", Some(times)) => {
                if !resets::enough(times as u8) {
                    power::reset_and_stay(if name == "reset-and-spin" {
                        Stay::Spinning
                    } else {
                        Stay::Halted
                    });
                }
                println!("ok {name} {times} times");
                return Outcome::PowerOff;
            }
            ("config-race", Some(rounds)) => match config_race::run(boot, rounds) {
                Ok(race) => println!("ok config-race {race}"),
                Err(failure) => {
                    println!("FAIL config-race: {failure}");
                    return Outcome::Exit(1);
                }
            },
            ("probe-empty", None) => match absent::probe(boot, value != "no-memory") {
                Ok(probed) => println!("ok probe-empty {probed}"),
                Err(failure) => {
                    println!("FAIL probe-empty: {failure}");
                    return Outcome::Exit(1);
                }
            },
            ("renumber", None) => match renumber::buses(boot) {
                Ok(times) => println!("ok renumber {times} times"),
                Err(failure) => {
                    println!("FAIL renumber: {failure}");
                    return Outcome::Exit(1);
                }
            },
            ("msix", _) => match msix::as_after_power_on(boot, value) {
                Ok(vectors) => println!("ok msix {vectors} vectors"),
                Err(failure) => {
                    println!("FAIL msix: {failure}");
                    return Outcome::Exit(1);
                }
            },
            ("power-button", None) => match button::pressed(boot) {
                Ok(()) => println!("ok power-button"),
                Err(failure) => {
                    println!("FAIL power-button: {failure}");
                    return Outcome::Exit(1);
                }
            },
            ("lines", Some(lines)) => {
                for line in 0..lines {
                    println!("line {line:8} of a guest that has much to say, which nobody may have to read");
                }
                println!("ok lines");
            }
            ("vcpus", None) => {
                let running = cpus::start(boot);
                for index in 1..running {
                    let id = cpus::apic_id(index).unwrap_or(0);
                    let works = if cpus::run(index, || ()) { "works" } else { "does not work" };
                    println!("vcpu {index} apic {id} {works}");
                }
                println!("ok vcpus {running}");
            }
            // Read by the word that uses it.
            ("cpus", Some(_)) => {}
            _ => {
                println!("FAIL unknown word {name}={value}");
                return Outcome::UNKNOWN_WORD;
            }
        }
    }
    Outcome::Exit(0)
}
