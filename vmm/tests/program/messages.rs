//! What slotpass says beside its guest, and where.

use crate::support::{Slotpass, needs_kvm};

#[test]
fn help_and_version_are_answers_on_stdout() {
    for (arguments, part) in [
        (&["--help"][..], "run"),
        (&["--help"], "Exit codes:"),
        (&["run", "--help"], "--slot <B:D:F=DEVICE[,port][,rom=FILE][,msix-page=trap]>"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        Slotpass::new().args(arguments).end().expect_code(0).expect_silent_stderr().expect_stdout(part);
    }
}

#[test]
fn it_says_more_when_asked_to_and_never_on_stdout() {
    needs_kvm!();
    let ended = Slotpass::exit("poweroff").simulated(["0:8:0"]).args(["-v"]).end();
    let ended = ended.expect_code(0).expect_stderr("slot 0:8:0: sim:demo");
    assert_eq!(ended.stdout.replace('\r', ""), "exit: poweroff\n", "{ended}");
}

#[test]
fn a_log_file_takes_what_stderr_would_get() {
    needs_kvm!();
    let run = Slotpass::exit("poweroff").simulated(["0:8:0"]).args(["-v", "--log", "slotpass.log"]);
    let (ended, log) = run.end_and_read("slotpass.log");
    ended.expect_code(0).expect_silent_stderr();
    assert!(log.contains("slot 0:8:0: sim:demo"), "{log}");
}

#[test]
fn an_error_that_ends_it_goes_to_log_file_and_stderr() {
    let run = Slotpass::new().args(["run", "--kernel", "not-there", "--log", "slotpass.log"]);
    let (ended, log) = run.end_and_read("slotpass.log");
    ended.expect_refusal(&["kernel not-there"]);
    assert!(log.contains("kernel not-there"), "{log}");
}
