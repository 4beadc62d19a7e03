//! Configuration by ports 0xcf8 and 0xcfc, whose writes KVM collects: what the guest sees of that.

use serde_json::Value;

use crate::support::{Slotpass, needs_kvm};

/// Reads by each vCPU that reads.
const READS: u64 = 800;

fn number(stats: &Value, pointer: &str) -> u64 {
    stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {stats:#}"))
}

#[test]
fn vcpus_that_share_the_ports_under_a_lock_read_what_they_asked_for() {
    needs_kvm!();
    let run = Slotpass::exit(&format!("config-race={READS}")).args(["--cpus", "3"]);
    let run = run.simulated(["0:8:0", "0:8:1", "3:0:0"]).args(["--stats=json:stats.json"]);
    let (ended, stats) = run.end_and_read("stats.json");
    let floods = READS.div_ceil(16) * 1000;
    ended.expect_code(1).expect_silent_stderr().expect_stdout(&format!(
        "ok config-race 3 vCPUs, 4 functions, {} reads, {floods} writes alone",
        2 * READS
    ));
    let stats: Value = serde_json::from_str(&stats).unwrap();
    let ports = stats["devices"].as_array().unwrap().iter().find(|device| device["name"] == "config-ports");
    let exits = number(ports.unwrap(), "/writes");
    // Beside them there is what finds the slots; where KVM collects nothing, each is an exit.
    let coalesced = number(&stats, "/coalesced");
    assert!(exits + coalesced >= 2 * READS + floods, "{exits} {coalesced}");
    // Of a row of writes, those that the ring has no room for exit: one in 170.
    assert!(coalesced == 0 || exits < floods / 100 && exits >= floods / 1000, "{exits} {coalesced}");
}

#[test]
fn a_reset_takes_effect_although_the_guest_never_exits_again() {
    needs_kvm!();
    for word in ["reset-and-spin", "reset-and-halt"] {
        let run = Slotpass::exit(&format!("{word}=2")).simulated(["0:8:0"]);
        let ended = run.end().expect_code(0).expect_silent_stderr();
        let ended = ended.expect_stdout(&format!("ok {word} 2 times"));
        assert_eq!(ended.stdout.matches("exit: ").count(), 3, "{ended}");
        Slotpass::exit(&format!("{word}=1"))
            .args(["--no-reboot"])
            .end()
            .expect_code(0)
            .expect_silent_stderr();
    }
}
