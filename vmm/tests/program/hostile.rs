//! Guests that use all of a function at once, or all of it wrongly.

use serde_json::Value;

use crate::support::{Slotpass, needs_kvm};

/// Accesses of each attack; a busy machine makes a few thousand in a second.
const ACCESSES: u64 = 12_000;
/// What slotpass may say about an attack, in bytes.
const MOST_MESSAGES: usize = 16 << 10;

#[test]
fn an_attack_from_two_vcpus_neither_stops_slotpass_nor_makes_it_talk() {
    needs_kvm!();
    for seed in 1..=3 {
        let words = format!("accesses={ACCESSES} resets=1000 bars=60 seed={seed}");
        let run = Slotpass::new().run_image(guest::HOSTILE, &words).args(["--cpus", "2"]);
        let ended = run.simulated(["0:8:0", "0:8:1", "3:0:0"]).end();
        let ended =
            ended.expect_code(0).expect_stdout("attack by 2 vCPUs").expect_stdout("ok hostile accesses");
        assert!(ended.stderr.len() <= MOST_MESSAGES, "{} bytes\n{ended}", ended.stderr.len());
    }
}

/// Runs one step of the guest's and returns how often the interrupt routes were set.
fn route_commits(step: &str) -> u64 {
    let run = Slotpass::new().run_image(guest::VECTORS, step).simulated(["0:8:0"]);
    let (ended, stats) = run.args(["--stats=json:stats.json"]).end_and_read("stats.json");
    ended
        .expect_code(0)
        .expect_silent_stderr()
        .expect_stdout(&format!("ok {step} 256 vectors, delivered 256"));
    let stats: Value = serde_json::from_str(&stats).unwrap();
    stats.pointer("/calls/set_gsi_routing").and_then(Value::as_u64).unwrap()
}

#[test]
fn vectors_that_become_live_together_take_one_commit_of_the_routes() {
    needs_kvm!();
    // The pins' routes, and those of the vectors.
    assert!(route_commits("at-once") <= 4);
}

#[test]
fn a_vector_that_becomes_live_takes_at_most_one_commit_of_the_routes() {
    needs_kvm!();
    assert!(route_commits("one-by-one") <= 256 + 4);
}

#[test]
fn a_masked_vector_pends_and_comes_once() {
    needs_kvm!();
    let run = Slotpass::new().run_image(guest::VECTORS, "pending").simulated(["0:8:0"]);
    run.end().expect_code(0).expect_silent_stderr().expect_stdout("ok pending vectors 1, 128 and 255");
}
