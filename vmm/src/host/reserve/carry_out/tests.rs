use std::os::unix::fs::symlink;

use crate::host::reserve::plan::{self, Reserve};
use crate::host::reserve::test_host::TestHost;

use super::*;

/// Two functions: one is with vfio-pci already, the other's driver does not let go of it.
fn two() -> (TestHost, Vec<Change>) {
    let test = TestHost::new();
    test.function("0000:00:04.0", "1b36:0010", 0x01_0802, Some(1), Some(sysfs::DRIVER));
    test.function("0000:00:05.0", "1b36:0010", 0x01_0802, Some(2), Some("nvme"));
    test.write("etc/ppt_aliases", "# mine\n");
    let names = vec!["0000:00:04.0".to_owned(), "0000:00:05.0".to_owned()];
    let request = Reserve { names, ..Reserve::default() };
    let plan = plan::reserve(&test.host, &request, &mut |_| false).unwrap();
    (test, plan.changes)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn what_was_done_before_a_failure_is_undone() {
    let (test, changes) = two();
    let mut lines = Vec::new();
    let Failed { error, left } =
        all_or_nothing(&test.host, &changes, &mut |line| lines.push(line)).unwrap_err();
    assert!(error.to_string().starts_with("0000:00:05.0: cannot write "), "{error}");
    assert!(left.is_empty(), "{left:?}");
    assert!(lines.last().unwrap().starts_with("0000:00:04.0: reserved"), "{lines:?}");
    assert_eq!(text(&test.host.at_boot), "# mine\n");
    for address in ["0000:00:04.0", "0000:00:05.0"] {
        // What clears it; a plain file keeps what is behind that.
        let with = text(&test.host.functions().join(address).join("driver_override"));
        assert!(with.starts_with('\n'), "{with:?}");
    }
}

#[test]
fn a_function_between_two_drivers_keeps_its_alias() {
    let (test, changes) = two();
    // Somebody takes the first one away meanwhile, and does not let go of it.
    let driver = test.host.functions().join("0000:00:04.0/driver");
    let mut report = |line: String| {
        if line.starts_with("0000:00:04.0: reserved") {
            fs::remove_file(&driver).unwrap();
            symlink(test.at("sys/bus/pci/drivers/nvme"), &driver).unwrap();
        }
    };
    let Failed { left, .. } = all_or_nothing(&test.host, &changes, &mut report).unwrap_err();
    let said: Vec<String> = left.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    for word in ["0000:00:04.0: cannot write ", "slotpass apply", "slotpass release 0000:00:04.0"] {
        assert!(said[0].contains(word), "{said:?}");
    }
    assert!(text(&test.host.at_boot).contains("pci1af4,1100@4"), "{}", text(&test.host.at_boot));
}

#[test]
fn a_file_gets_its_former_bytes_unless_somebody_changed_it() {
    const BEFORE: &str = "ppt \"pci9,9\" \"pci8,8\" # both\n# end\n";
    for (changed, expected) in
        [(None, BEFORE), (Some("# other\n"), "# other\nppt \"pci9,9\"\n"), (Some(BEFORE), BEFORE)]
    {
        let test = TestHost::new();
        test.write("etc/ppt_aliases", BEFORE);
        let path = test.host.at_boot.clone();
        let removal = LinesChange { path: path.clone(), edits: vec![Edit::RemoveAlias(b"pci9,9".to_vec())] };
        let edited = edit(&removal).unwrap();
        assert_eq!(text(&path), "ppt \"pci8,8\" # both\n# end\n");
        if let Some(changed) = changed {
            fs::write(&path, changed).unwrap();
        }
        undo_edits(&path, edited).unwrap();
        assert_eq!(text(&path), expected);
    }
    let test = TestHost::new();
    let path = test.host.until_off.clone();
    let added = LinesChange { path: path.clone(), edits: vec![Edit::AddAlias(b"pci9,9".to_vec())] };
    undo_edits(&path, edit(&added).unwrap()).unwrap();
    assert!(!path.exists(), "it was not there");
}

#[test]
fn nothing_is_taken_without_the_driver_for_guests() {
    let (_test, changes) = two();
    let switches = changes.iter().filter(|change| matches!(change, Change::ToVfio(_))).cloned();
    let changes: Vec<Change> = [Change::LoadDriver].into_iter().chain(switches).collect();
    let error = || Failed { error: ChangeError::NoDriver { why: String::new() }, left: Vec::new() };
    for (fails_at, made) in [(Some(0), 1), (Some(1), 3), (None, 3)] {
        let (mut count, mut failures) = (0, 0);
        let make = |_: &Change| {
            count += 1;
            if Some(count - 1) == fails_at { Err(error()) } else { Ok(()) }
        };
        each(&changes, make, |_| failures += 1);
        assert_eq!((count, failures), (made, usize::from(fails_at.is_some())), "{fails_at:?}");
    }
}

#[test]
fn forgetting_ids_ends() {
    let (test, _) = two();
    let address: HostAddress = "0000:00:04.0".parse().unwrap();
    // A file that never says that there is no such id.
    test.write("sys/bus/pci/drivers/vfio-pci/remove_id", "");
    assert!(drivers::forget_ids(&test.host, address).unwrap());
    let written = text(&test.at("sys/bus/pci/drivers/vfio-pci/remove_id"));
    assert_eq!(written, "1b36 0010");
}
