//! Where vCPUs run, and how they wait.

use std::collections::BTreeMap;
use std::fs;

use crate::support::{Running, Slotpass, needs_kvm};

/// What the kernel lists of a thread or of CPUs, behind this name.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

/// CPUs that this test may run on, as the kernel lists them, and the last of them.
fn own_cpus() -> (String, String) {
    let all = field(&fs::read_to_string("/proc/self/status").unwrap(), "Cpus_allowed_list");
    let last = all.rsplit([',', '-']).next().unwrap().to_owned();
    (all, last)
}

/// CPUs by the names of a program's threads.
fn threads(running: &Running) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    statuses.map(|status| (field(&status, "Name"), field(&status, "Cpus_allowed_list"))).collect()
}

#[test]
fn a_vcpu_runs_where_it_was_told_to_and_the_others_anywhere() {
    needs_kvm!();
    let (all, last) = own_cpus();
    let run = Slotpass::exit("spin").args(["--cpus", "2", "--cpu-affinity", &format!("1={last}")]);
    let mut running = run.start();
    running.wait_for("exit: spin");
    let threads = threads(&running);
    assert_eq!((&threads["vcpu0"], &threads["vcpu1"]), (&all, &last), "{threads:?}");
    assert_eq!(threads["slotpass"], all);
}

#[test]
fn pins_that_cannot_be_are_refused_in_one_message() {
    needs_kvm!();
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let there = format!("this host has CPUs {} online", online.trim());
    for (pins, message) in [
        (&["2=0"][..], "there is no vCPU 2; a guest with 2 processors has vCPUs 0 to 1"),
        (&["0=0", "0=0"], "vCPU 0 is named twice"),
        (&["1=1023"], &format!("vCPU 1 cannot run on CPU 1023; {there}")),
    ] {
        let pins = pins.iter().flat_map(|pin| ["--cpu-affinity", pin]);
        Slotpass::exit("poweroff").args(["--cpus", "2"]).args(pins).end().expect_refusal(&[message]);
    }
}

#[test]
fn a_guest_waits_as_it_was_told_to_or_is_refused() {
    needs_kvm!();
    // Not every kernel has each of them, which is said then.
    for (arguments, refused) in [
        (&["--halt-poll", "0"][..], "halt poll: this kernel's KVM"),
        (&["--halt-poll", "4294967295"], "halt poll: this kernel's KVM"),
        (&["--disable-exits", "hlt"], "disable exits: this host's KVM cannot leave hlt"),
        (&["--disable-exits", "pause"], "disable exits: this host's KVM cannot leave pause"),
        (&["--disable-exits", "mwait"], "disable exits: this host's KVM cannot leave mwait"),
        (
            &["--disable-exits", "hlt,pause,mwait", "--cpus", "2"],
            "disable exits: this host's KVM cannot leave",
        ),
    ] {
        let ended = Slotpass::exit("vcpus reset=1").args(arguments).end();
        if ended.stderr.is_empty() {
            ended.expect_code(0).expect_stdout("ok reset 1 times");
        } else {
            ended.expect_refusal(&[refused]);
        }
    }
}
