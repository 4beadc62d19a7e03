//! The guest that measures, with a simulated function.

use vmm::bench::rows::ROWS;

use crate::support::{Slotpass, needs_kvm};

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
    let wanted = ROWS.map(|row| (row.name, if row.name.starts_with("enable") { 2 } else { 7 }));
    assert_eq!(counts.collect::<Vec<_>>(), wanted, "{ended}");
}
