//! What cannot be done is said in one message that names the thing; exit code 1, and nothing on stdout.

use crate::support::{Slotpass, needs_kvm};

/// A run in a folder with good and bad files.
fn among_files(arguments: &str) -> Slotpass {
    let run = Slotpass::new()
        .file("exit.elf", guest::EXIT)
        .file("text", "#!/bin/sh\necho this is not a kernel\n".repeat(300))
        .file("empty", "")
        .file("headers.elf", &guest::EXIT[..40])
        .file("segments.elf", &guest::EXIT[..200])
        .file("half.elf", &guest::EXIT[..guest::EXIT.len() / 8]);
    std::fs::create_dir(run.path("folder")).unwrap();
    run.args(arguments.split_whitespace())
}

fn expect_refusals(rows: &[(&str, &[&str])]) {
    for (arguments, parts) in rows {
        among_files(arguments).end().expect_refusal(parts);
    }
}

#[test]
fn kernels_and_initrds_that_are_none() {
    expect_refusals(&[
        ("run", &["--kernel FILE"]),
        ("run --kernel not-there", &["kernel not-there", "No such file"]),
        ("run --kernel text", &["kernel text", "neither bzImage, PVH ELF nor multiboot"]),
        ("run --kernel empty", &["kernel empty", "neither bzImage, PVH ELF nor multiboot"]),
        ("run --kernel headers.elf", &["kernel headers.elf", "ends before"]),
        ("run --kernel segments.elf", &["kernel segments.elf", "ends before"]),
        ("run --kernel half.elf", &["kernel half.elf", "ends before"]),
        ("run --kernel folder", &["kernel folder", "not a regular file"]),
        ("run --kernel /dev/zero", &["kernel /dev/zero", "not a regular file"]),
        ("run --kernel exit.elf --initrd not-there", &["initrd not-there", "No such file"]),
        ("run --kernel exit.elf --initrd folder", &["initrd folder", "not a regular file"]),
        ("run --kernel exit.elf --initrd empty", &["initrd empty", "empty"]),
    ]);
}

#[test]
fn options_that_are_none_or_have_no_such_value() {
    expect_refusals(&[
        ("--bogus", &["--bogus"]),
        ("walk", &["walk"]),
        ("run --kernel", &["--kernel"]),
        ("run --kernel exit.elf --bogus", &["--bogus"]),
        ("run --kernel exit.elf surplus", &["surplus"]),
        ("run --kernel exit.elf --kernel exit.elf", &["--kernel"]),
        ("run --kernel exit.elf --stats=xml:foo", &["xml:foo", "json:FILE"]),
        ("run --kernel exit.elf --stats=json:", &["json:", "json:FILE"]),
        ("run --kernel exit.elf --cpus 0", &["--cpus", "0 is not 1 to"]),
        ("run --kernel exit.elf --cpus 5000", &["--cpus", "5000 is not 1 to"]),
        ("run --kernel exit.elf --cpus two", &["--cpus", "two"]),
        ("run --kernel exit.elf --cpus 255", &["--cpus", "255 is not 1 to"]),
        ("run --kernel exit.elf --cpus 99999999999999999999", &["--cpus", "99999999999999999999"]),
        ("run --kernel exit.elf --memory 0", &["memory size 0", "too small"]),
        ("run --kernel exit.elf --memory 14M", &["memory size 14M", "too small"]),
        ("run --kernel exit.elf --memory 17M", &["memory size 17M", "2 MiB"]),
        ("run --kernel exit.elf --memory 5T", &["memory size 5T", "too large"]),
        ("run --kernel exit.elf --memory 99999999999999999999", &["99999999999999999999", "too large"]),
        ("run --kernel exit.elf --memory 1X", &["memory size 1X", "not a number with a unit"]),
        ("run --kernel exit.elf --memory M", &["memory size M", "not a number with a unit"]),
        ("run --kernel exit.elf --memory=-16M", &["memory size -16M", "not a number with a unit"]),
        ("run --kernel exit.elf --memory 1.5G", &["memory size 1.5G", "not a number with a unit"]),
    ]);
}

