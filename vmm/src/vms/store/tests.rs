use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let folders = Folders { state: folder.path().join("a/state"), run: folder.path().join("run") };
    (folder, Store::new(folders))
}

fn fields(value: Value) -> Fields {
    value.as_object().unwrap().clone()
}

fn create(store: &Store, value: Value) -> Result<VmDescription, String> {
    store.create(fields(value)).map(|(vm, _)| vm).map_err(|error| error.to_string())
}

#[test]
fn vms_are_found_by_either_name_until_they_are_deleted() {
    let (_folder, store) = store();
    assert!(store.list().unwrap().is_empty());
    let vm = create(&store, json!({ "kernel": "/k", "alias": "web" })).unwrap();
    let place = store.folders().of_vm(vm.uuid);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&store.folders().state), mode(&place.state)), (0o700, 0o700));
    for name in [vm.uuid.to_string(), vm.uuid.simple().to_string().to_uppercase(), "web".to_owned()] {
        assert_eq!(store.find(&name).unwrap().uuid, vm.uuid, "{name}");
    }
    store.update("web", fields(json!({ "alias": "db", "cpus": 2 }))).unwrap();
    assert_eq!(store.find("db").unwrap().file.cpus, Some(2));
    let error = store.find("web").unwrap_err().to_string();
    assert!(error.contains("\"web\"") && error.contains(&format!("{} (db)", vm.uuid)), "{error}");

    let lock = store.lock(vm.uuid).unwrap();
    lock.say_running().unwrap();
    let error = store.delete(vm.uuid).unwrap_err().to_string();
    assert!(error.contains("it is running already") && error.contains("slotpass stop"), "{error}");
    lock.say_ended().unwrap();
    drop(lock);
    store.delete(vm.uuid).unwrap();
    assert!(!place.state.exists() && !place.run.exists());
    assert_eq!(fs::read_dir(&store.folders().state).unwrap().count(), 0);
}

#[test]
fn names_are_given_once() {
    let (_folder, store) = store();
    let vm = create(&store, json!({ "kernel": "/k", "alias": "web" })).unwrap();
    let other = create(&store, json!({ "kernel": "/k" })).unwrap();
    let taken = format!("Invalid value(s) for: alias: VM {} has this alias", vm.uuid);
    let error = create(&store, json!({ "kernel": "/k", "alias": "web" })).unwrap_err();
    assert!(error.starts_with(&taken), "{error}");
    let error = store.update(&other.uuid.to_string(), fields(json!({ "alias": "web" }))).unwrap_err();
    assert!(error.to_string().starts_with(&taken), "{error}");
    let error = create(&store, json!({ "kernel": "/k", "uuid": vm.uuid.to_string() })).unwrap_err();
    assert!(error.starts_with("Invalid value(s) for: uuid: there is a VM"), "{error}");
    // Its own alias is no other's.
    store.update("web", fields(json!({ "alias": "web", "cpus": 3 }))).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn an_alias_that_two_have_names_neither() {
    let (_folder, store) = store();
    let [one, two] = [(); 2].map(|()| create(&store, json!({ "kernel": "/k" })).unwrap().uuid);
    for uuid in [one, two] {
        let vm = json!({ "uuid": uuid.to_string(), "alias": "web", "kernel": "/k" });
        fs::write(store.folders().of_vm(uuid).description(), vm.to_string()).unwrap();
    }
    let error = store.uuid_of("web").unwrap_err().to_string();
    assert!([one, two].iter().all(|uuid| error.contains(&uuid.to_string())), "{error}");
    fs::write(store.folders().of_vm(two).description(), "{").unwrap();
    assert_eq!(store.uuid_of("web").unwrap(), one);
    let error = store.uuid_of("db").unwrap_err().to_string();
    assert!(error.ends_with(&format!("these cannot be read: {two}")), "{error}");
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let (_folder, store) = store();
    let long = "x".repeat(1 << 20);
    let error = create(&store, json!({ "kernel": "/k", "cmdline": long })).unwrap_err();
    assert!(error.contains("it can have 1048576"), "{error}");
    assert_eq!(fs::read_dir(&store.folders().state).unwrap().count(), 0);
    let vm = create(&store, json!({ "kernel": "/k" })).unwrap();
    let uuid = vm.uuid.to_string();
    assert!(store.update(&uuid, fields(json!({ "cmdline": long }))).is_err());
    assert_eq!(store.find(&uuid).unwrap().file.cmdline, None);
}

#[test]
fn what_cannot_be_read_hides_no_other_vm() {
    let (_folder, store) = store();
    let vm = create(&store, json!({ "kernel": "/k", "alias": "web" })).unwrap();
    let state = store.folders().state.clone();
    let torn = Uuid::new_v4();
    let place = |uuid: Uuid| state.join(uuid.to_string());
    let [empty, other, pipe] = [(); 3].map(|()| Uuid::new_v4());
    for uuid in [torn, empty, other, pipe] {
        fs::create_dir(place(uuid)).unwrap();
    }
    fs::write(place(torn).join("vm.json"), "{\"kernel\": \"/k").unwrap();
    fs::copy(place(vm.uuid).join("vm.json"), place(other).join("vm.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", place(pipe).join("vm.json")).unwrap();
    fs::write(state.join("notes.txt"), "").unwrap();
    fs::create_dir(state.join(".slotpass-half")).unwrap();
    fs::create_dir(state.join(vm.uuid.simple().to_string())).unwrap();

    let list = store.list().unwrap();
    let errors: Vec<String> =
        list.iter().filter_map(|vm| vm.as_ref().err()).map(ToString::to_string).collect();
    assert_eq!((list.len(), errors.len()), (7, 6), "{errors:?}");
    for part in [
        format!("{torn}/vm.json: Invalid value(s) for: the description: EOF"),
        format!("{empty}/vm.json: No such file"),
        format!("{other}/vm.json: this describes VM {}", vm.uuid),
        format!("{pipe}/vm.json: Invalid argument"),
        "notes.txt: this is no VM's folder".to_owned(),
    ] {
        assert_eq!(errors.iter().filter(|error| error.contains(&part)).count(), 1, "{part}: {errors:?}");
    }
    assert!(store.find("web").is_ok());
    // They can be changed and removed all the same, and what was left by a crash goes.
    create(&store, json!({ "kernel": "/k" })).unwrap();
    assert!(!state.join(".slotpass-half").exists());
    store.delete(torn).unwrap();
    assert!(!place(torn).exists());
}

#[test]
fn functions_that_are_not_here_or_another_vms_are_worth_a_warning() {
    let (_folder, store) = store();
    let devices =
        json!([ { "path": "00fe:01:00.0", "pci_slot": "8" }, { "path": "sim:demo", "pci_slot": "9" } ]);
    let first = create(&store, json!({ "kernel": "/k", "pci_devices": devices })).unwrap();
    let (_, warnings) = store.create(fields(json!({ "kernel": "/k", "pci_devices": devices }))).unwrap();
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].starts_with("00fe:01:00.0 is no function of this host now"), "{texts:?}");
    assert!(texts[1].contains(&format!("00fe:01:00.0 is also in a slot of VM {}", first.uuid)), "{texts:?}");
}
