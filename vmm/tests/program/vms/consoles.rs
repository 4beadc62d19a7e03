//! Those who are at a VM's serial port.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::Vms;
use crate::support::{Pty, needs_kvm};

#[test]
fn two_see_the_same_and_both_can_type() {
    needs_kvm!();
    let vms = Vms::new();
    vms.create("web", "echo poweroff");
    vms.start("web");
    let (mut first, mut first_keys) = vms.console("web");
    first.wait_for("ready");
    first_keys.write_all(b"one\r").unwrap();
    first.wait_for("echo one");
    let (mut second, mut second_keys) = vms.console("web");
    second.wait_for("echo one");
    second_keys.write_all(b"two\r").unwrap();
    first.wait_for("echo two");
    // The end of what is typed is not the end.
    drop(first_keys);
    second_keys.write_all(b"three\rquit\r").unwrap();
    for console in [first, second] {
        console.end().expect_code(0).expect_stdout("echo three").expect_stderr("the VM has ended");
    }
    vms.wait_for_state("web", "stopped");
    let log = vms.run("log --console web").expect_code(0).stdout;
    assert_eq!(log.matches("echo ").count(), 4, "{log}");
}

#[test]
fn who_reads_nothing_stops_no_guest() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "echo lines=800 poweroff");
    vms.start("web");
    let socket = vms.path("run").join(&uuid).join("console.sock");
    let mut stuck: Vec<UnixStream> = (0..3).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    stuck[0].write_all(b"quit\r").unwrap();
    // Small pieces fill a socket before they are many bytes.
    vms.wait_for_state("web", "stopped");
    vms.run("log --console -n 1 web").expect_stdout("ok lines");
    let mut got = Vec::new();
    stuck[1].read_to_end(&mut got).unwrap();
    let got = String::from_utf8_lossy(&got);
    assert!(got.len() < 1 << 20 && got.contains("line        0 of"), "{}", got.len());
}

#[test]
fn a_signal_ends_a_console_whose_output_nobody_reads() {
    needs_kvm!();
    let vms = Vms::new();
    vms.create("web", "lines=1000 halt");
    vms.start("web");
    vms.wait_for_output("web", "ok lines");
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let (reader, writer) = std::io::pipe().unwrap();
        // SAFETY: no pointers; the smallest pipe there is, one page.
        assert!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } > 0);
        let mut console = vms.slotpass("console web");
        console.command().stdout(writer.try_clone().unwrap());
        let console = console.start_with_own_stdout();
        // New clients are shown 16 KiB at once; the pipe that it has takes less.
        vms.wait_until("a full pipe", || is_full(&writer));
        console.signal(signal);
        console.end().expect_code(0);
        drop(reader);
    }
    assert_eq!(vms.state("web"), "running");
}

fn is_full(pipe: &std::io::PipeWriter) -> bool {
    let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, which poll writes to.
    unsafe { libc::poll(&mut poll, 1, 0) == 0 }
}

#[test]
fn who_is_hung_up_on_is_told_whether_the_vm_still_runs() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    vms.start("web");
    let socket = vms.path("run").join(&uuid).join("console.sock");
    let _others: Vec<UnixStream> = (0..16).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    vms.run("console web")
        .expect_code(1)
        .expect_stdout("16 others have this console")
        .expect_stderr("the console was closed, but VM")
        .expect_stderr("still runs");
    assert_eq!(vms.state("web"), "running");
}

#[test]
fn a_terminal_is_raw_until_its_user_leaves() {
    needs_kvm!();
    let vms = Vms::new();
    vms.create("web", "echo poweroff");
    vms.start("web");
    let mut pty = Pty::open();
    let mut console = vms.slotpass("console web");
    pty.control(console.command());
    let mut console = console.start();
    console.wait_for("ready");
    assert!(pty.settings().is_raw());
    pty.press(b"\x03\x01\x01!\r");
    console.wait_for("echo \x03\x01!");
    pty.press(b"\x01x");
    console.end().expect_code(0).expect_stderr("Ctrl-A x leaves the console").expect_stderr("the VM goes on");
    assert!(pty.settings().is_cooked());
    assert_eq!(vms.state("web"), "running");

    // A signal leaves it as well.
    let mut console = vms.slotpass("console web");
    pty.control(console.command());
    let mut console = console.start();
    console.wait_for("echo");
    console.signal(libc::SIGTERM);
    console.end().expect_code(0);
    assert!(pty.settings().is_cooked());
    assert_eq!(vms.state("web"), "running");
}

#[test]
fn who_looks_only_for_a_moment_keeps_nothing_waiting() {
    needs_kvm!();
    let vms = Vms::new();
    vms.create("web", "halt");
    vms.start("web");
    vms.wait_for_output("web", "exit: halt");
    for command in ["console web", "log -f web", "log -f --console web"] {
        // The guest says nothing more, by which it would be noticed that nobody reads.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut run = vms.slotpass(command);
        run.command().stdout(writer);
        let run = run.start_with_own_stdout();
        reader.read_exact(&mut [0]).unwrap();
        drop(reader);
        run.end().expect_code(0);
    }
    assert_eq!(vms.state("web"), "running");
}
