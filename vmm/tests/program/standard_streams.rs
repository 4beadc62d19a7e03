//! stdin and stdout as pipes, files and less.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;

use crate::support::{Slotpass, needs_kvm};

/// For a shell that changes descriptors and becomes slotpass.
fn by_shell(redirections: &str) -> Slotpass {
    Slotpass::through("sh", &["-c", &format!("exec \"$0\" \"$@\" {redirections}")])
}

#[test]
fn lines_from_a_pipe_come_back_and_none_is_lost() {
    needs_kvm!();
    // More than the serial port's FIFO and one read of the pipe hold.
    let lines: Vec<String> = (0..60).map(|n| format!("line {n} {}", "x".repeat(n))).collect();
    let ended = Slotpass::exit("echo poweroff").input(lines.join("\n") + "\nquit\n").end().expect_code(0);
    let wanted: Vec<String> = lines.iter().map(|line| format!("echo {line}")).collect();
    let echoed: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with("echo ")).collect();
    assert_eq!(echoed, wanted, "{ended}");
}

#[test]
fn a_file_can_be_stdin() {
    needs_kvm!();
    let run = Slotpass::exit("echo poweroff").file("typed", "from a file\nquit\n");
    let typed = File::open(run.path("typed")).unwrap();
    run.stdin(typed).end().expect_code(0).expect_stdout("echo from a file");
}

#[test]
fn without_input_the_guest_runs_on() {
    needs_kvm!();
    for redirection in ["", "<&-", "</dev/null", "<<-END\nEND\n"] {
        let run = by_shell(redirection).run_image(guest::EXIT, "vcpus poweroff").args(["--cpus", "2"]);
        run.end().expect_code(0).expect_silent_stderr().expect_stdout("ok vcpus 2");
        let mut waiting = by_shell(redirection).run_image(guest::EXIT, "echo").start();
        waiting.wait_for("ready");
        waiting.signal(libc::SIGTERM);
        waiting.end().expect_code(0);
    }
}

#[test]
fn a_pipe_that_ends_before_the_guest_has_read_it_is_read_to_its_end() {
    needs_kvm!();
    let mut run = Slotpass::exit("echo").input("one\ntwo\n").start();
    run.wait_for("echo two");
    run.signal(libc::SIGTERM);
    run.end().expect_code(0).expect_stdout("echo one");
}

#[test]
fn output_that_cannot_be_written_does_not_change_the_exit_code() {
    needs_kvm!();
    for (redirection, words, code) in [
        (">&-", "vcpus poweroff", 0),
        (">/dev/null", "code=3", 7),
        (">/dev/full", "vcpus reset=3", 0),
        (">&- 2>&- <&-", "vcpus code=9", 19),
    ] {
        by_shell(redirection).run_image(guest::EXIT, words).end().expect_code(code);
    }
}

#[test]
fn a_reader_that_goes_away_after_a_line_does_not_stop_the_guest() {
    needs_kvm!();
    let mut run = Slotpass::demo("0:8:0").simulated(["0:8:0"]);
    let (reader, writer) = std::io::pipe().unwrap();
    run.command().stdout(writer);
    let run = run.start_with_own_stdout();
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert!(line.starts_with("slotpass demo"), "{line:?}");
    run.end().expect_code(0);
}

#[test]
fn a_reader_that_does_not_read_cannot_keep_it_from_ending() {
    needs_kvm!();
    let mut run = Slotpass::exit("echo").input("x".repeat(64).repeat(64));
    let (reader, writer) = std::io::pipe().unwrap();
    // SAFETY: no pointers. A pipe of one page counts as full with the first byte in it.
    let capacity = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert!(capacity > 0, "F_SETPIPE_SZ: {}", std::io::Error::last_os_error());
    run.command().stdout(writer);
    let mut run = run.start_with_own_stdout();
    // Whatever the guest sends after this line waits.
    run.wait_until(|| {
        let mut bytes = 0;
        // SAFETY: FIONREAD writes an int.
        assert_eq!(unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &mut bytes) }, 0);
        bytes > 0
    });
    // For the processor to get there; if it does not, the test proves less, and passes.
    std::thread::sleep(std::time::Duration::from_millis(100));
    run.signal(libc::SIGTERM);
    run.end().expect_code(0);
    drop(reader);
}

#[test]
fn its_own_messages_may_find_no_reader() {
    for redirection in ["2>&-", "2>/dev/full"] {
        by_shell(redirection).args(["run", "--kernel", "not-there"]).end().expect_code(1);
    }
}
