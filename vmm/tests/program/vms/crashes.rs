//! What is left when a process is killed.

use std::fs::File;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{Vms, kill};
use crate::support::needs_kvm;

#[test]
fn a_vm_whose_process_was_killed_starts_again() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    vms.start("web");
    kill(vms.pid("web"), libc::SIGKILL);
    vms.wait_for_state("web", "stopped");
    assert_eq!(vms.get("web")["crashed"], json!(true));
    assert!(vms.left(&uuid).len() > 1, "sockets are left");
    vms.run("console web").expect_refusal(&["is not running"]);
    vms.run("stop web").expect_refusal(&["is not running"]);
    vms.run("update web cpus=2").expect_code(0);
    vms.start("web");
    assert_eq!(vms.state("web"), "running");
    vms.run("ctl --vm web status").expect_code(0).expect_stdout("2 processors");
    let log = vms.run("log web").stdout;
    assert_eq!((log.matches(" start: ").count(), log.matches(" end: ").count()), (2, 0), "{log}");
    kill(vms.pid("web"), libc::SIGKILL);
    vms.wait_for_state("web", "stopped");
    vms.run("delete web").expect_code(0);
    assert!(!vms.path("run").join(uuid).exists());
}

#[test]
fn a_process_that_has_a_dead_ones_number_is_left_alone() {
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let folder = vms.path("run").join(&uuid);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("lock"), format!("{}\nrunning\n", other.id())).unwrap();
    assert_eq!(vms.get("web")["crashed"], json!(true));
    // As of somebody who has just taken it.
    let lock = File::open(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    vms.run("stop --force web").expect_refusal(&[&other.id().to_string(), "is not this VM's"]);
    assert!(other.try_wait().unwrap().is_none());
    drop(lock);
    vms.run("delete web").expect_code(0);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_vm_that_runs_can_be_ended_whatever_became_of_its_description() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "power-button poweroff");
    let file = vms.path("state").join(&uuid).join("vm.json");
    for command in ["stop --force", "stop"] {
        vms.start("web");
        vms.wait_for_output("web", "power-button: ready");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, "{").unwrap();
        vms.run(&format!("ctl --vm {uuid} status")).expect_code(0);
        vms.run(&format!("log {uuid}")).expect_code(0);
        vms.run(&format!("{command} {uuid}")).expect_code(0);
        vms.run(&format!("console {uuid}")).expect_refusal(&[&uuid, "is not running"]);
        std::fs::write(&file, text).unwrap();
        assert_eq!(vms.state("web"), "stopped");
    }
}

#[test]
fn an_update_that_is_killed_changes_all_or_nothing() {
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    let file = vms.path("state").join(&uuid).join("vm.json");
    let (mut killed, mut changed) = (0, 0);
    // Later after each that was too early, and earlier after each that was too late, so that most are in the midst of it.
    let mut moment = Duration::from_micros(100);
    for round in 0..200_u64 {
        // Long, so that a torn one would show.
        let (cmdline, cpus) = (round.to_string().repeat(2000), round % 200 + 1);
        let change = json!({ "cmdline": cmdline, "cpus": cpus }).to_string();
        let mut update = vms.slotpass("update web").input(change);
        update.command().stdout(Stdio::null());
        let update = update.start_with_own_stdout();
        thread::sleep(moment);
        update.signal(libc::SIGKILL);
        killed += usize::from(update.end().status.code().is_none());
        let text = std::fs::read_to_string(&file).unwrap();
        let vm: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&vm["uuid"], &vm["alias"]), (&json!(uuid), &json!("web")));
        let whole = vm["cmdline"].as_str().unwrap();
        match vm["cpus"].as_u64() {
            None => assert_eq!(whole, "halt"),
            Some(now) => {
                assert!((0..=round).any(|r| r % 200 + 1 == now && whole == r.to_string().repeat(2000)))
            }
        }
        let is_changed = whole == cmdline;
        changed += usize::from(is_changed);
        moment = if is_changed { moment * 4 / 5 } else { moment * 5 / 4 };
    }
    assert!(killed > 0 && changed > 0, "{killed} killed, {changed} changed");
    vms.run("update web cpus=1 cmdline=halt").expect_code(0);
    assert_eq!(vms.get("web")["cmdline"], json!("halt"));
}
