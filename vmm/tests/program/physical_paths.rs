//! Functions of this host by their physical paths.

use std::fs;

use passthru::pci::HostAddress;
use vmm::host::physical_path;

use crate::support::{Slotpass, needs_kvm};

fn slotpass(arguments: &[&str]) -> Slotpass {
    Slotpass::new().args(arguments)
}

#[test]
fn every_function_of_this_host_is_shown_by_its_path() {
    let entries = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    if names.is_empty() {
        println!("SKIPPED: this host has no PCI functions");
    }
    for name in names {
        let address: HostAddress = name.parse().unwrap();
        let path = physical_path::of(address).unwrap();
        assert_eq!(physical_path::resolve(&path).unwrap(), name);
        for path in [path.clone(), format!("/devices{path}")] {
            let ended = slotpass(&["show", &path]).end();
            // What cannot be a guest's (a bridge) is called by its address too.
            assert!(
                format!("{}{}", ended.stdout, ended.stderr).contains(&format!("{name}: ")),
                "{path}\n{ended}"
            );
            assert!(!ended.stderr.contains(&path), "{ended}");
        }
    }
}

#[test]
fn a_path_at_which_there_is_nothing() {
    let path = "/devices/pci@fe,0/pci8086,151@1/display@0";
    let told = format!("{path}: there is no pci@fe,0 in this host; there is ");
    slotpass(&["show", path]).end().expect_code(1).expect_stderr(&told);
    slotpass(&["show", "/pci@0,0/display"])
        .end()
        .expect_code(1)
        .expect_stderr("'display' is not NAME@DEVICE");
}

#[test]
fn a_path_is_taken_wherever_a_device_is_named() {
    needs_kvm!();
    let path = "/devices/pci@fe,0/pci8086,151@1/pci1462,2291@0,1";
    let told = format!("slot 2:0:0: {path}: there is no pci@fe,0 in this host");
    let vm = format!(
        r#"{{ "kernel": "exit.elf", "pci_devices": [ {{ "path": "{path}", "pci_slot": "2:0:0", "port": true }} ] }}"#
    );
    let run = Slotpass::new().file("exit.elf", guest::EXIT).file("vm.json", vm);
    run.args(["run", "--config", "vm.json"]).end().expect_refusal(&[&told]);

    let slot = format!("2:0:0={path},port");
    Slotpass::exit("poweroff").args(["--slot", &slot]).end().expect_refusal(&[&told]);

    let mut run = Slotpass::exit("halt").args(["--control", "control", "--port", "2"]).start();
    run.wait_for("exit: halt");
    let add = format!("2:0:0={path}");
    let ended = slotpass(&["ctl", "--control"]).args([run.path("control")]).args(["add", &add]).end();
    ended.expect_code(1).expect_stderr(&told);
    run.signal(libc::SIGTERM);
    run.end().expect_code(0);
}

#[test]
fn one_function_in_two_slots() {
    let slots = ["0:8:0=/pci@0,0/pci8086,151@1/display@0", "0:9:0=/devices/pci@0,0/pci8086,151@1/display@0"];
    let ended = slotpass(&["check", "--slot", slots[0], "--slot", slots[1]]).end();
    ended.expect_stderr("/pci@0,0/pci8086,151@1/display@0 is assigned to slot 0:8:0 and to slot 0:9:0");
    let ended = slotpass(&["check", "--slot", slots[0], "--slot", "1:0:0=/pci@0,0/isa@1f,3,port"]).end();
    let ended = ended.expect_code(0).expect_stdout(&format!("{}\n", slots[0]));
    ended.expect_stdout("1:0:0=/pci@0,0/isa@1f,3,port");
}
