//! Writes random values, from all vCPUs at once, wherever a guest can reach the functions that it was given.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod attack;
mod budget;
mod filter;
mod guard;
mod message;
mod random;
mod target;

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::config::ConfigSpace;
use runtime::function::{COMMAND, Id};
use runtime::time::Deadline;
use runtime::{Boot, Check, Outcome, cpus, ensure, interrupt, println};

use attack::Attack;
use budget::Budget;
use filter::{EDU, Rules};
use guard::Guard;
use random::Random;
use target::Targets;

runtime::program!(main);

const ACCESSES: u64 = 300_000;
const RESETS: u64 = 200;
const SEED: u64 = 1;
const TO_BARS: u64 = 80;
const GUARD_MIB: u64 = 16;
const LAST_BUS: u64 = 8;
/// For a function that is being reset at the end; microseconds.
const PATIENCE: u64 = 30_000_000;

fn main(boot: &Boot) -> Outcome {
    let words = ["accesses", "seed", "resets", "bars", "guard", "last-bus", "dma", "cpus"];
    Outcome::of(boot, "hostile", &words, run)
}

fn run(boot: &Boot) -> Check {
    let number = |name: &str, usual: u64| boot.command_line.number(name).unwrap_or(usual);
    let targets = Targets::find(boot, number("last-bus", LAST_BUS).min(255) as u8)?;
    ensure!(targets.count() > 0, "there is no function");
    for target in targets.iter() {
        println!("target {} {}", target.function.slot(), Id(target.id));
        target.restore(true);
    }
    let guard = Guard::new(boot, number("guard", GUARD_MIB) << 20)?;
    let running = cpus::start(boot);
    let share = number("accesses", ACCESSES).div_ceil(running as u64);
    let rules = Rules { dma: boot.command_line.has("dma"), edu: targets.has(EDU) };
    println!("attack by {running} vCPUs, {share} accesses each");

    let (accesses, resets) = (AtomicU64::new(0), AtomicU64::new(0));
    cpus::on_all(running, &|index| {
        let mut attack = Attack {
            targets: &targets,
            rules,
            to_bars: number("bars", TO_BARS).min(99),
            guard: guard.address(),
            random: Random::new(number("seed", SEED) << 8 | index as u64),
            tells: index == 0,
            budget: Budget::new(share, number("resets", RESETS)),
        };
        attack.run();
        accesses.fetch_add(attack.budget.made(), Ordering::Relaxed);
        resets.fetch_add(attack.budget.resets(), Ordering::Relaxed);
    });

    come_back(&targets)?;
    guard.check()?;
    let interrupts: u64 = (0..=u8::MAX).map(interrupt::count).sum();
    println!(
        "ok hostile accesses {} resets {} interrupts {interrupts}",
        accesses.load(Ordering::Relaxed),
        resets.load(Ordering::Relaxed)
    );
    Ok(())
}

/// After all that, every function can be put back to where it was, and is who it was.
fn come_back(targets: &Targets) -> Check {
    // What is below a bridge answers again when the bridge does.
    for bridge in targets.iter().filter(|target| target.is_bridge) {
        bridge.restore(false);
    }
    for target in targets.iter() {
        let function = &target.function;
        let deadline = Deadline::after_microseconds(PATIENCE);
        while function.id() != target.id {
            ensure!(
                !deadline.passed(),
                "{} is {}, was {}",
                function.slot(),
                Id(function.id()),
                Id(target.id)
            );
        }
        if target.is_bridge {
            continue;
        }
        target.restore(false);
        ensure!(
            function.read16(COMMAND) & 7 == 0,
            "{} has command {:#x}",
            function.slot(),
            function.read16(COMMAND)
        );
        for bar in target.bars.iter().flatten() {
            let register = 0x10 + 4 * u16::from(bar.index);
            let seen = function.read32(register) & !0xf;
            ensure!(
                seen == bar.address as u32 & !0xf,
                "{} BAR{} is at {seen:#x}, put to {:#x}",
                function.slot(),
                bar.index,
                bar.address
            );
        }
    }
    Ok(())
}
