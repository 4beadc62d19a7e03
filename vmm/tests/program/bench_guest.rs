//! The guest that measures, with a simulated function.

use crate::support::{Slotpass, needs_kvm};

/// Of all measurements that need no word with an address.
const ALL: [&str; 25] = [
    "empty",
    "empty-port",
    "pio-read",
    "pio-write",
    "mmio-read",
    "mmio-write",
    "cf8-write-address",
    "cf8-read",
    "cf8-read-absent",
    "cf8-write",
    "ecam-read",
    "ecam-read-absent",
    "ecam-read-live",
    "ecam-write",
    "bar-read",
    "trapped-read",
    "trapped-write",
    "msix-read",
    "pba-read",
    "msix-write-same",
    "msix-mask-unmask",
    "doorbell",
    "interrupt",
    "enable-at-once",
    "enable-one-by-one",
];

#[test]
fn a_simulated_function_has_everything_that_is_measured() {
    needs_kvm!();
    let run = Slotpass::new().run_image(guest::BENCH, "iterations=7 repeats=2").simulated(["0:8:0"]);
    let ended = run.end().expect_code(0).expect_silent_stderr().expect_stdout("bench-rate ");
    let lines = ended.stdout.lines().filter_map(|line| line.strip_prefix("bench "));
    let counts = lines.map(|line| {
        let (name, runs) = line.split_once(" cycles ").unwrap_or_else(|| panic!("{line}\n{ended}"));
        let counts = runs.split(' ').map(|run| run.split_once('*').map_or(1, |(_, n)| n.parse().unwrap()));
        (name, counts.sum::<u64>())
    });
    let wanted = ALL.map(|name| (name, if name.starts_with("enable") { 2 } else { 7 }));
    assert_eq!(counts.collect::<Vec<_>>(), wanted, "{ended}");
}
