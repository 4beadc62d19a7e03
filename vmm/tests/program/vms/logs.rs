//! Logs that are followed.

use super::{Vms, kill};
use crate::support::needs_kvm;

#[test]
fn a_log_is_followed_from_before_the_first_start_to_after_the_next() {
    needs_kvm!();
    let vms = Vms::new();
    vms.create("web", "power-button poweroff");
    let mut log = vms.slotpass("log -f web").start();
    let mut console = vms.slotpass("log -f --console web").start();
    vms.start("web");
    log.wait_for("the guest runs");
    console.wait_for("power-button: ready");
    vms.run("stop web").expect_code(0);
    log.wait_for("end: the guest switched itself off");
    console.wait_for("ok power-button");
    vms.run("update web cmdline=code=5").expect_code(0);
    vms.start("web");
    log.wait_for("end: the guest ended with exit code 11");
    console.wait_for("exit: code=5");
    vms.wait_for_state("web", "stopped");
    kill(log.pid(), libc::SIGTERM);
    log.end().expect_signal(libc::SIGTERM);
    // The other one ends with its VM.
    vms.run("delete web").expect_code(0);
    console.end().expect_code(0);
}
