//! A guest that runs, and what is asked of it by `slotpass ctl`.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::{Ended, Running, Slotpass, needs_kvm};

/// A guest that does nothing, with a function on bus 0 and one behind a port, and a port without one.
fn guest() -> Running {
    let slots = ["--slot", "0:8:0=sim:demo", "--slot", "1:0:0=sim:demo,port", "--port", "2"];
    let mut run =
        Slotpass::exit("halt").args(slots).args(["--control", "control", "--stats=json:stats.json"]).start();
    run.wait_for("exit: halt");
    run
}

fn ctl_at(socket: &Path, arguments: &str) -> Ended {
    Slotpass::new().args(["ctl", "--control"]).args([socket]).args(arguments.split_whitespace()).end()
}

fn ctl(run: &Running, arguments: &str) -> Ended {
    ctl_at(&run.path("control"), arguments)
}

#[track_caller]
fn expect_result(run: &Running, arguments: &str, result: &str) {
    let ended = ctl(run, &format!("{arguments} --json")).expect_code(0);
    assert_eq!(ended.stdout.trim(), result, "{ended}");
}

const LISTED_1: &str = r#"{"device":"sim:demo","slot":"1:0:0"}"#;

#[test]
fn functions_go_and_come_behind_ports() {
    needs_kvm!();
    let run = guest();
    let listing = |behind: &str, one: &str, two: &str| {
        let first = r#"{"device":"sim:demo","slot":"0:8:0"}"#;
        format!(
            r#"{{"functions":[{first}{behind}],"ports":[{{"bus":1,"state":"{one}"}},{{"bus":2,"state":"{two}"}}]}}"#
        )
    };
    let one = format!(",{LISTED_1}");
    expect_result(&run, "list", &listing(&one, "on", "empty"));
    ctl(&run, "list").expect_code(0).expect_stdout("on a root bus").expect_stdout("empty root port");
    ctl(&run, "status").expect_code(0).expect_stdout("2 functions, 2 root ports");

    // This guest does not hear that it is asked.
    let late = ctl(&run, "remove 1:0:0 --timeout 0");
    late.expect_code(1).expect_stderr("has not let go in time").expect_stderr("--force");
    let removed = format!(r#"{{"by_force":true,"removed":[{LISTED_1}]}}"#);
    expect_result(&run, "remove 1:0:0 --force", &removed);
    expect_result(&run, "list", &listing("", "empty", "empty"));

    // Nobody turns their power on; so they can go without anybody being asked.
    let both = "2:0:0=sim:demo 2:0:1=sim:demo";
    let listed = r#"{"device":"sim:demo","slot":"2:0:0"},{"device":"sim:demo","slot":"2:0:1"}"#;
    expect_result(&run, &format!("add {both}"), &format!(r#"{{"added":[{listed}]}}"#));
    expect_result(&run, "list", &listing(&format!(",{listed}"), "empty", "off"));
    ctl(&run, "remove 2:0:1").expect_code(1).expect_stderr("remove 2:0:0 2:0:1");
    expect_result(&run, "remove 2:0:0 2:0:1", &format!(r#"{{"by_force":false,"removed":[{listed}]}}"#));
    ctl(&run, "add 1:0:0=sim:demo,port").expect_code(0).expect_stdout("1:0:0: sim:demo is plugged in");

    run.signal(libc::SIGTERM);
    let (ended, folder) = run.end_in_folder();
    ended.expect_code(0);
    assert!(!folder.path().join("control").exists());
    assert!(folder.path().join("stats.json").exists());
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    needs_kvm!();
    let run = guest();
    for (arguments, parts) in [
        ("remove 0:8:0", &["slot 0:8:0", "bus 0", "root ports lead to bus 1, 2"][..]),
        ("remove 2:0:0", &["slot 2:0:0 is empty"]),
        ("remove 1:0:9", &["function 9"]),
        ("add 1:0:1=sim:demo", &["sim:demo is in slot 1:0:0"]),
        ("add 0:9:0=sim:demo", &["slot 0:9:0", "bus 0"]),
        ("add 7:0:0=sim:demo", &["slot 7:0:0", "bus 7"]),
        ("add 2:0:1=sim:demo", &["slot 2:0:1", "no function 0"]),
        ("add 2:0:0=sim:nope", &["slot 2:0:0", "'nope'", "there are: demo"]),
        ("add 2:0:0=ffff:ff:1f.7", &["slot 2:0:0", "ffff:ff:1f.7"]),
        ("add 2:0:0=sim:demo 2:0:0=sim:demo", &["2:0:0", "2 functions"]),
        ("add 2:0:0", &["SLOT=DEVICE"]),
        ("add", &["B:D:F=DEVICE"]),
        ("dance", &["dance"]),
    ] {
        let mut ended = ctl(&run, arguments).expect_code(1);
        for part in parts {
            ended = ended.expect_stderr(part);
        }
        assert!(ended.stdout.is_empty(), "{ended}");
    }
    ctl(&run, "status").expect_code(0).expect_stdout("2 functions");
}

#[test]
fn functions_that_the_port_has_no_room_for_are_refused() {
    needs_kvm!();
    let options = ["--port", "2", "--port-window", "0,0", "--control", "control"];
    let mut run = Slotpass::exit("halt").args(options).start();
    run.wait_for("exit: halt");
    let ended = ctl(&run, "add 2:0:0=sim:demo").expect_code(1);
    ended.expect_stderr("bus 2").expect_stderr("has 0 B").expect_stderr("--port-window");
    ctl(&run, "list").expect_code(0).expect_stdout("2:0:-");
}

#[test]
fn nobody_there_and_nobody_named() {
    let nobody = Slotpass::new().args(["ctl", "list"]).end();
    nobody.expect_code(1).expect_stderr("--control PATH").expect_stderr("SLOTPASS_CONTROL");
    let wrong = Slotpass::new().args(["ctl", "--control", "not-there", "list"]).end();
    wrong.expect_code(1).expect_stderr("not-there").expect_stderr("--control?");
}

#[test]
fn a_socket_is_private_and_not_taken_from_who_listens() {
    needs_kvm!();
    let run = guest();
    let path = run.path("control");
    let metadata = std::fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let second = Slotpass::exit("halt").args(["--control", path.to_str().unwrap()]).end();
    second.expect_code(1).expect_stderr("another slotpass listens there");
    ctl(&run, "status").expect_code(0);

    // One that nobody listens to any more is replaced.
    run.signal(libc::SIGKILL);
    let (_, folder) = run.end_in_folder();
    let left = folder.path().join("control");
    assert!(UnixListener::bind(&left).is_err() && ctl_at(&left, "list").status.code() == Some(1));
    let again = Slotpass::exit("poweroff").args(["--control", left.to_str().unwrap()]).end();
    again.expect_code(0);
    assert!(!left.exists());
}
