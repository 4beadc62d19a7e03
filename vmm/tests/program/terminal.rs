//! A terminal as the console: raw while the guest runs, as before afterwards.

use crate::support::{Pty, Running, Slotpass, needs_kvm};

/// A guest that waits at a terminal, which was cooked before and is raw now.
fn at_terminal(words: &str, ready: &str) -> (Pty, Running) {
    let pty = Pty::open();
    assert!(pty.settings().is_cooked(), "a new terminal: {:?}", pty.settings());
    let mut run = Slotpass::exit(words);
    pty.control(run.command());
    let mut run = run.start();
    run.wait_for(ready);
    assert!(pty.settings().is_raw(), "while the guest runs: {:?}", pty.settings());
    (pty, run)
}

#[test]
fn keys_go_to_the_guest_as_they_are() {
    needs_kvm!();
    let (mut pty, mut run) = at_terminal("echo poweroff", "ready");
    pty.press(b"hello\r");
    run.wait_for("echo hello");
    // Interrupt, quit, suspend and end of file are the guest's; Ctrl-A twice is one Ctrl-A.
    pty.press(b"\x03\x1c\x1a\x04\x01\x01!\r");
    run.wait_for("echo \x03\x1c\x1a\x04\x01!");
    pty.press(b"quit\r");
    run.end().expect_code(0);
    assert!(pty.settings().is_cooked(), "{:?}", pty.settings());
}

#[test]
fn ctrl_a_x_ends_the_guest() {
    needs_kvm!();
    for (words, ready) in [("echo", "ready"), ("spin", "exit: spin"), ("halt", "exit: halt")] {
        let (mut pty, run) = at_terminal(words, ready);
        pty.press(b"\x01x");
        run.end().expect_code(0).expect_stderr("Ctrl-A x");
        assert!(pty.settings().is_cooked(), "{words}: {:?}", pty.settings());
    }
}

#[test]
fn ctrl_a_x_ends_a_guest_that_does_not_read_what_was_typed() {
    needs_kvm!();
    let (mut pty, run) = at_terminal("spin", "exit: spin");
    pty.press(&[b'z'; 500]);
    pty.press(b"\x01x");
    run.end().expect_code(0).expect_stderr("Ctrl-A x");
}

#[test]
fn the_terminal_is_as_before_however_it_ends() {
    needs_kvm!();
    for (words, ready, signal, code) in [
        ("halt", "exit: halt", libc::SIGTERM, 0),
        ("spin", "exit: spin", libc::SIGINT, 0),
        ("echo triple-fault", "ready", 0, 4),
        ("echo code=1", "ready", 0, 3),
    ] {
        let pty = Pty::open();
        let before = pty.settings();
        let mut run = Slotpass::exit(words);
        pty.control(run.command());
        let (mut pty, mut run) = (pty, run.start());
        run.wait_for(ready);
        match signal {
            0 => pty.press(b"quit\r"),
            signal => run.signal(signal),
        }
        run.end().expect_code(code);
        assert_eq!(pty.settings(), before, "{words}");
    }
}

#[test]
fn an_error_at_start_leaves_the_terminal_alone() {
    let pty = Pty::open();
    let before = pty.settings();
    let mut run = Slotpass::new().args(["run", "--kernel", "not-there"]);
    pty.control(run.command());
    run.end().expect_refusal(&["kernel not-there"]);
    assert_eq!(pty.settings(), before);
}

#[test]
fn it_ends_when_the_terminal_hangs_up() {
    needs_kvm!();
    let (pty, run) = at_terminal("halt", "exit: halt");
    pty.hang_up();
    run.end().expect_code(0);
}
