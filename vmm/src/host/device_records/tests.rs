use super::*;

const ADDRESS: &str = "0000:01:00.0";

fn functions() -> Vec<(Slot, HostAddress)> {
    [("0:8:0", ADDRESS), ("0:8:1", "0000:02:00.0")]
        .map(|(slot, address)| (slot.parse().unwrap(), address.parse().unwrap()))
        .to_vec()
}

fn recorded(folder: &Path) -> Option<Recorded> {
    of(folder, ADDRESS.parse().unwrap())
}

#[test]
fn a_function_is_one_vms_until_it_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = &folder.path().join("devices");
    assert!(all(path).unwrap().is_empty());
    let first = DeviceRecords::new(path, "first", false);
    first.claim(&functions()).unwrap();
    let record = Record { uuid: "first".into(), slot: "0:8:0".into(), pid: std::process::id() };
    assert_eq!(recorded(path), Some(Recorded::Used(record)));
    assert_eq!(all(path).unwrap().len(), 2);

    // The other one is not taken either.
    let second = DeviceRecords::new(path, "second", false);
    let wanted = [("0:9:0", "0000:03:00.0"), ("0:9:1", "0000:02:00.0")]
        .map(|(slot, address)| (slot.parse().unwrap(), address.parse().unwrap()));
    let error = second.claim(&wanted).unwrap_err().to_string();
    assert!(
        error.starts_with("slot 0:9:1: 0000:02:00.0 is in slot 0:8:1 of VM first, which runs"),
        "{error}"
    );
    assert_eq!(all(path).unwrap().len(), 2);

    first.let_go(ADDRESS);
    first.let_go("sim:demo");
    assert_eq!((recorded(path), all(path).unwrap().len()), (None, 1));
    first.let_go_all();
    second.claim(&wanted).unwrap();
    second.let_go_all();
    assert!(all(path).unwrap().is_empty());
}

#[test]
fn what_a_killed_process_left_is_dirty_until_it_was_reset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let left = Record { uuid: "killed".into(), slot: "0:8:0".into(), pid: 7 };
    let kill = || fs::write(path.join(ADDRESS), serde_json::to_string(&left).unwrap()).unwrap();
    kill();
    assert_eq!(recorded(path), Some(Recorded::Left(Some(left.clone()))));

    // Not reset: still dirty, and of the same VM.
    let next = DeviceRecords::new(path, "next", false);
    next.claim(&functions()).unwrap();
    assert_eq!((next.dirty(ADDRESS).as_deref(), next.dirty("0000:02:00.0")), (Some("killed"), None));
    next.let_go_all();
    assert_eq!(recorded(path), Some(Recorded::Left(Some(left.clone()))));
    assert_eq!(all(path).unwrap().len(), 1);

    next.claim(&functions()).unwrap();
    next.forget_last_user(ADDRESS);
    assert_eq!(next.dirty(ADDRESS), None);
    next.let_go_all();
    assert_eq!(recorded(path), None);

    kill();
    let accepting = DeviceRecords::new(path, "next", true);
    accepting.claim(&functions()).unwrap();
    assert_eq!(accepting.dirty(ADDRESS), None);
}

#[test]
fn a_function_whose_last_reset_failed_is_dirty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let vm = DeviceRecords::new(path, "vm", false);
    vm.claim(&functions()).unwrap();
    vm.forget_last_user(ADDRESS);
    vm.was_not_reset(ADDRESS);
    vm.was_not_reset("0000:0f:00.0");
    vm.let_go_all();
    let record = Record { uuid: "vm".into(), slot: "0:8:0".into(), pid: std::process::id() };
    assert_eq!(recorded(path), Some(Recorded::Left(Some(record))));
    assert_eq!(all(path).unwrap().len(), 1);
    vm.claim(&functions()).unwrap();
    assert_eq!(vm.dirty(ADDRESS).as_deref(), Some("vm"));
    vm.forget_last_user(ADDRESS);
    vm.let_go_all();
    assert!(all(path).unwrap().is_empty());
}

#[test]
fn functions_are_taken_in_the_order_of_their_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let first = DeviceRecords::new(folder.path(), "first", false);
    first.claim(&functions()).unwrap();
    let mut wanted = functions();
    wanted.reverse();
    let error = DeviceRecords::new(folder.path(), "second", false).claim(&wanted).unwrap_err().to_string();
    assert!(error.contains(ADDRESS), "{error}");
}

#[test]
fn a_file_that_was_never_written_is_no_record() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(ADDRESS), "").unwrap();
    assert_eq!(recorded(folder.path()), None);
    assert!(all(folder.path()).unwrap().is_empty());
    let next = DeviceRecords::new(folder.path(), "next", false);
    next.claim(&functions()).unwrap();
    assert_eq!(next.dirty(ADDRESS), None);
}

#[test]
fn a_file_that_is_not_understood_counts_as_dirty() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("other"), "").unwrap();
    for text in
        [&b"{\"uuid\":"[..], b"\n", b"\xff\xfe\n", b"{\"uuid\":\"\xff\",\"slot\":\"0:8:0\",\"pid\":7}\n"]
    {
        fs::write(folder.path().join(ADDRESS), text).unwrap();
        assert_eq!(recorded(folder.path()), Some(Recorded::Left(None)), "{text:?}");
        assert_eq!(all(folder.path()).unwrap().len(), 1);
        let next = DeviceRecords::new(folder.path(), "next", false);
        next.claim(&functions()).unwrap();
        assert_eq!(next.dirty(ADDRESS).as_deref(), Some("unknown"), "{text:?}");
        next.let_go_all();
    }
}