#[test]
fn slots_that_are_none() {
    expect_refusals(&[
        ("run --kernel exit.elf --slot 8", &["'8'", "SLOT=DEVICE"]),
        ("run --kernel exit.elf --slot 0:8:0=", &["'0:8:0='", "SLOT=DEVICE"]),
        ("run --kernel exit.elf --slot =sim:demo", &["=sim:demo", "B:D:F"]),
        ("run --kernel exit.elf --slot a:8:0=sim:demo", &["'a:8:0'", "B:D:F"]),
        ("run --kernel exit.elf --slot 0x8=sim:demo", &["'0x8'", "B:D:F"]),
        ("run --kernel exit.elf --slot 00:08.0=sim:demo", &["'00:08.0'", "B:D:F"]),
        ("run --kernel exit.elf --slot 0:0:8:0=sim:demo", &["'0:0:8:0'", "B:D:F"]),
        ("run --kernel exit.elf --slot 0:32:0=sim:demo", &["device 32", "0 to 31"]),
        ("run --kernel exit.elf --slot 0:8:8=sim:demo", &["function 8", "0 to 7"]),
        ("run --kernel exit.elf --slot 256:0:0=sim:demo", &["bus 256", "0 to 255"]),
        ("run --kernel exit.elf --slot 99999999999:0:0=sim:demo", &["99999999999"]),
    ]);
}

#[test]
fn slot_maps_that_cannot_be() {
    needs_kvm!();
    expect_refusals(&[
        (
            "run --kernel exit.elf --slot 0:8:0=sim:demo --slot 8=sim:demo",
            &["slot 0:8:0", "2 functions", "a slot of its own"],
        ),
        ("run --kernel exit.elf --slot 0:8:1=sim:demo", &["slot 0:8:1", "no function 0", "0:8:0"]),
        ("run --kernel exit.elf --slot 3:0:7=sim:demo", &["slot 3:0:7", "no function 0", "3:0:0"]),
        ("run --kernel exit.elf --slot 0:0:0=sim:demo", &["slot 0:0:0", "host bridge"]),
        ("run --kernel exit.elf --slot 0:8:0=sim:nope", &["slot 0:8:0", "'nope'", "there are: demo"]),
        ("run --kernel exit.elf --slot 0:8:0=sim:", &["slot 0:8:0", "''", "there are: demo"]),
        (
            "run --kernel exit.elf --slot 0:8:0=ffff:ff:1f.7",
            &["slot 0:8:0", "ffff:ff:1f.7", "no PCI function"],
        ),
        (
            "run --kernel exit.elf --slot 0:8:0=/sys/bus/pci/devices/ffff:ff:1f.7",
            &["slot 0:8:0", "ffff:ff:1f.7"],
        ),
        ("run --kernel exit.elf --slot 0:8:0=/etc/passwd", &["slot 0:8:0", "/etc/passwd"]),
        ("run --kernel exit.elf --slot 0:8:0=no-device", &["slot 0:8:0", "no-device"]),
    ]);
}

#[test]
fn every_reason_against_a_slot_map_is_given() {
    needs_kvm!();
    let bad = ["0:0:0=sim:demo", "0:9:1=sim:demo", "0:10:0=sim:none", "0:11:0=ffff:ff:1f.7"];
    let run = among_files("run --kernel exit.elf").args(bad.iter().flat_map(|slot| ["--slot", slot]));
    let ended = run.end().expect_code(1).expect_stderr("host bridge").expect_stderr("slot 0:9:1");
    let ended = ended.expect_stderr("'none'").expect_stderr("ffff:ff:1f.7");
    assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("slotpass: ")).count(), 4, "{ended}");
    assert!(ended.stdout.is_empty(), "{ended}");
}

