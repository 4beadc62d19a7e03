//! Commands that are given at the same time.

use super::Vms;
use crate::support::{Ended, needs_kvm};

impl Vms {
    /// Gives these commands at once.
    fn at_once<const N: usize>(&self, commands: [&str; N]) -> [Ended; N] {
        commands.map(|command| self.slotpass(command).start()).map(|run| run.end())
    }

    /// Nothing of a VM is there.
    #[track_caller]
    fn expect_gone(&self, uuid: &str) {
        self.wait_until("no process", || self.processes(uuid) == 0);
        for folder in ["state", "run"] {
            assert!(!self.path(folder).join(uuid).exists(), "{folder} is left");
        }
        assert_eq!(std::fs::read_dir(self.path("state")).unwrap().count(), 0);
    }
}

fn codes<const N: usize>(ended: &[Ended; N]) -> [Option<i32>; N] {
    std::array::from_fn(|at| ended[at].status.code())
}

#[test]
fn of_several_starts_one_does_it() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    for _ in 0..3 {
        let started = vms.at_once(["start web"; 4]);
        assert_eq!((vms.state("web").as_str(), vms.processes(&uuid)), ("running", 1));
        let process = format!("already (process {})", vms.pid("web"));
        let (done, refused): (Vec<_>, Vec<_>) =
            started.into_iter().partition(|ended| ended.status.code() == Some(0));
        assert_eq!(done.len(), 1);
        for ended in refused {
            ended.expect_refusal(&[&uuid, &process]);
        }
        vms.run("stop --force web").expect_code(0);
    }
}

#[test]
fn a_vm_is_started_or_deleted() {
    needs_kvm!();
    let vms = Vms::new();
    for round in 0..10 {
        let uuid = vms.create("web", "halt");
        let (start, delete) = (format!("start {uuid}"), format!("delete {uuid}"));
        let [start, delete] = if round % 2 == 0 {
            vms.at_once([&start, &delete])
        } else {
            let [delete, start] = vms.at_once([&delete, &start]);
            [start, delete]
        };
        let both = [start, delete];
        match codes(&both) {
            [Some(0), Some(1)] => {
                let [_, delete] = both;
                delete.expect_refusal(&["already (process", "slotpass stop"]);
                assert_eq!((vms.state("web").as_str(), vms.processes(&uuid)), ("running", 1));
                vms.run("delete --force web").expect_code(0);
            }
            [Some(1), Some(0)] => {
                let [start, _] = both;
                let is_clear = ["was deleted meanwhile", "there is no VM"]
                    .iter()
                    .any(|text| start.stderr.contains(text));
                assert!(is_clear, "{start}");
            }
            _ => panic!("{}\n{}", both[0], both[1]),
        }
        vms.expect_gone(&uuid);
    }
}

#[test]
fn a_vm_that_is_deleted_by_force_while_it_starts_is_whole_or_gone() {
    needs_kvm!();
    let vms = Vms::new();
    for _ in 0..6 {
        let uuid = vms.create("web", "halt");
        let (start, delete) = (format!("start {uuid}"), format!("delete --force {uuid}"));
        let both = vms.at_once([&start, &delete]);
        match codes(&both) {
            [Some(_), Some(0)] => {}
            // It began between the end of one process and the removal.
            [Some(0), Some(1)] => {
                assert_eq!((vms.state("web").as_str(), vms.processes(&uuid)), ("running", 1));
                vms.run("delete --force web").expect_code(0);
            }
            _ => panic!("{}\n{}", both[0], both[1]),
        }
        vms.expect_gone(&uuid);
    }
}

#[test]
fn a_vm_is_deleted_once() {
    let vms = Vms::new();
    for _ in 0..5 {
        let uuid = vms.create("web", "halt");
        let delete = format!("delete {uuid}");
        let ended = vms.at_once([delete.as_str(); 3]);
        let (done, refused): (Vec<_>, Vec<_>) =
            ended.into_iter().partition(|ended| ended.status.code() == Some(0));
        assert_eq!(done.len(), 1);
        for ended in refused {
            let is_clear =
                ["was deleted meanwhile", "there is no VM"].iter().any(|text| ended.stderr.contains(text));
            assert!(is_clear && ended.status.code() == Some(1), "{ended}");
        }
        vms.expect_gone(&uuid);
    }
}

#[test]
fn a_stop_ends_the_vm_that_ran_and_not_the_one_that_is_started_meanwhile() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "power-button poweroff");
    for round in 0..6 {
        if vms.state("web") == "stopped" {
            vms.start("web");
        }
        let [stop, start] = if round % 2 == 0 {
            vms.at_once(["stop web", "start web"])
        } else {
            let [start, stop] = vms.at_once(["start web", "stop web"]);
            [stop, start]
        };
        stop.expect_code(0).expect_silent_stderr();
        let (state, processes) = if start.status.code() == Some(0) {
            ("running", 1)
        } else {
            start.expect_refusal(&[&uuid, "already (process"]);
            ("stopped", 0)
        };
        assert_eq!(vms.state("web"), state);
        vms.wait_until("one process or none", || vms.processes(&uuid) == processes);
        assert!(vms.get("web").get("crashed").is_none());
    }
}
