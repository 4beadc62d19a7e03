//! Signals from outside, and what is left after them.

use crate::support::{Slotpass, needs_kvm};

#[test]
fn asked_to_end_it_does_so_in_good_order_whatever_the_guest_does() {
    needs_kvm!();
    for (signal, name) in [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT"), (libc::SIGHUP, "SIGHUP")] {
        for words in ["spin", "halt", "vcpus spin"] {
            let mut run = Slotpass::exit(words).args(["--cpus", "2"]).simulated(["0:8:0"]).start();
            run.wait_for(if words.contains("vcpus") { "ok vcpus 2" } else { "exit: " });
            run.signal(signal);
            run.end().expect_code(0).expect_stderr(&format!("ended by {name}"));
        }
    }
}

#[test]
fn asked_to_end_it_still_reports_what_was_counted() {
    needs_kvm!();
    let mut run = Slotpass::exit("spin").args(["--stats=json:stats.json"]).start();
    let statistics = run.path("stats.json");
    run.wait_for("exit: spin");
    run.signal(libc::SIGTERM);
    let (ended, folder) = run.end_in_folder();
    let ended = ended.expect_code(0);
    assert!(statistics.is_file(), "{} is not there\n{ended}", statistics.display());
    drop(folder);
}

#[test]
fn killed_in_the_midst_of_its_work_it_leaves_nothing_in_the_way() {
    needs_kvm!();
    let run = || Slotpass::demo("0:8:0").simulated(["0:8:0", "0:8:1"]);
    let mut first = run().start();
    // From here on DMA and vectors are under way.
    first.wait_for("mapped BAR");
    first.signal(libc::SIGKILL);
    first.end().expect_signal(libc::SIGKILL);
    run().end().expect_code(0);
}
