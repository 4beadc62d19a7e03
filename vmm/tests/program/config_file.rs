//! `--config`: a VM's description in JSON.

use crate::support::{Slotpass, needs_kvm};

const VM: &str = r#"{
    "kernel": "exit.elf",
    "cmdline": "vcpus code=5",
    "memory": "64M",
    "cpus": 2,
    "pci_devices": [
        { "path": "sim:demo", "pci_slot": "0:8:0" },
        { "path": "sim:demo", "pci_slot": "8:1" },
        { "path": "sim:demo", "pci_slot": "9" }
    ]
}"#;

fn with_file() -> Slotpass {
    let run = Slotpass::new().file("vm.json", VM).file("exit.elf", guest::EXIT).file("demo.elf", guest::DEMO);
    run.args(["run", "--config", "vm.json"])
}

#[test]
fn a_file_says_all_that_options_can() {
    needs_kvm!();
    let (ended, stats) = with_file().args(["--stats=json:stats.json"]).end_and_read("stats.json");
    ended.expect_code(5 << 1 | 1).expect_stdout("exit: vcpus code=5").expect_stdout("ok vcpus 2");
    for slot in ["\"0:8:0\"", "\"0:8:1\"", "\"0:9:0\""] {
        assert!(stats.contains(slot), "no slot {slot} in {stats}");
    }
}

#[test]
fn options_count_more_than_the_file_and_slots_are_added() {
    needs_kvm!();
    for (arguments, code, stdout) in [
        (["--cmdline", "vcpus poweroff"], 0, "ok vcpus 2"),
        (["--cpus", "1"], 11, "ok vcpus 1"),
        (["--slot", "0:0:1=sim:demo"], 11, "ok vcpus 2"),
    ] {
        with_file().args(arguments).end().expect_code(code).expect_stdout(stdout);
    }
    let demo = ["--kernel", "demo.elf", "--cmdline", "slot=4:0:0 iterations=1"];
    let ended = with_file().args(demo).args(["--slot", "4:0:0=sim:demo", "--memory", "96M"]).end();
    ended.expect_code(0).expect_stdout("function 04:00.0").expect_stdout(" 96 MiB\n");
}

#[test]
fn a_slot_of_the_file_cannot_be_given_again() {
    needs_kvm!();
    let ended = with_file().args(["--slot", "0:8:1=sim:demo"]).end();
    ended.expect_refusal(&["slot 0:8:1", "2 functions"]);
}
