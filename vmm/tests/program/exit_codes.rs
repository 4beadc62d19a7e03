//! How a guest ends, and the exit code that tells.

use crate::support::{Slotpass, needs_kvm};

#[test]
fn the_exit_code_tells_how_the_guest_ended() {
    needs_kvm!();
    // Words for the guest, further arguments, exit code, a part of stdout, a part of stderr.
    for (words, arguments, code, stdout, stderr) in [
        ("poweroff", "", 0, "exit: poweroff", ""),
        ("poweroff", "--cpus 4", 0, "", ""),
        ("code=0", "", 1, "", ""),
        ("code=1", "", 3, "", ""),
        ("code=42", "", 85, "", ""),
        ("code=127", "", 255, "", ""),
        ("reset", "--no-reboot", 0, "", ""),
        ("triple-fault", "", 4, "", "slotpass: vCPU 0: triple fault"),
        ("panic", "", 0x7c << 1 | 1, "FAIL panicked", ""),
        ("no-such-word", "", 2 << 1 | 1, "FAIL unknown word", ""),
    ] {
        let ended = Slotpass::exit(words).args(arguments.split_whitespace()).end();
        let ended = ended.expect_code(code).expect_stdout(stdout).expect_stderr(stderr);
        if stderr.is_empty() {
            ended.expect_silent_stderr();
        }
    }
}

/// The guest reads both without an exit.
#[test]
fn a_reset_leaves_nothing_in_msix_tables_and_pending_bits() {
    needs_kvm!();
    for slot in ["0:8:0", "3:0:0"] {
        let run = Slotpass::exit(&format!("msix={slot} reset=2")).simulated([slot]);
        let ended = run.end().expect_code(0).expect_silent_stderr().expect_stdout("ok reset 2 times");
        assert_eq!(ended.stdout.matches("ok msix 256 vectors").count(), 3, "{ended}");
    }
}

#[test]
fn a_reset_restarts_the_guest_and_keeps_its_cmos() {
    needs_kvm!();
    for (words, arguments, slots) in [
        ("reset=3", "", &[][..]),
        ("vcpus reset=3", "--cpus 2", &[]),
        ("reset=3", "--memory 64M", &["0:8:0", "0:8:1", "3:0:0"]),
    ] {
        let run = Slotpass::exit(words).args(arguments.split_whitespace()).simulated(slots);
        let ended = run.end().expect_code(0).expect_silent_stderr().expect_stdout("ok reset 3 times");
        for (line, times) in [
            ("exit: ", 4),
            ("reset 0 of 3", 1),
            ("reset 1 of 3", 1),
            ("reset 2 of 3", 1),
            ("reset 3 of 3", 1),
            ("ok vcpus 2", if words.contains("vcpus") { 4 } else { 0 }),
        ] {
            assert_eq!(ended.stdout.matches(line).count(), times, "times of {line:?}\n{ended}");
        }
    }
}
