//! bhyve's descriptions of a VM: `check`, `export`, and `run --bhyve-config`.

use crate::support::{Ended, Slotpass, needs_kvm};

const CONFIG: &str = "\
# a VM of OmniOS
name=web
memory.wired=true
memory.size=96M
cpus=2
pci.0.0.0.device=hostbridge
pci.0.4.0.device=virtio-blk
pci.0.4.0.path=/dev/zvol/dsk/web
pci.0.9.0.device=passthru
pci.0.9.0.path=/dev/ppt1
pci.0.9.1.device=passthru
pci.0.9.1.bus=10
pci.0.9.1.slot=0
pci.0.9.1.func=1
pci.0.9.1.rom=/roms/%(name).rom
";

fn run<const N: usize>(arguments: [&str; N]) -> Slotpass {
    Slotpass::new().file("vm.cfg", CONFIG).args(arguments)
}

#[track_caller]
fn expect_output(ended: Ended, stdout: &str) -> Ended {
    assert_eq!(ended.stdout, stdout, "{ended}");
    ended
}

#[test]
fn check_shows_the_slot_map_of_each_form() {
    let file = run(["check", "--bhyve-config", "vm.cfg"]).end().expect_code(0);
    expect_output(file, "0:9:0=/dev/ppt1\n0:9:1=0000:0a:00.1,rom=/roms/web.rom\n")
        .expect_stderr("slotpass: warn: vm.cfg:7: \"virtio-blk\" of slot 0:4:0 is left out")
        .expect_stderr("slotpass: info: vm.cfg:6: \"hostbridge\" of slot 0:0:0 is left out");

    let line = "-S -A -s 8:0,passthru,/dev/ppt0 -s 8:1,passthru,1/0/0";
    let ended = run(["check", "--bhyve-args", line]).end().expect_code(0).expect_silent_stderr();
    expect_output(ended, "0:8:0=/dev/ppt0\n0:8:1=0000:01:00.0\n");

    let ended = run(["check", "--bhyve-args", "-S -k vm.cfg vm", "--slot", "0:4:0=sim:demo"]).end();
    let map = "0:4:0=sim:demo\n0:9:0=/dev/ppt1\n0:9:1=0000:0a:00.1,rom=/roms/vm.rom\n";
    expect_output(ended.expect_code(0), map);

    let line = "-S -s 8,passthru,/dev/ppt0 -o pci.0.8.0.rom=a,b";
    let ended =
        run(["check", "--bhyve-args", line]).end().expect_code(0).expect_stderr("--slot cannot say this");
    expect_output(ended, "0:8:0=/dev/ppt0,rom=a,b\n");

    let json = r#"{ "ports": [2], "pci_devices": [ { "path": "x", "pci_slot": "1:0:0", "port": true } ] }"#;
    let run = Slotpass::new().file("vm.json", json).args(["check", "--config", "vm.json"]);
    expect_output(run.end().expect_code(0).expect_silent_stderr(), "1:0:0=x,port\n");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (arguments, parts) in [
        (&["check"][..], &["required", "--slot"][..]),
        (&["check", "--bhyve-args", "-s 8,passthru"], &["-s 8,passthru: slot 0:8:0", "/dev/pptN"]),
        (&["check", "--bhyve-args", "-s 8,ahci -s 8,passthru,/dev/ppt0"], &["already occupied by \"ahci\""]),
        (&["check", "--bhyve-args", "-S -s 8:1,passthru,/dev/ppt0"], &["slot 0:8:1", "no function 0"]),
        (&["check", "--bhyve-config", "bad.cfg"], &["bad.cfg:2: slot 0:8:0 has no device"]),
        (&["check", "--bhyve-config", "not-there"], &["not-there: No such file"]),
        (&["check", "--bhyve-config", "/dev/zero"], &["/dev/zero: more than"]),
        (&["check", "--bhyve-config", "vm.cfg", "--bhyve-args", "-S"], &["cannot be used with"]),
        (
            &["check", "--slot", "0:8:0=/dev/ppt0", "--slot", "0:9:0=/dev/ppt0"],
            &["/dev/ppt0 is assigned to slot"],
        ),
        (&["check", "--config", "empty.json"], &["slot 0:8:0: \"\" is no name of a device"]),
        (&["export", "--slot", "0:8:0=/dev/ppt0"], &["--bhyve"]),
        (&["export", "--bhyve", "--slot", "0:8:0=sim:demo"], &["sim:demo is a simulated function"]),
        (&["export", "--bhyve", "--slot", "1:0:0=/dev/ppt0,port"], &["slot 1:0:0: behind a root port"]),
        (&["export", "--bhyve", "--slot", "0:8:0=1:01:00.0"], &["0001:01:00.0 is in PCI domain 0001"]),
        (&["export", "--bhyve", "--port", "3"], &["bus 3: an empty root port"]),
        (&["run", "--kernel", "k", "--bhyve-config", "bad.cfg"], &["bad.cfg:2: slot 0:8:0 has no device"]),
        (&["run", "--config", "vm.json", "--bhyve-config", "vm.cfg"], &["cannot be used with"]),
    ] {
        let run = Slotpass::new()
            .file("vm.cfg", CONFIG)
            .file("bad.cfg", "# no device\npci.0.8.0.path=/dev/ppt0\n")
            .file("empty.json", r#"{"pci_devices": [{"path": "", "pci_slot": "0:8:0"}]}"#);
        run.args(arguments).end().expect_refusal(parts);
    }
}

#[test]
fn every_reason_against_a_map_is_given() {
    let ended = run(["check", "--bhyve-args", "-s 0,passthru,/dev/ppt0 -s 9:1,passthru,/dev/ppt0"]).end();
    let ended = ended.expect_code(1).expect_stderr("slotpass: slot 0:0:0 is the host bridge's");
    expect_output(
        ended.expect_stderr("slotpass: slot 0:9:1").expect_stderr("slotpass: /dev/ppt0 is assigned"),
        "",
    );
    // Why function 0 is missing is said as well.
    let ended =
        run(["check", "--bhyve-args", "-S -s 4:0,ahci -s 4:1,passthru,/dev/ppt0"]).end().expect_code(1);
    ended
        .expect_stderr("slotpass: warn: -s 4:0,ahci: ")
        .expect_stderr("slotpass: slot 0:4:1: its device has no");
    let ended = run(["check", "--bhyve-config", "vm.cfg", "--slot", "0:9:0=sim:demo"]).end().expect_code(1);
    ended.expect_stderr("slotpass: slot 0:9:0 is given to 2 functions");
}

#[test]
fn what_is_exported_is_the_same_map_again() {
    let map = run(["check", "--bhyve-config", "vm.cfg"]).end().stdout;
    let variables = run(["export", "--bhyve", "--bhyve-config", "vm.cfg"]).end().expect_code(0);
    let variables =
        variables.expect_stdout("memory.wired=true\npci.0.9.0.device=passthru\npci.0.9.0.path=/dev/ppt1\n");
    assert!(variables.stdout.starts_with("cpus=2\nmemory.size=96M\n"), "{variables}");
    let again =
        Slotpass::new().file("again.cfg", &variables.stdout).args(["check", "--bhyve-config", "again.cfg"]);
    expect_output(again.end().expect_code(0).expect_silent_stderr(), &map);

    let options = run(["export", "--bhyve", "--args", "--bhyve-config", "vm.cfg"]).end().expect_code(0);
    let wanted = "-c 2 -m 96M -S -s 0:9:0,passthru,/dev/ppt1 -s 0:9:1,passthru,10/0/1,rom=/roms/web.rom\n";
    let options = expect_output(options, wanted).stdout;
    let again = run(["check", "--bhyve-args", options.trim_end()]).end().expect_code(0);
    expect_output(again.expect_silent_stderr(), &map);
}

#[test]
fn a_guest_with_the_memory_and_processors_of_the_file() {
    needs_kvm!();
    let config = "memory.size=96M\ncpus=2\npci.0.4.0.device=nvme\nmy.own=1\n";
    let with_file = |words: &str| {
        let run = Slotpass::exit(words).file("vm.cfg", config);
        run.args(["--bhyve-config", "vm.cfg", "--slot", "0:4:0=sim:demo"])
    };
    let ended = with_file("vcpus poweroff").end().expect_code(0).expect_stdout("ok vcpus 2");
    let ended = ended.expect_stderr("slotpass: warn: vm.cfg:3: \"nvme\" of slot 0:4:0 is left out");
    assert!(!ended.stderr.contains("my.own"), "{ended}");
    with_file("vcpus poweroff").args(["--cpus", "1"]).end().expect_stdout("ok vcpus 1");
    let (_, log) = with_file("vcpus poweroff").args(["--log", "log"]).end_and_read("log");
    assert!(log.contains("info: vm.cfg:4: \"my.own\" is left out"), "{log}");
}

#[test]
fn functions_of_other_hosts_are_refused_with_what_to_write() {
    needs_kvm!();
    for (device, parts) in [
        ("path=/dev/ppt0", &["slot 0:8:0: /dev/ppt0", "illumos", "address"][..]),
        ("pptdev=ppt0", &["slot 0:8:0: ppt0", "FreeBSD", "bus, slot and func"]),
    ] {
        let config = format!("memory.wired=true\npci.0.8.0.device=passthru\npci.0.8.0.{device}\n");
        let run = Slotpass::exit("poweroff").file("vm.cfg", config).args(["--bhyve-config", "vm.cfg"]);
        run.end().expect_refusal(parts);
    }
    let config =
        "memory.wired=1\npci.0.8.0.device=passthru\npci.0.8.0.bus=255\npci.0.8.0.slot=31\npci.0.8.0.func=7\n";
    let run = Slotpass::exit("poweroff").file("vm.cfg", config).args(["--bhyve-config", "vm.cfg"]);
    run.end().expect_refusal(&["slot 0:8:0", "0000:ff:1f.7"]);
}
