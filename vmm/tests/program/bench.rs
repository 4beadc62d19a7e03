//! `slotpass bench`, with the simulated function.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Running, Slotpass, needs_kvm};

fn bench(arguments: &str) -> Slotpass {
    Slotpass::new().args(["bench"]).args(arguments.split_whitespace())
}

/// The lines of the table of one that ran the guest.
fn table<'a>(stdout: &'a str, under: &str) -> Vec<Vec<&'a str>> {
    let lines = stdout.lines().skip_while(|line| !line.starts_with(under)).skip(2);
    lines.take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn every_row_has_its_figures_and_its_ratio_to_the_floor() {
    needs_kvm!();
    let run = bench("--floor --iterations 2 --html page.html").file("page.html", "of an earlier bench");
    let (ended, page) = run.end_and_read("page.html");
    let ended = ended.expect_code(0).expect_silent_stderr();
    let mut rows = table(&ended.stdout, "Under slotpass, sim:demo in slot 0:8:0, ");
    let absent = rows.pop().unwrap().join(" ");
    assert_eq!(absent, "dma-map: absent, no --slot with a function of this host", "{ended}");
    assert_eq!(rows.len(), 26, "{ended}");
    assert_eq!(rows.last().unwrap()[0], "start", "{ended}");
    for row in &rows {
        let (name, figures) = row.split_first().unwrap();
        let figures: Vec<f64> = figures.iter().map(|figure| figure.parse().unwrap()).collect();
        // Cycles and nanoseconds of five quantiles each, and two ratios where there is a floor.
        let has_no_floor = name.starts_with("enable") || *name == "start";
        assert_eq!(figures.len(), if has_no_floor { 10 } else { 12 }, "{name}\n{ended}");
        assert!(figures[..5].is_sorted() && figures[5..10].is_sorted(), "{name}\n{ended}");
    }
    let floor = table(&ended.stdout, "Under the bare KVM loop, ");
    assert!(floor.iter().any(|row| row[0] == "irqfd") && floor.iter().all(|row| row.len() == 11), "{ended}");
    assert_eq!(page.matches("<svg ").count(), 26, "{page}");
}

#[test]
fn a_bench_is_compared_with_what_it_wrote() {
    needs_kvm!();
    let ended = bench("--json --iterations 20 --only empty,enable-at-once=3,msix-read").end();
    let ended = ended.expect_code(0).expect_silent_stderr();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let measurements = report.pointer("/runs/0/measurements").and_then(Value::as_array).unwrap();
    let summary = measurements.iter().map(|measurement| {
        let counts = measurement["cycles"].as_array().unwrap().iter().map(|run| run[1].as_u64().unwrap());
        (measurement["name"].as_str().unwrap(), counts.sum::<u64>())
    });
    assert_eq!(summary.collect::<Vec<_>>(), [("empty", 20), ("enable-at-once=3", 10), ("msix-read", 20)]);
    for name in ["processor", "kernel", "mitigations", "kvm"] {
        assert!(report["environment"].get(name).is_some(), "{name}\n{ended}");
    }

    // Everything was much slower then.
    let mut slower = report.clone();
    for measurement in slower.pointer_mut("/runs/0/measurements").unwrap().as_array_mut().unwrap() {
        let far = 1u64 << 40;
        for run in measurement["cycles"].as_array_mut().unwrap() {
            run[0] = (run[0].as_u64().unwrap() + far).into();
        }
        for median in measurement["round_medians"].as_array_mut().unwrap() {
            *median = (median.as_u64().unwrap() + far).into();
        }
    }
    let again = bench("--iterations 20 --only msix-read,empty --baseline old.json");
    let ended = again.file("old.json", slower.to_string()).end().expect_code(0);
    let ended = ended.expect_stdout("Of 2 measurements that the baseline has too, 2 differ");
    ended.expect_stdout("-100.0 %");
}

/// Name, number of samples or why there are none, of each measurement under slotpass.
fn summary(json: &str) -> Vec<(String, Result<u64, String>)> {
    let report: Value = serde_json::from_str(json).unwrap();
    let measurements = report.pointer("/runs/0/measurements").and_then(Value::as_array).unwrap();
    let of_one = |measurement: &Value| {
        let samples = measurement["cycles"].as_array().ok_or_else(|| measurement["absent"].as_str().unwrap());
        let counts = samples.map(|runs| runs.iter().map(|run| run[1].as_u64().unwrap()).sum());
        (measurement["name"].as_str().unwrap().to_owned(), counts.map_err(str::to_owned))
    };
    measurements.iter().map(of_one).collect()
}

#[test]
fn starts_are_measured_by_the_host_in_the_order_that_was_asked_for() {
    needs_kvm!();
    let start = |until: &str| {
        let run = bench("--json --iterations 7 --only start,empty,start-kernel --kernel kernel.elf");
        // It says its words, and then some lines.
        let run =
            run.args(["--append", "lines=9 poweroff", "--until", until]).file("kernel.elf", guest::EXIT);
        let ended = run.end().expect_code(0).expect_silent_stderr();
        summary(&ended.stdout)
    };
    let wanted = |kernel: Result<u64, &str>| {
        let all = [("start", Ok(7)), ("empty", Ok(7)), ("start-kernel", kernel.map_err(str::to_owned))];
        all.map(|(name, found)| (name.to_owned(), found))
    };
    assert_eq!(start("ok lines"), wanted(Ok(7)));
    assert_eq!(start("login:"), wanted(Err("the guest ended before")));
}

