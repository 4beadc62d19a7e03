//! In good order.

use std::fs;
use std::os::unix::process::CommandExt;

use serde_json::json;

use super::Vms;
use crate::support::{Pty, Slotpass, needs_kvm};

#[test]
fn from_create_to_delete() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "power-button poweroff");
    vms.json("update web", &json!({ "add_pci_devices": [ { "path": "sim:demo", "pci_slot": "8:1" } ] }))
        .expect_code(0);
    vms.run("update web cpus=2").expect_code(0);
    let vm = vms.get(&uuid);
    assert_eq!((&vm["alias"], &vm["cpus"], &vm["state"]), (&json!("web"), &json!(2), &json!("stopped")));
    assert_eq!(vm["pci_devices"][1], json!({ "path": "sim:demo", "pci_slot": "8:1", "model": "passthru" }));
    let row = vms.run("vms -p -o uuid,alias,state,pid,cpus,devices").expect_code(0).stdout;
    assert_eq!(row, format!("{uuid}:web:stopped:--:2:0\\:8\\:0=sim\\:demo 0\\:8\\:1=sim\\:demo\n"));

    vms.start("web");
    let (state, pid) = (vms.state("web"), vms.pid("web"));
    assert_eq!(state, "running");
    vms.run("vms").expect_code(0).expect_stdout("UUID ").expect_stdout("running").expect_stdout("64 MiB");
    let second = vms.run("start web");
    second.expect_refusal(&[&uuid, "(web)", "it is running already", &format!("process {pid}")]);
    let refused = vms.json("update web", &json!({ "remove_pci_devices": ["sim:demo"] }));
    refused.expect_code(1).expect_stderr("sim:demo is in 2 slots of this VM");
    let refused = vms.run("update web cpus=3");
    refused
        .expect_refusal(&["updates to cpus are only allowed when state is \"stopped\", currently: running"]);
    vms.run("update web alias=db").expect_code(0);
    vms.run("delete db").expect_refusal(&["it is running already", "slotpass stop"]);
    vms.run("ctl --vm db list").expect_code(0).expect_stdout("0:8:1");
    vms.run("ctl --vm db status --json").expect_code(0).expect_stdout(&format!("\"pid\":{pid}"));

    vms.wait_for_output("db", "power-button: ready");
    vms.run("stop db").expect_code(0).expect_silent_stderr();
    vms.wait_for_output("db", "ok power-button");
    assert_eq!(vms.left(&uuid), ["lock"]);
    assert!(vms.get("db").get("crashed").is_none());
    vms.run("stop db").expect_refusal(&["is not running"]);
    vms.run("ctl --vm db list").expect_code(1).expect_stderr("is not running");
    vms.run("console db").expect_refusal(&["is not running", "slotpass start db", "log --console db"]);
    let log = vms.run("log db").expect_code(0);
    log.expect_stdout(" info: start: slotpass ")
        .expect_stdout("\"cpus\":2")
        .expect_stdout("end: the guest switched itself off");
    vms.run("log -n 1 db").expect_code(0).expect_stdout("end: the guest");

    vms.run("delete db").expect_code(0);
    assert_eq!(vms.run("vms -j").expect_code(0).stdout, "[]\n");
    assert_eq!(fs::read_dir(vms.path("state")).unwrap().count(), 0);
    vms.run("get db").expect_refusal(&["there is no VM \"db\"", "there is: nothing"]);
}

#[test]
fn a_guest_that_does_not_listen_is_ended_by_force_only() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("deaf", "halt");
    vms.start("deaf");
    let late = vms.run("stop deaf --timeout 1");
    late.expect_refusal(&["(deaf)", "within 1 seconds", "does not listen", "--force"]);
    assert_eq!(vms.state("deaf"), "running");
    vms.run("stop deaf --force").expect_code(0);
    assert_eq!((vms.state("deaf").as_str(), vms.left(&uuid)), ("stopped", vec!["lock".to_owned()]));
    vms.run("log -n 1 deaf").expect_stdout("end: ended by SIGTERM");
    vms.start("deaf");
    vms.run("delete --force deaf").expect_code(0);
    assert_eq!(vms.run("vms -p -o uuid").expect_code(0).stdout, "");
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("bad", "halt");
    fs::write(vms.path("exit.elf"), "no kernel").unwrap();
    for (change, parts) in
        [("memory=64M", &["exit.elf"][..]), ("kernel=/no/such/kernel", &["/no/such/kernel", "No such file"])]
    {
        vms.run(&format!("update bad {change}")).expect_code(0);
        vms.run("start bad").expect_refusal(parts);
        assert_eq!((vms.state("bad").as_str(), vms.left(&uuid)), ("stopped", vec!["lock".to_owned()]));
        assert!(vms.get("bad").get("crashed").is_none());
    }
    // A log that cannot be written is known before anything is begun.
    let log = vms.path("state").join(&uuid).join("console.log");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    vms.run("start bad").expect_refusal(&["cannot open", "console.log"]);
    assert!(vms.get("bad").get("crashed").is_none());
    fs::remove_dir(&log).unwrap();
    let log = vms.run("log bad").expect_stdout("error: ").expect_stdout("end: the VM did not run");
    assert_eq!(log.stdout.matches(" start: ").count(), 3, "{log}");
    let gone = json!({ "kernel": vms.path("exit.elf"), "add_pci_devices": [ { "path": "00fe:01:00.0", "pci_slot": "9" } ] });
    vms.json("update bad", &gone)
        .expect_code(0)
        .expect_stderr("warn: 00fe:01:00.0 is no function of this host");
    fs::write(vms.path("exit.elf"), guest::EXIT).unwrap();
    vms.run("start bad").expect_refusal(&["slot 0:9:0", "00fe:01:00.0"]);
}

