use passthru::pci::HostAddress;
use serde_json::json;

use super::*;

/// A host with one function at an address that also has a path.
struct Host;

const HERE: &str = "0000:01:00.0";

impl Functions for Host {
    fn find(&self, path: &str) -> Option<HostAddress> {
        let path = path.strip_prefix("/devices").unwrap_or(path);
        ["01:00.0", HERE, "/pci@0,0/display@1"].contains(&path).then(|| HERE.parse().unwrap())
    }
}

const STOPPED: VmState = VmState::Stopped { crashed: false };
const RUNNING: VmState = VmState::Running { pid: 7 };

fn fields(value: Value) -> Fields {
    value.as_object().unwrap().clone()
}

fn texts(errors: Vec<FieldError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn created(value: Value) -> Result<VmDescription, Vec<String>> {
    create(fields(value), &Host).map_err(texts)
}

/// With two functions.
fn vm() -> VmDescription {
    created(json!({
        "kernel": "/boot/vmlinuz", "alias": "web", "cmdline": "quiet", "cpus": 2,
        "pci_devices": [ { "path": HERE, "pci_slot": "0:8:0" }, { "path": "sim:demo", "pci_slot": "8:1" } ],
    }))
    .unwrap()
}

/// The devices after a change.
fn devices(vm: &VmDescription) -> Vec<String> {
    let port = |device: &PciDevice| if device.port { ",port" } else { "" };
    let rom = |device: &PciDevice| device.rom.as_ref().map(|rom| format!(",rom={}", rom.display()));
    let page = |device: &PciDevice| device.msix_page.map(|how| format!(",msix-page={how}"));
    let device = |device: &PciDevice| {
        let options = [Some(port(device).to_owned()), rom(device), page(device)];
        format!("{}={}{}", device.pci_slot, device.path, options.into_iter().flatten().collect::<String>())
    };
    vm.devices().iter().map(device).collect()
}

#[test]
fn a_vm_is_kept_as_it_was_given() {
    let uuid = "4a5b3f0e-0000-4000-8000-000000000001";
    let vm = created(json!({
        "uuid": uuid, "alias": "db-1", "kernel": "/k", "memory": "1G", "initrd": null,
        "add_pci_devices": [ { "path": "/devices/pci@0,0/display@1", "pci_slot": "8", "model": "passthru", "rom": "/r" } ],
    }))
    .unwrap();
    let kept = json!({
        "uuid": uuid, "alias": "db-1", "kernel": "/k", "memory": "1G",
        "pci_devices": [ { "path": "/devices/pci@0,0/display@1", "pci_slot": "8", "rom": "/r" } ],
    });
    assert_eq!(vm.to_json(), kept);
    assert_eq!(VmDescription::parse(&kept.to_string()).unwrap().to_json(), kept);
    assert_eq!(vm.name(), format!("{uuid} (db-1)"));
    // Two have two names, and a file is the same one from everywhere.
    let other = created(json!({ "kernel": "k" })).unwrap();
    assert_ne!(other.uuid, created(json!({ "kernel": "k" })).unwrap().uuid);
    assert!(other.file.kernel.unwrap().is_absolute());
}

#[test]
fn no_devices_are_no_field() {
    let vm = created(json!({ "kernel": "/k", "pci_devices": [] })).unwrap();
    assert!(!vm.fields.contains_key("pci_devices"));
    // As somebody may have written it.
    let text = json!({ "uuid": vm.uuid.to_string(), "kernel": "k", "pci_devices": [] }).to_string();
    let old = VmDescription::parse(&text).unwrap();
    let new = update(&old, fields(json!({ "alias": "web" })), RUNNING, &Host).map_err(texts).unwrap();
    assert_eq!(new.alias.as_deref(), Some("web"));
    assert_eq!(new.fields["kernel"], json!("k"), "only what is given is made absolute");
}

#[test]
fn what_there_is_is_named_where_something_is_not_known() {
    let errors = created(json!({ "kernel": "/k", "color": 1 })).unwrap_err().join("\n");
    assert!(errors.starts_with("Unknown property: color; there are: uuid, alias, kernel,"), "{errors}");
    assert!(!errors.contains("control"), "{errors}");
}

#[test]
fn what_is_no_vm_is_refused_in_vmadms_words() {
    let slot =
        |slot: &str| json!({ "kernel": "/k", "pci_devices": [ { "path": "sim:demo", "pci_slot": slot } ] });
    let two = |one: [&str; 2], other: [&str; 2]| {
        let device = |[path, slot]: [&str; 2]| json!({ "path": path, "pci_slot": slot });
        json!({ "kernel": "/k", "pci_devices": [device(one), device(other)] })
    };
    for (value, expected) in [
        (
            json!({ "kernel": "/k", "pci_devices": [], "add_pci_devices": [] }),
            "Cannot specify both \"pci_devices\" and \"add_pci_devices\"",
        ),
        (json!({}), "Missing required properties: kernel"),
        (
            json!({ "kernel": "/k", "pci_devices": [ { "pci_slot": "8" } ] }),
            "Missing required properties: pci_devices.0.path",
        ),
        (
            json!({ "kernel": "/k", "add_pci_devices": [ { "path": "sim:demo", "pci_slot": "8" }, { "path": "x" } ] }),
            "Missing required properties: add_pci_devices.1.pci_slot",
        ),
        (
            json!({ "kernel": "/k", "pci_devices": [ { "path": "", "pci_slot": "8" } ] }),
            "Missing required properties: pci_devices.0.path",
        ),
        (
            slot("0:32:0"),
            "Invalid value(s) for: pci_devices.0.pci_slot: slot '0:32:0': device 32 is out of range",
        ),
        (slot("0x8"), "Invalid value(s) for: pci_devices.0.pci_slot: "),
        (slot("256:0:0"), "Invalid value(s) for: pci_devices.0.pci_slot: "),
        (slot("1:2:3:4"), "Invalid value(s) for: pci_devices.0.pci_slot: "),
        (
            json!({ "kernel": "/k", "pci_devices": [ { "path": "sim:demo", "pci_slot": 8 } ] }),
            "Invalid value(s) for: pci_devices.0.pci_slot: invalid type: integer `8`",
        ),
        (slot("0:0:0"), "Invalid value(s) for: pci_devices.0.pci_slot: slot 0:0:0 is the host bridge's"),
        (
            slot("0:9:1"),
            "Invalid value(s) for: pci_devices.0.pci_slot: slot 0:9:1: its device has no function 0",
        ),
        (
            two(["sim:demo", "0:8:0"], ["sim:demo", "8"]),
            "Invalid value(s) for: pci_devices.1.pci_slot: slot 0:8:0 is given to 2 functions",
        ),
        (
            two([HERE, "8"], ["/pci@0,0/display@1", "9"]),
            "Invalid value(s) for: pci_devices.1.path: 0000:01:00.0 is assigned to slot 0:8:0 and to slot 0:9:0",
        ),
        (
            two(["/pci@7,0/display@1", "8"], ["/devices/pci@7,0/display@1", "9"]),
            "Invalid value(s) for: pci_devices.1.path: /pci@7,0/display@1 is assigned to slot 0:8:0 and",
        ),
        (
            json!({ "kernel": "/k", "pci_devices": [ { "path": "x", "pci_slot": "0:8:0", "port": true } ] }),
            "Invalid value(s) for: pci_devices.0.pci_slot: bus 0 cannot be behind a root port",
        ),
        (
            json!({ "kernel": "/k", "ports": [99] }),
            "Invalid value(s) for: ports: bus 99 cannot be behind a root port",
        ),
        (
            json!({ "kernel": "/k", "pci_devices": [ { "path": "x", "pci_slot": "8", "model": "virtio" } ] }),
            "Invalid value(s) for: pci_devices.0.model: only \"passthru\"",
        ),
        (
            json!({ "kernel": "/k", "pci_devices": "x" }),
            "Invalid value(s) for: pci_devices: invalid type: string",
        ),
        (
            json!({ "kernel": "/k", "pci_devices": [ { "path": "x", "pci_slot": "8", "slot": "8" } ] }),
            "Unknown property: pci_devices.0.slot; there are: path, pci_slot, port, rom, msix_page",
        ),
        (
            json!({ "kernel": "/k", "ram": 1 }),
            "Unknown property: ram; there are: uuid, alias, kernel, initrd, ",
        ),
        (json!({ "kernel": "/k", "remove_pci_devices": [] }), "Unknown property: remove_pci_devices; "),
        (json!({ "kernel": "/k", "memory": "1" }), "Invalid value(s) for: memory: memory size 1"),
        (json!({ "kernel": "/k", "cpus": 0 }), "Invalid value(s) for: cpus: cpus: 0 is not 1 to 254"),
        (json!({ "kernel": "/k", "cpus": "2" }), "Invalid value(s) for: cpus: invalid type"),
        (json!({ "kernel": "/k", "control": "/c" }), "Invalid value(s) for: control: "),
        (json!({ "kernel": "/k", "iommufd": "fd:3" }), "Invalid value(s) for: iommufd: an open file"),
        (
            json!({ "kernel": "/k", "pci_devices": [ { "path": "fd:3", "pci_slot": "8" } ] }),
            "Invalid value(s) for: pci_devices.0.path: an open file",
        ),
        (json!({ "kernel": "/k", "uuid": "7" }), "Invalid value(s) for: uuid: "),
        (json!({ "kernel": "/k", "alias": "a/b" }), "Invalid value(s) for: alias: an alias has"),
        (json!({ "kernel": "/k", "alias": "" }), "Invalid value(s) for: alias: an alias has"),
        (
            json!({ "kernel": "/k", "alias": "4a5b3f0e-0000-4000-8000-000000000001" }),
            "Invalid value(s) for: alias: an alias has",
        ),
    ] {
        let errors = created(value.clone()).unwrap_err();
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{value}: {errors:?}");
    }
    let all = created(two(["sim:demo", "0:0:0"], ["sim:demo", "0:9:1"])).unwrap_err();
    assert_eq!(all.len(), 2, "every reason: {all:?}");
}

#[test]
fn devices_come_change_and_go() {
    let first = "0:8:0=0000:01:00.0";
    for (change, expected) in [
        (
            json!({ "add_pci_devices": [ { "path": "sim:demo", "pci_slot": "9" } ] }),
            &[first, "0:8:1=sim:demo", "0:9:0=sim:demo"][..],
        ),
        // vmadm adds them as well.
        (
            json!({ "pci_devices": [ { "path": "sim:demo", "pci_slot": "9" } ] }),
            &[first, "0:8:1=sim:demo", "0:9:0=sim:demo"],
        ),
        (json!({ "remove_pci_devices": ["sim:demo"] }), &[first]),
        (json!({ "remove_pci_devices": ["/devices/pci@0,0/display@1", "sim:demo"] }), &[]),
        (
            json!({ "update_pci_devices": [ { "path": "01:00.0", "pci_slot": "0:8:2" }, { "path": "sim:demo", "pci_slot": "8" } ] }),
            &["0:8:2=0000:01:00.0", "0:8:0=sim:demo"],
        ),
        (
            json!({ "update_pci_devices": [ { "path": HERE, "pci_slot": "1:0:0", "port": true },
                                         { "path": "sim:demo", "pci_slot": "9", "rom": "/r" } ] }),
            &["1:0:0=0000:01:00.0,port", "0:9:0=sim:demo,rom=/r"],
        ),
        (
            json!({ "update_pci_devices": [ { "path": HERE, "msix_page": "trap" },
                                         { "path": "sim:demo", "msix_page": null } ] }),
            &["0:8:0=0000:01:00.0,msix-page=trap", "0:8:1=sim:demo"],
        ),
        // In one change: out, elsewhere, in.
        (
            json!({ "remove_pci_devices": [HERE], "update_pci_devices": [ { "path": "sim:demo", "pci_slot": "8" } ],
                 "add_pci_devices": [ { "path": "01:00.0", "pci_slot": "8:1" } ] }),
            &["0:8:0=sim:demo", "0:8:1=01:00.0"],
        ),
    ] {
        let new = update(&vm(), fields(change.clone()), STOPPED, &Host).map_err(texts);
        let expected = expected.iter().map(|device| device.to_string()).collect::<Vec<_>>();
        assert_eq!(new.map(|vm| devices(&vm)), Ok(expected), "{change}");
    }
    let with_rom = json!({ "update_pci_devices": [ { "path": HERE, "rom": "/r" } ] });
    let with_rom = update(&vm(), fields(with_rom), STOPPED, &Host).unwrap();
    let without = json!({ "update_pci_devices": [ { "path": HERE, "rom": null } ] });
    assert_eq!(
        update(&with_rom, fields(without), STOPPED, &Host).unwrap().to_json(),
        vm_json(&with_rom, None)
    );
}

/// A VM's JSON with another ROM of its first device.
fn vm_json(vm: &VmDescription, rom: Option<&str>) -> Value {
    let mut json = vm.to_json();
    let device = json["pci_devices"][0].as_object_mut().unwrap();
    match rom {
        Some(rom) => device.insert("rom".into(), rom.into()),
        None => device.remove("rom"),
    };
    json
}

#[test]
fn other_fields_are_replaced_or_removed() {
    let change = json!({ "cpus": 4, "cmdline": null, "memory": "1G", "alias": null, "initrd": null });
    let new = update(&vm(), fields(change), STOPPED, &Host).unwrap();
    assert_eq!((new.alias.as_deref(), new.file.cpus, new.file.cmdline.as_deref()), (None, Some(4), None));
    assert_eq!(new.file.kernel, vm().file.kernel);
    assert_eq!(new.devices().len(), 2);
}

#[test]
fn changes_that_cannot_be_are_refused() {
    for (change, expected) in [
        (
            json!({ "remove_pci_devices": ["0000:02:00.0"] }),
            "Invalid value(s) for: remove_pci_devices.0: 0000:02:00.0 is in no slot of this VM; in its slots is 0000:01:00.0, sim:demo",
        ),
        (json!({ "remove_pci_devices": "x" }), "Invalid value(s) for: remove_pci_devices: "),
        (
            json!({ "remove_pci_devices": [ { "path": "x" } ] }),
            "Invalid value(s) for: remove_pci_devices.0: ",
        ),
        (
            json!({ "update_pci_devices": [ { "pci_slot": "8" } ] }),
            "Missing required properties: update_pci_devices.0.path",
        ),
        (
            json!({ "update_pci_devices": [ { "path": "x", "pci_slot": "8" } ] }),
            "Invalid value(s) for: update_pci_devices.0.path: x is in no",
        ),
        (
            json!({ "update_pci_devices": [ { "path": HERE, "pci_slot": "x" } ] }),
            "Invalid value(s) for: update_pci_devices.0.pci_slot: ",
        ),
        (
            json!({ "update_pci_devices": [ { "path": HERE, "pci_slot": null } ] }),
            "Missing required properties: update_pci_devices.0.pci_slot",
        ),
        (
            json!({ "update_pci_devices": [ { "path": HERE, "slot": "9" } ] }),
            "Unknown property: update_pci_devices.0.slot",
        ),
        // Function 0 goes and function 1 stays.
        (
            json!({ "remove_pci_devices": [HERE] }),
            "Invalid value(s) for: pci_devices.0.pci_slot: slot 0:8:1: its device has no function 0",
        ),
        (
            json!({ "add_pci_devices": [ { "path": "/pci@0,0/display@1", "pci_slot": "9" } ] }),
            "Invalid value(s) for: pci_devices.2.path: 0000:01:00.0 is assigned",
        ),
        (json!({ "add_pci_devices": [], "pci_devices": [] }), "Cannot specify both"),
        (json!({ "kernel": null }), "Missing required properties: kernel"),
        (json!({ "ram": 1 }), "Unknown property: ram"),
        (json!({ "ram": null }), "Unknown property: ram"),
        (
            json!({ "uuid": "4a5b3f0e-0000-4000-8000-000000000001" }),
            "Invalid value(s) for: uuid: a VM keeps its uuid",
        ),
        (json!({ "alias": 7 }), "Invalid value(s) for: alias: invalid type"),
    ] {
        let errors = update(&vm(), fields(change.clone()), STOPPED, &Host).map_err(texts).unwrap_err();
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{change}: {errors:?}");
    }
    let twice = json!({ "kernel": "/k", "pci_devices": [ { "path": "sim:demo", "pci_slot": "8" }, { "path": "sim:demo", "pci_slot": "9" } ] });
    let removed = update(
        &created(twice).unwrap(),
        fields(json!({ "remove_pci_devices": ["sim:demo"] })),
        STOPPED,
        &Host,
    );
    assert!(texts(removed.unwrap_err())[0].contains("is in 2 slots of this VM"));
}

#[test]
fn a_running_vm_changes_only_its_alias() {
    for (change, refused) in [
        (json!({ "alias": "db" }), None),
        (json!({ "alias": null }), None),
        // Nothing changes.
        (json!({ "cpus": 2, "add_pci_devices": [] }), None),
        (json!({ "cpus": 3 }), Some("cpus")),
        (json!({ "initrd": "/i" }), Some("initrd")),
        (json!({ "cmdline": null }), Some("cmdline")),
        (json!({ "remove_pci_devices": ["sim:demo"] }), Some("pci_devices")),
        (json!({ "add_pci_devices": [ { "path": "sim:demo", "pci_slot": "9" } ] }), Some("pci_devices")),
    ] {
        let result = update(&vm(), fields(change.clone()), RUNNING, &Host).map(drop).map_err(texts);
        let expected = refused.map_or(Ok(()), |field| {
            let state = "are only allowed when state is \"stopped\", currently: running (process 7)";
            Err(vec![format!("updates to {field} {state}")])
        });
        assert_eq!(result, expected, "{change}");
    }
}

#[test]
fn arguments_are_changes_too() {
    let pairs = [
        ("alias", "7"),
        ("cpus", "2"),
        ("initrd", ""),
        ("ports", "[1]"),
        ("hugepages", "true"),
        ("memory", "1G"),
        ("cpu_affinity", r#"["0=1"]"#),
        ("halt_poll", "0"),
        ("disable_exits", "hlt"),
    ];
    let expected = json!({
        "alias": "7", "cpus": 2, "initrd": null, "ports": [1], "hugepages": true, "memory": "1G",
        "cpu_affinity": ["0=1"], "halt_poll": 0, "disable_exits": "hlt",
    });
    assert_eq!(Value::Object(from_arguments(pairs).unwrap()), expected);
    let error = from_arguments([("cpus", "two")]).unwrap_err().to_string();
    assert!(error.starts_with("Invalid value(s) for: cpus: not JSON: "), "{error}");
}