#[test]
fn a_kernel_that_does_not_start_leaves_the_other_figures() {
    needs_kvm!();
    let run =
        bench("--json --iterations 1 --only start-kernel,pio-read --kernel text").file("text", "no kernel");
    let ended = run.end().expect_code(0).expect_silent_stderr();
    let summary = summary(&ended.stdout);
    let [(_, Err(why)), (_, Ok(1))] = summary.as_slice() else { panic!("{ended}") };
    assert!(why.starts_with("it ended with exit status: 1: ") && why.contains("text"), "{why}");
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is() {
    let run = |arguments: &str| bench(arguments).file("text", "no JSON").file("list.json", "{}").end();
    run("--baseline text").expect_refusal(&["baseline text", "expected", "slotpass bench --json"]);
    run("--baseline list.json").expect_refusal(&["baseline list.json", "missing field `format`"]);
    run("--baseline not-there").expect_refusal(&["baseline not-there", "No such file"]);
    run("--baseline /dev/zero").expect_refusal(&["baseline /dev/zero", "not a regular file"]);
    run("--html not-there/page.html").expect_refusal(&["not-there/page.html", "No such file"]);
    run("--slot 0:8:0=sim:demo --slot 0:9:0=fd:7")
        .expect_refusal(&["--slot 0:9:0=fd:7", "once for each guest"]);
    run("--iommufd fd:7").expect_refusal(&["--iommufd fd:7", "once for each guest"]);
    run("--only start-kernel").expect_refusal(&["start-kernel needs --kernel FILE"]);
    run("--only empty --kernel text").expect_refusal(&["--kernel is for start-kernel"]);
    run("--kernel not-there").expect_refusal(&["not-there", "No such file"]);
    run("--kernel text --initrd not-there").expect_refusal(&["not-there", "No such file"]);
    run("--until login:").expect_refusal(&["--kernel"]);
    run("--only empty,emtpy").expect_refusal(&["no measurement 'emtpy'", "empty-port"]);
    run("--iterations 65537").expect_refusal(&["65537", "65536"]);
    run("--against xen").expect_refusal(&["xen", "qemu"]);
}

#[test]
fn without_qemu_there_is_nothing_to_compare_with() {
    let mut run = bench("--against qemu --iterations 1");
    run.command().env("PATH", "/nonexistent");
    run.end().expect_refusal(&["there is no qemu-system-x86_64 in PATH"]);
}

#[test]
fn a_bench_that_fails_leaves_an_earlier_page_as_it_was() {
    let mut run =
        bench("--against qemu --iterations 1 --html page.html").file("page.html", "of an earlier bench");
    run.command().env("PATH", "/nonexistent");
    let (ended, page) = run.end_and_read("page.html");
    ended.expect_refusal(&["there is no qemu-system-x86_64"]);
    assert_eq!(page, "of an earlier bench");
}

/// A bench while a program runs that is called as QEMU and does not end; and that program's number.
fn in_qemus_turn() -> (Running, String) {
    let run =
        bench("--against qemu --iterations 1").file(PROGRAM, "#!/bin/sh\necho $$ >pid\nexec sleep 1000\n");
    let mut run = run.file("pid", "");
    fs::set_permissions(run.path(PROGRAM), Permissions::from_mode(0o755)).unwrap();
    let folder = run.path("");
    fs::create_dir(run.path("temporary")).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let temporary = run.path("temporary");
    run.command().env("PATH", path).env("TMPDIR", temporary);
    let mut running = run.start();
    let pid = running.path("pid");
    let read = || fs::read_to_string(&pid).unwrap();
    running.wait_until(|| read().ends_with('\n'));
    (running, read().trim().to_owned())
}

const PROGRAM: &str = "qemu-system-x86_64";

/// It has ended, even if nobody has waited for it yet.
fn has_ended(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn asked_to_end_in_qemus_turn_it_leaves_nothing() {
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let (running, pid) = in_qemus_turn();
        assert!(!has_ended(&pid));
        assert_eq!(fs::read_dir(running.path("temporary")).unwrap().count(), 1, "the guest's image");
        running.signal(signal);
        let (ended, folder) = running.end_in_folder();
        assert!(has_ended(&pid), "{ended}");
        assert_eq!(fs::read_dir(folder.path().join("temporary")).unwrap().count(), 0, "{ended}");
        ended.expect_refusal(&["ended by SIG"]);
    }
}

#[test]
fn killed_in_qemus_turn_it_leaves_no_qemu() {
    let (running, pid) = in_qemus_turn();
    running.signal(libc::SIGKILL);
    running.end().expect_signal(libc::SIGKILL);
    // If it were left, this would wait until the harness gives up.
    while !has_ended(&pid) {
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn asked_to_end_it_gives_the_function_back_and_has_no_figures() {
    needs_kvm!();
    let long = ["mmio-read"; 20].join(",");
    let mut run = bench(&format!("--iterations 65536 --only {long}")).start();
    let threads = format!("/proc/{}/task", run.pid());
    let names = || {
        let threads = std::fs::read_dir(&threads).into_iter().flatten().flatten();
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok())
    };
    run.wait_until(|| names().any(|name| name.trim() == "vcpu0"));
    run.signal(libc::SIGTERM);
    run.end().expect_refusal(&["ended by SIGTERM"]);
}