#[test]
fn a_start_that_nobody_waits_for_any_more_is_called_off() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("off", "halt");
    // As its process finds itself when `start` was ended meanwhile.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut run = vms.slotpass(&format!("vm-process {uuid}"));
    run.command().stdout(writer);
    run.start_with_own_stdout().end().expect_code(0);
    assert_eq!((vms.state("off").as_str(), vms.left(&uuid)), ("stopped", vec!["lock".to_owned()]));
    vms.run("log off")
        .expect_stdout("nobody waits any more")
        .expect_stdout("end: ended by whoever started it");
}

#[test]
fn a_vm_outlives_the_terminal_that_it_was_started_from() {
    needs_kvm!();
    let vms = Vms::new();
    vms.create("web", "echo poweroff");
    let pty = Pty::open();
    let mut start = vms.slotpass("start web");
    pty.control(start.command());
    start.end().expect_code(0);
    pty.hang_up();
    // Where it was started from may go too, and who started it may have had no stdio at all.
    let (mut console, mut keys) = vms.console("web");
    console.wait_for("ready");
    std::io::Write::write_all(&mut keys, b"quit\r").unwrap();
    console.end().expect_code(0).expect_stderr("the VM has ended");
    vms.wait_for_state("web", "stopped");
    let mut bare = vms.slotpass("start web");
    let close = || {
        // SAFETY: safe between fork and exec.
        (0..3).for_each(|fd| _ = unsafe { libc::close(fd) });
        Ok(())
    };
    // SAFETY: the closure makes system calls only.
    unsafe { bare.command().pre_exec(close) };
    bare.end().expect_code(0);
    assert_eq!(vms.state("web"), "running");
}

#[test]
fn json_and_arguments_that_are_refused() {
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    vms.slotpass("create").input("{ \"kernel\": ").end().expect_refusal(&["stdin:1:12", "EOF"]);
    vms.slotpass("create").input("[]").end().expect_refusal(&["stdin:1:", "expected a map"]);
    vms.run("create -f no-such-file").expect_refusal(&["no-such-file", "No such file"]);
    vms.json("create", &json!({ "kernel": "/k", "alias": "web" })).expect_refusal(&["alias", &uuid]);
    vms.json(
        "create",
        &json!({ "kernel": "/k", "pci_devices": [ { "path": "sim:demo", "pci_slot": "0:0:0" } ] }),
    )
    .expect_refusal(&["Invalid value(s) for: pci_devices.0.pci_slot: slot 0:0:0"]);
    vms.run("update web cpus").expect_refusal(&["'cpus' is not FIELD=VALUE"]);
    vms.run("update web cpus=many").expect_refusal(&["Invalid value(s) for: cpus"]);
    for command in ["get", "start", "stop", "delete", "console", "log", "update"] {
        vms.slotpass(&format!("{command} other")).input("{}").end().expect_refusal(&["\"other\"", &uuid]);
    }
    vms.run("vms -p").expect_code(1);
    vms.run("vms -o nothing").expect_code(1).expect_stderr("uuid");
    // A VM that cannot be read hides no other.
    fs::create_dir(vms.path("state").join("notes")).unwrap();
    let listed = vms.run("vms").expect_code(0);
    listed.expect_stdout(&uuid).expect_stderr("warn: ").expect_stderr("notes: this is no VM's folder");
    let damaged = vms.path("state").join("a1b5c0de-0000-4000-8000-000000000001");
    fs::create_dir(damaged).unwrap();
    vms.run("vms").expect_code(1).expect_stdout(&uuid).expect_stderr("vm.json: No such file");
}

#[test]
fn folders_may_be_named_before_and_after_a_command_of_ctl() {
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    let places =
        format!("--state-dir {} --run-dir {}", vms.path("state").display(), vms.path("run").display());
    for arguments in [
        format!("ctl {places} --vm web list"),
        format!("ctl --vm web list {places}"),
        format!("stop web {places}"),
    ] {
        // Without what the environment says of them.
        let ended = Slotpass::new().args(arguments.split_whitespace()).end();
        ended.expect_code(1).expect_stderr(&format!("VM {uuid} (web) is not running"));
    }
}
