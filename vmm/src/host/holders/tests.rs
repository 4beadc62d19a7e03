use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// Two functions in group 14, the second with the name of its file, and one in group 15, all of them in vfio-pci's hands.
struct Tree(TempDir);

impl Tree {
    fn new() -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.at("module")).unwrap();
        fs::create_dir_all(tree.at("driver")).unwrap();
        symlink(tree.at("module"), tree.at("driver/module")).unwrap();
        for (function, group, cdev) in [
            ("0000:01:00.0", "14", None),
            ("0000:01:00.1", "14", Some("vfio1")),
            ("0000:02:00.0", "15", Some("vfio2")),
        ] {
            let directory = tree.at("devices").join(function);
            fs::create_dir_all(&directory).unwrap();
            if let Some(cdev) = cdev {
                fs::create_dir_all(directory.join(CDEV_CLASS).join(cdev)).unwrap();
            }
            let members = tree.at("groups").join(group).join("devices");
            fs::create_dir_all(&members).unwrap();
            symlink(&directory, members.join(function)).unwrap();
            symlink(tree.at("groups").join(group), directory.join("iommu_group")).unwrap();
            symlink(tree.at("driver"), directory.join("driver")).unwrap();
        }
        fs::create_dir_all(tree.at("proc/self/ns")).unwrap();
        tree.namespace(ALL_PROCESSES);
        tree.process(1, "init", &["/dev/null"]);
        tree
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn namespace(&self, name: &str) {
        let link = self.at("proc/self/ns/pid");
        let _ = fs::remove_file(&link);
        symlink(name, link).unwrap();
    }

    fn process(&self, pid: u32, name: &str, targets: &[&str]) {
        let directory = self.at("proc").join(pid.to_string());
        fs::create_dir_all(directory.join("fd")).unwrap();
        fs::write(directory.join("comm"), format!("{name}\n")).unwrap();
        for (number, target) in targets.iter().enumerate() {
            symlink(target, directory.join("fd").join(number.to_string())).unwrap();
        }
    }

    fn uses(&self, count: &str) {
        fs::write(self.at("module/refcnt"), format!("{count}\n")).unwrap();
    }

    fn of(&self, function: &str) -> Holders {
        of_in(&self.at("proc"), &self.at("devices"), function.parse().unwrap())
    }
}

#[test]
fn processes_are_found_by_what_they_have_open() {
    let tree = Tree::new();
    tree.process(31, "by group", &["/dev/null", "/dev/vfio/14"]);
    tree.process(4, "by file", &["/dev/vfio/devices/vfio1"]);
    tree.process(5, "another", &["/dev/vfio/devices/vfio2", "/dev/vfio/1"]);
    tree.process(6, "no iommu", &["/dev/vfio/noiommu-15"]);
    for (function, expected) in [
        // The first has no file of its own that was open, and shares its group with one that has.
        ("0000:01:00.0", &["process 4 (by file)", "process 31 (by group)"][..]),
        ("0000:01:00.1", &["process 4 (by file)", "process 31 (by group)"]),
        ("0000:02:00.0", &["process 5 (another)", "process 6 (no iommu)"]),
        ("0000:03:00.0", &[]),
    ] {
        let holders = tree.of(function);
        assert_eq!(holders.seen.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{function}");
        assert_eq!(holders.hidden, Hidden::None);
    }
}

#[test]
fn what_is_hidden_is_told_by_how_often_the_driver_is_used() {
    let tree = Tree::new();
    let hidden = || tree.of("0000:01:00.0").hidden;
    tree.process(7, "own", &["/dev/vfio/15", OPENED_BY_GROUP]);
    tree.process(8, "own too", &["/dev/vfio/devices/vfio1"]);
    tree.process(9, "handed over by that", &["/dev/vfio/devices/vfio1"]);
    assert_eq!(hidden(), Hidden::None, "all are seen");
    // As in a container, and as others than root find processes where they are not listed.
    for hide in [&|| tree.namespace("pid:[4026532000]"), &|| {
        tree.namespace(ALL_PROCESSES);
        fs::remove_dir_all(tree.at("proc/1")).unwrap();
    }] as [&dyn Fn(); 2]
    {
        hide();
        let _ = fs::remove_file(tree.at("module/refcnt"));
        assert_eq!(hidden(), Hidden::Unknown, "part of the kernel");
        for (count, expected) in
            [("0", Hidden::None), ("2", Hidden::None), ("3", Hidden::Open(1)), ("-1", Hidden::Unknown)]
        {
            tree.uses(count);
            assert_eq!(hidden(), expected, "{count}");
        }
    }
}

#[test]
fn a_process_that_is_not_looked_into_is_hidden() {
    let tree = Tree::new();
    tree.uses("1");
    assert_eq!(tree.of("0000:01:00.0").hidden, Hidden::None);
    // What cannot be read as a directory, or as a link, whoever runs this test.
    for (pid, file) in [("9", "fd"), ("10", "fd/3")] {
        let file = tree.at("proc").join(pid).join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(tree.of("0000:01:00.0").hidden, Hidden::Open(1), "{file:?}");
        fs::remove_dir_all(tree.at("proc").join(pid)).unwrap();
        assert_eq!(tree.of("0000:01:00.0").hidden, Hidden::None);
    }
}
