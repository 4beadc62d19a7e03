//! `slotpass show`: what a guest would see of a function.

use serde_json::Value;

use crate::support::Slotpass;

fn show(arguments: &str) -> Slotpass {
    Slotpass::new().args(["show"]).args(arguments.split_whitespace())
}

fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|entry| entry[key] == value);
    found.unwrap_or_else(|| panic!("no {key} {value} in {list:#}"))
}

#[test]
fn a_simulated_function_is_shown_topic_by_topic() {
    let mut ended = show("sim:demo").end().expect_code(0).expect_silent_stderr();
    for line in [
        "sim:demo: ",
        "BARs",
        "    0x0..0x100000                mapped",
        "    0x0..0x40                    trapped: I/O ports cannot be mapped",
        "    0x0..0x1000                  reads take no exit, writes are trapped: holds the MSI-X table",
        "Interrupts",
        "Reset",
        "Capabilities ",
        "Registers ",
        "  0x000 Vendor ID ",
    ] {
        ended = ended.expect_stdout(&format!("\n{line}").replace("\nsim", "sim"));
    }
}

#[test]
fn only_what_differs() {
    let ended = show("--diff sim:demo").end().expect_code(0).expect_silent_stderr();
    let ended = ended.expect_stdout("Capabilities that differ").expect_stdout("PCIe Capabilities");
    for absent in ["Vendor ID ", "BARs", "Interrupts"] {
        assert!(!ended.stdout.contains(absent), "{absent:?} differs\n{ended}");
    }
}

#[test]
fn behind_a_root_port_there_is_a_link() {
    let ended = show("--port --diff sim:demo").end().expect_code(0).expect_silent_stderr();
    ended.expect_stdout("as the guest sees it behind a root port").expect_stdout(" Link Capabilities 2 ");
    let ended = show("sim:demo --json --port").end().expect_code(0).expect_silent_stderr();
    let shown: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(shown["stands"], "behind_port");
}

#[test]
fn pages_whose_reads_are_asked_to_exit() {
    let ended = show("--msix-page trap sim:demo").end().expect_code(0).expect_silent_stderr();
    ended.expect_stdout(
        "0x8000..0x9000               trapped: holds MSI-X structures, and msix-page=trap asks for it",
    );
    show("--msix-page exit sim:demo").end().expect_refusal(&["'exit'", "trap and read-only"]);
}

#[test]
fn json_has_all_of_it() {
    let ended = show("sim:demo --json").end().expect_code(0).expect_silent_stderr();
    let shown: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(shown["schema"], 1, "{ended}");
    assert_eq!(shown["device"], "sim:demo");
    assert_eq!((&shown["identity"]["vendor"], &shown["config_bytes"]), (&0x5350.into(), &4096.into()));
    let reasons = |bar: usize| -> Vec<&Value> {
        shown["bars"][bar]["pieces"].as_array().unwrap().iter().map(|piece| &piece["reason"]).collect()
    };
    assert_eq!(reasons(1), ["io"]);
    assert_eq!(reasons(2), [&Value::Null]);
    assert_eq!(reasons(3), [&"msix_table".into(), &Value::Null, &"msix_pending".into(), &Value::Null]);
    let read_only = shown["bars"][3]["pieces"].as_array().unwrap().iter().map(|piece| &piece["read_only"]);
    assert_eq!(read_only.collect::<Vec<_>>(), [true, false, true, false]);
    assert_eq!(shown["interrupts"]["msix"]["table"]["bar"], 4);
    let msix = find(&shown["capabilities"], "name", "MSI-X");
    assert_eq!((&msix["physical"], &msix["guest"]), (&0x70.into(), &0x70.into()));
    let vendor = find(&shown["registers"], "name", "Vendor ID");
    assert_eq!((&vendor["physical"], &vendor["guest"]), (&"0x5350".into(), &"0x5350".into()));
    assert_eq!(vendor["access"], serde_json::json!(["shadowed"]));
}

#[test]
fn what_cannot_be_shown_is_refused() {
    for (arguments, parts) in [
        ("", &["<DEVICE>"][..]),
        ("sim:nope", &["'nope'", "there are: "]),
        ("ffff:ff:1f.7", &["ffff:ff:1f.7", "no PCI function"]),
        ("no-device", &["no-device", "no PCI function"]),
        ("/etc/passwd", &["/etc/passwd"]),
        ("sim:demo surplus", &["surplus"]),
        ("--diff --json sim:demo", &["--diff", "--json"]),
    ] {
        show(arguments).end().expect_refusal(parts);
    }
}

#[test]
fn whoever_stops_reading_is_no_error() {
    let mut run = show("sim:demo");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    run.command().stdout(writer);
    run.start_with_own_stdout().end().expect_code(0).expect_silent_stderr();
}
