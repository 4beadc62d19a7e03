//! What `start` says, and a VM that is starting.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};

use super::{Vms, kill};
use crate::support::{Running, Slotpass, holder_of, needs_kvm, permitted};

/// A VM whose process waits at its log, a pipe, for somebody who reads it.
struct Held {
    vms: Vms,
    uuid: String,
    log: PathBuf,
    start: Running,
}

impl Held {
    fn new(words: &str) -> Held {
        let vms = Vms::new();
        let uuid = vms.create("web", words);
        let log = vms.path("state").join(&uuid).join("platform.log");
        assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
        let start = vms.slotpass("start web").start();
        vms.wait_for_state("web", "starting");
        Held { vms, uuid, log, start }
    }
}

/// Lets the process that waits at this log go on. Gives what it notes until it ends.
fn go_on(log: &Path) -> JoinHandle<String> {
    let log = log.to_owned();
    thread::spawn(move || {
        let mut text = String::new();
        File::open(log).unwrap().read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn a_vm_that_is_starting_is_started_once_and_has_no_console_yet() {
    needs_kvm!();
    let held = Held::new("halt");
    let (vms, process) = (&held.vms, format!("(process {})", held.vms.pid("web")));
    vms.run("console web").expect_refusal(&[&held.uuid, "is starting and has no console yet", "try again"]);
    vms.run("start web").expect_refusal(&[&held.uuid, "it is starting already", &process]);
    vms.run("delete web").expect_refusal(&["it is starting already", &process, "slotpass stop"]);
    vms.run("update web cpus=2").expect_refusal(&["currently: starting", &process]);
    go_on(&held.log);
    held.start.end().expect_code(0).expect_silent_stderr();
    assert_eq!((vms.state("web").as_str(), vms.processes(&held.uuid)), ("running", 1));
}

#[test]
fn a_start_that_is_killed_calls_the_vm_off() {
    needs_kvm!();
    let held = Held::new("halt");
    held.start.signal(libc::SIGKILL);
    held.start.end().expect_signal(libc::SIGKILL);
    let log = go_on(&held.log).join().unwrap();
    assert!(
        log.contains("nobody waits any more") && log.contains("end: ended by whoever started it"),
        "{log}"
    );
    held.vms.wait_for_state("web", "stopped");
    assert!(held.vms.get("web").get("crashed").is_none());
}

#[test]
fn a_start_that_does_not_go_on_keeps_no_guest_waiting() {
    needs_kvm!();
    let held = Held::new("halt");
    held.start.signal(libc::SIGSTOP);
    go_on(&held.log);
    held.vms.wait_for_state("web", "running");
    held.vms.wait_for_output("web", "exit: halt");
    held.start.signal(libc::SIGCONT);
    held.start.end().expect_code(0).expect_silent_stderr();
    assert_eq!(held.vms.state("web"), "running");
}

#[test]
fn a_pipe_that_is_full_keeps_no_guest_waiting() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    let (_reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: no pointers; the smallest pipe there is, one page.
    assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) }, 4096);
    writer.write_all(&[b'x'; 4096]).unwrap();
    let mut run = vms.slotpass(&format!("vm-process {uuid}"));
    run.command().stdout(writer);
    let run = run.start_with_own_stdout();
    vms.wait_for_output("web", "exit: halt");
    assert_eq!(vms.state("web"), "running");
    vms.run("stop --force web").expect_code(0);
    run.end().expect_code(0);
}

#[test]
fn a_process_that_is_killed_before_its_guest_runs_is_told_of() {
    needs_kvm!();
    let held = Held::new("halt");
    kill(held.vms.pid("web"), libc::SIGKILL);
    held.start.end().expect_refusal(&["ended before its guest ran", "signal: 9", "slotpass log"]);
    assert_eq!(held.vms.state("web"), "stopped");
    assert_eq!(held.vms.get("web")["crashed"], true);
}

#[test]
fn a_vm_that_is_starting_is_stopped_when_its_guest_listens() {
    needs_kvm!();
    let held = Held::new("power-button poweroff");
    let stop = held.vms.slotpass("stop web").start();
    let log = go_on(&held.log);
    held.start.end().expect_code(0);
    stop.end().expect_code(0).expect_silent_stderr();
    assert!(log.join().unwrap().contains("end: the guest switched itself off"));
    assert_eq!(held.vms.state("web"), "stopped");
}

#[test]
fn a_vm_that_is_starting_can_be_ended_by_force() {
    needs_kvm!();
    let held = Held::new("spin");
    let status = format!("/proc/{}/status", held.vms.pid("web"));
    let stop = held.vms.slotpass("stop --force web").start();
    held.vms.wait_until("SIGTERM is pending", || {
        let status = fs::read_to_string(&status).unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        u64::from_str_radix(pending.trim(), 16).unwrap() & 1 << (libc::SIGTERM - 1) != 0
    });
    let log = go_on(&held.log);
    held.start.end().expect_code(0);
    stop.end().expect_code(0);
    assert!(log.join().unwrap().contains("end: ended by SIGTERM"));
    assert_eq!(held.vms.state("web"), "stopped");
    assert!(held.vms.get("web").get("crashed").is_none());
}

#[test]
fn a_vm_can_be_ended_whatever_signals_who_started_it_has_blocked() {
    needs_kvm!();
    let vms = Vms::new();
    vms.create("web", "spin");
    let mut start = vms.slotpass("start web");
    let block = || {
        // SAFETY: the calls write the set that they are given; both are safe between fork and exec.
        unsafe {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::sigprocmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
        }
        Ok(())
    };
    // SAFETY: the closure makes safe calls only.
    unsafe { start.command().pre_exec(block) };
    start.end().expect_code(0);
    vms.wait_for_output("web", "exit: spin");
    vms.run("stop --force web").expect_code(0);
    vms.run("log -n 1 web").expect_stdout("end: ended by SIGTERM");
    assert!(vms.get("web").get("crashed").is_none());
}

#[test]
fn warnings_are_shown_by_start_and_are_in_the_log() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    // What is left of an earlier process, and cannot be removed.
    let left = vms.path("run").join(&uuid).join("left");
    fs::create_dir_all(&left).unwrap();
    let script = format!("mount -t tmpfs none {} && exec \"$0\" \"$@\"", left.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &script];
    if !permitted(&wrapper, holder_of(here)) {
        return;
    }
    let start = || vms.by(Slotpass::through(wrapper[0], &wrapper[1..]), "start web").end();
    let warning = format!("warn: {}: Device or resource busy", left.display());
    let ended = start().expect_code(0).expect_stderr(&format!("slotpass: {warning}"));
    assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
    vms.run("log web").expect_stdout(&format!(" {warning}"));
    assert_eq!(vms.state("web"), "running");
    vms.run("stop --force web").expect_code(0);

    // An error comes after what was a warning before it.
    vms.run("update web kernel=/no/such/kernel").expect_code(0);
    let ended = start().expect_code(1);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains(&warning) && lines[1].contains("/no/such/kernel"),
        "{ended}"
    );
}