#[test]
fn more_bars_than_a_window_has_room_for() {
    needs_kvm!();
    // Each has 64 I/O ports, of which there are fewer than 65536.
    let slots = (0..65536 / 64).map(|n| format!("{}:{}:{}", n / 248, 1 + n % 248 / 8, n % 8));
    let ended = among_files("run --kernel exit.elf").simulated(slots).end();
    ended.expect_refusal(&["no place for BAR 1 (64 bytes)", "I/O window", "fewer or smaller functions"]);
}

#[test]
fn config_files_that_say_nothing_of_use() {
    // The file's text and parts of the message: file, line and column; the field; what is wrong.
    for (text, parts) in [
        ("", &["vm.json:1:0", "EOF"][..]),
        ("{\n  \"cpus\": 2,", &["vm.json:2:12", "EOF"]),
        ("{\n  \"cpus\": 2\n  \"memory\": \"1G\" }", &["vm.json:3:3", "expected `,`"]),
        ("{} {}", &["vm.json:1:4", "trailing characters"]),
        ("kernel = x", &["vm.json:1:1", "expected value"]),
        ("{\n\"memroy\": \"1G\" }", &["vm.json:2:8", "memroy", "unknown field", "`memory`"]),
        ("{\n\"cpus\": \"two\" }", &["vm.json:2:13", "field cpus", "\"two\""]),
        ("{ \"cpus\": -1 }", &["vm.json:1:12", "field cpus", "`-1`"]),
        ("{ \"kernel\": \"exit.elf\", \"cpus\": 0 }", &["cpus", "0 is not 1 to"]),
        ("{ \"memory\": 512 }", &["vm.json:1:", "field memory", "expected a string"]),
        ("{ \"memory\": \"17M\" }", &["field memory", "memory size 17M", "2 MiB"]),
        ("{ \"kernel\": null, \"kernel\": null }", &["vm.json:1:26", "duplicate field `kernel`"]),
        ("{ \"pci_devices\": {} }", &["field pci_devices", "expected a sequence"]),
        (
            "{ \"pci_devices\": [\n{ \"path\": \"sim:demo\", \"pci_slot\": \"0:8:8\" } ] }",
            &["vm.json:2:", "field pci_devices[0].pci_slot", "function 8"],
        ),
        (
            "{ \"pci_devices\": [ { \"path\": \"a\", \"pci_slot\": \"8\" },\n{ \"path\": \"sim:demo\" } ] }",
            &["vm.json:2:", "field pci_devices[1]", "missing field `pci_slot`"],
        ),
        (
            "{ \"pci_devices\": [ { \"path\": \"a\", \"pci_slot\": \"8\",\n\"model\": \"passthru\" } ] }",
            &["vm.json:2:7", "model", "unknown field"],
        ),
    ] {
        Slotpass::new()
            .file("vm.json", text)
            .args(["run", "--config", "vm.json"])
            .end()
            .expect_refusal(parts);
    }
}

#[test]
fn config_files_that_cannot_be_read() {
    expect_refusals(&[
        ("run --config not-there.json", &["not-there.json", "No such file"]),
        ("run --config folder", &["folder", "directory"]),
        ("run --config half.elf", &["half.elf", "UTF-8"]),
    ]);
    among_files("run --config vm.json").file("vm.json", "{}").end().expect_refusal(&["--kernel FILE"]);
}

#[test]
fn log_files_that_cannot_be_written() {
    expect_refusals(&[
        ("run --kernel exit.elf --log missing/log", &["missing/log", "No such file"]),
        ("run --kernel exit.elf --log folder", &["folder", "directory"]),
    ]);
}

/// Said before the guest runs: what it does may be done once only.
#[test]
fn stats_files_that_cannot_be_written() {
    needs_kvm!();
    expect_refusals(&[
        ("run --kernel exit.elf --stats=json:missing/stats.json", &["missing/stats.json", "No such file"]),
        ("run --kernel exit.elf --stats=json:folder", &["folder", "directory"]),
    ]);
}
