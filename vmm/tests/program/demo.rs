//! `slotpass` alone: the bundled guest and its simulated function.

use crate::support::{Ended, Slotpass, needs_kvm};

/// The lines of a block of the guest's report.
fn block<'a>(stdout: &'a str, title: &str) -> Vec<&'a str> {
    let lines = stdout.lines().skip_while(|line| !line.starts_with(title)).skip(1);
    lines.take_while(|line| !line.trim().is_empty()).collect()
}

fn expect_full_report(ended: Ended) {
    let ended = ended.expect_code(0).expect_silent_stderr();
    let checks = block(&ended.stdout, "checks");
    for wanted in [
        "config reads by CF8 and by ECAM",
        "trapped registers",
        "I/O registers",
        "mapped BAR",
        "DMA",
        "MSI-X, each vector once",
        "MSI, each vector once",
        "MSI-X table and pending bits, read",
        "MSI-X pending bits, over changes",
    ] {
        assert!(
            checks.iter().any(|line| line.trim_start().starts_with(wanted)),
            "no check {wanted:?}\n{ended}"
        );
    }
    for line in &checks {
        assert!(line.contains(" ok "), "this check is not ok: {line}\n{ended}");
    }
    let figures = block(&ended.stdout, "cycles of");
    for wanted in ["config read by CF8", "mapped BAR, read", "MSI-X table, write", "vector, from trigger"] {
        assert!(
            figures.iter().any(|line| line.trim_start().starts_with(wanted)),
            "no figure {wanted:?}\n{ended}"
        );
    }
    for line in figures {
        let numbers = line.split_whitespace().rev().take_while(|word| word.parse::<u64>().is_ok()).count();
        assert_eq!(numbers, 3, "least, median and nanoseconds: {line}\n{ended}");
    }
}

#[test]
fn without_arguments_the_demo_passes_its_checks_and_measures() {
    needs_kvm!();
    let ended = Slotpass::new().end();
    let ended = ended.expect_stdout("the function in slot 00:08.0").expect_stdout("5350:0001");
    expect_full_report(ended);
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    needs_kvm!();
    let both = [Slotpass::new().start(), Slotpass::new().start()];
    for run in both {
        expect_full_report(run.end());
    }
}
