//! `slotpass doctor VM` says whether `slotpass start VM` would start it.

use crate::support::{Slotpass, needs_kvm};

use super::Vms;

#[test]
fn doctor_foresees_what_start_does() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    let ended = vms.run("doctor web").expect_code(0).expect_silent_stderr();
    ended.expect_stdout("\nGuest\n").expect_stdout("  ok       vm                   it is stopped\n");
    assert!(!vms.path("run").exists(), "doctor only reads");
    vms.start("web");
    for name in ["web", &uuid] {
        let ended = vms.run(&format!("doctor {name}")).expect_code(1).expect_silent_stderr();
        let problem = format!("problem vm: it is running already (process {})\n", vms.pid("web"));
        ended.expect_stdout(&problem).expect_stdout(&format!("        slotpass stop {name}\n"));
    }
    vms.run("start web").expect_refusal(&["it is running already"]);
    vms.run("stop --force web").expect_code(0);
    vms.run("doctor web").expect_code(0);
    std::fs::remove_file(vms.path("exit.elf")).unwrap();
    vms.run("doctor web").expect_code(1).expect_stdout("  problem  kernel ");
    vms.run("start web").expect_refusal(&["exit.elf"]);
}

#[test]
fn a_vm_in_other_folders() {
    needs_kvm!();
    let vms = Vms::new();
    let uuid = vms.create("web", "halt");
    let [state, run] = ["state", "run"].map(|name| vms.path(name).display().to_string());
    let doctor =
        |name: &str| Slotpass::new().args(["doctor", name, "--state-dir", &state, "--run-dir", &run]).end();
    doctor("web").expect_code(0).expect_stdout("it is stopped");
    doctor("wob").expect_refusal(&["there is no VM \"wob\"", &state, &uuid]);
    vms.start("web");
    let command = format!("        slotpass stop --state-dir {state} --run-dir {run} web\n");
    doctor("web").expect_code(1).expect_stdout(&command);
}
