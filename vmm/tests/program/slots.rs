//! Functions in the slots asked for.

use serde_json::Value;

use crate::support::{Slotpass, needs_kvm};

/// All slots of a bus but the host bridge's device.
fn whole_bus(bus: u8) -> Vec<String> {
    let functions = (1..32).flat_map(|device| (0..8).map(move |function| (device, function)));
    functions.map(|(device, function)| format!("{bus}:{device}:{function}")).collect()
}

#[test]
fn the_guest_finds_and_drives_a_function_in_its_slot() {
    needs_kvm!();
    // Slots in use, and the one that the guest drives.
    for (slots, driven) in [
        (vec!["3:0:0", "3:5:0"], "3:0:0"),
        (vec!["3:5:0"], "3:5:0"),
        (vec!["8:0", "8:1"], "0:8:1"),
        (vec!["255:31:0"], "255:31:0"),
        (vec!["0:31:0", "1:0:0", "0:31:7"], "0:31:7"),
    ] {
        let ended = Slotpass::demo(driven).simulated(&slots).end();
        let numbers: Vec<u8> = driven.split(':').map(|number| number.parse().unwrap()).collect();
        let name = format!("{:02x}:{:02x}.{}", numbers[0], numbers[1], numbers[2]);
        ended.expect_code(0).expect_silent_stderr().expect_stdout(&format!("function {name}\n"));
    }
}

#[test]
fn a_guest_does_not_find_what_is_in_another_slot() {
    needs_kvm!();
    let ended = Slotpass::demo("0:9:0").simulated(["0:8:0"]).end();
    ended.expect_code(0x70 << 1 | 1).expect_stdout("FAIL");
}

#[test]
fn a_whole_bus_of_functions_works_to_the_last_one() {
    needs_kvm!();
    let ended = Slotpass::demo("0:31:7").simulated(whole_bus(0)).end();
    ended.expect_code(0).expect_silent_stderr();
}

#[test]
fn what_is_not_there_reads_as_all_ones() {
    needs_kvm!();
    // Functions of buses 0 to 3 that are there: the host bridge and these.
    for slots in [vec![], vec!["0:8:0", "0:8:3", "1:0:0", "3:31:0"]] {
        let ended = Slotpass::exit("probe-empty poweroff").simulated(&slots).end();
        let absent = 4 * 256 - 1 - slots.len();
        ended.expect_code(0).expect_stdout(&format!("ok probe-empty absent functions: {absent} by CF8"));
    }
}

#[test]
fn functions_that_are_absent_are_read_without_exits() {
    needs_kvm!();
    // ECAM has the buses up to the last one that is in use.
    for (slots, buses) in [(vec![], 1), (vec!["0:8:0", "0:8:3", "1:0:0", "3:31:0"], 4)] {
        let run = Slotpass::exit("probe-empty poweroff").simulated(&slots).args(["--stats=json:stats.json"]);
        let (ended, text) = run.end_and_read("stats.json");
        ended.expect_code(0);
        let stats: Value = serde_json::from_str(&text).unwrap();
        let devices = stats["devices"].as_array().unwrap();
        let ecam = devices.iter().find(|device| device["name"] == "ecam").unwrap();
        // Of those that are there, the id. Each of the others is written to once.
        assert_eq!(ecam["reads"], 1 + slots.len(), "{ecam}");
        assert_eq!(ecam["writes"], buses * 256 - 1 - slots.len(), "{ecam}");
    }
}

#[test]
fn a_function_is_on_the_bus_that_its_port_was_told() {
    needs_kvm!();
    let ended = Slotpass::exit("renumber poweroff").args(["--slot", "1:0:0=sim:demo,port"]).end();
    ended.expect_code(0).expect_silent_stderr().expect_stdout("ok renumber 9 times");
}
