use std::fs;

use crate::host::reserve::Host;
use crate::host::reserve::carry_out::all_or_nothing;

use super::*;

const ENTRY: &str = "title x\nkernel /unix\nmodule /archive type=rootfs name=ramdisk\n";

fn key(files: &[(&str, &str)]) -> tempfile::TempDir {
    let key = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = key.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    key
}

fn text(key: &tempfile::TempDir, name: &str) -> String {
    fs::read_to_string(key.path().join(name)).unwrap_or_default()
}

fn carried_out(plan: Plan) {
    all_or_nothing(&Host::default(), &plan.changes, &mut |_| {}).unwrap();
}

#[test]
fn what_is_loaded_is_what_is_edited() {
    let module = "module /config/ppt type=file name=etc/ppt_aliases\n";
    let variables = "a_load=YES\na_type=file\na_name=/config/ppt\na_flags=\"name=etc/ppt_aliases\"\n";
    for (name, own) in
        [("boot/grub/menu.lst", [ENTRY, module].concat()), ("boot/loader.conf", variables.to_owned())]
    {
        let key = key(&[(name, &own), ("config/ppt", "# mine\n")]);
        // The other boot loader is told of the same file.
        fs::create_dir_all(key.path().join("boot/grub")).unwrap();
        for (other, text) in [("boot/grub/menu.lst", ENTRY), ("boot/loader.conf", "x=y\n")] {
            if other != name {
                fs::write(key.path().join(other), text).unwrap();
            }
        }
        let names = ["/pci@0,0/display@2".to_owned()];
        carried_out(reserve(key.path(), &names).unwrap());
        assert_eq!(text(&key, "config/ppt"), "# mine\nppt \"/pci@0,0/display@2\"\n", "{name}");
        assert!(!key.path().join("overlay/etc/ppt_aliases").exists());
        assert!(text(&key, "overlay/etc/ppt_matches").ends_with("\n/pci@0,0/display@2\n"));
        assert!(text(&key, "boot/grub/menu.lst").contains("module /config/ppt type=file"), "{name}");
        let added = text(&key, "boot/loader.conf.local");
        assert!(!added.contains("/overlay/etc/ppt_aliases"), "{added}");
        assert_eq!(added.contains("_name=\"/config/ppt\""), name != "boot/loader.conf", "{added}");
        carried_out(release(key.path(), &names).unwrap());
        assert_eq!((text(&key, "config/ppt"), text(&key, name)), ("# mine\n".into(), own));
        for file in ["overlay/etc/ppt_matches", "boot/loader.conf.local"] {
            assert!(!key.path().join(file).exists(), "{name}: {file}");
        }
    }
}

#[test]
fn what_is_loaded_from_elsewhere_is_refused_with_its_line() {
    let module = |path: &str| format!("module {path} type=file name=etc/ppt_aliases\n");
    let entry = |path: &str| [ENTRY, &module(path)].concat();
    let local = "b_flags=\"name=etc/ppt_matches\"\nb_type=file\n";
    for (files, expected) in [
        (
            vec![("boot/grub/menu.lst", entry("/config/ppt"))],
            "boot/grub/menu.lst: line 4: it loads etc/ppt_aliases from '/config/ppt', which is not on the key",
        ),
        (
            vec![("boot/grub/menu.lst", entry("/../ppt"))],
            "line 4: it loads etc/ppt_aliases from '/../ppt', which is not",
        ),
        (
            vec![
                ("boot/grub/menu.lst", [entry("/a"), entry("/b")].concat()),
                ("a", String::new()),
                ("b", String::new()),
            ],
            "line 8: it loads etc/ppt_aliases from '/b', and another line from '/a'",
        ),
        (
            vec![
                ("boot/loader.conf", "b_load=YES\nb_name=/m\n".to_owned()),
                ("boot/loader.conf.local", format!("# x\n{local}")),
            ],
            "boot/loader.conf.local: line 2: it loads etc/ppt_matches from '/m'",
        ),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let key = key(&files);
        let refused = reserve(key.path(), &["/pci@0,0/display@2".to_owned()]).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    // The usual place, written otherwise.
    let key = key(&[("boot/grub/menu.lst", &entry("//overlay/./etc/ppt_aliases"))]);
    reserve(key.path(), &["/pci@0,0/display@2".to_owned()]).unwrap();
}

#[test]
fn paths_are_written_as_illumos_does() {
    for (name, expected) in [
        ("/pci@0,0/isa@1F", "/pci@0,0/isa@1f"),
        ("/pci@00,0/pci8086,151@1/display@0,0", "/pci@0,0/pci8086,151@1/display@0"),
        ("/devices/pci@0/isa@01f:ppt", "/pci@0,0/isa@1f"),
        ("pciex8086,37d2", "pciex8086,37d2"),
    ] {
        let key = key(&[("boot/loader.conf", "")]);
        carried_out(reserve(key.path(), &[name.to_owned()]).unwrap());
        assert_eq!(text(&key, "overlay/etc/ppt_aliases"), format!("ppt \"{expected}\"\n"), "{name}");
        let matches = text(&key, "overlay/etc/ppt_matches");
        assert!(matches.ends_with(&format!("\n{expected}\n")), "{matches}");
        let plan = reserve(key.path(), &[expected.to_owned()]).unwrap();
        assert!(plan.notes.is_empty(), "{:?}", plan.notes);
        carried_out(release(key.path(), &[name.to_owned()]).unwrap());
        assert_eq!(text(&key, "overlay/etc/ppt_aliases"), "", "{name}");
    }
    for (name, reason) in [
        ("/pci@0,0/pciex8086,151@1", "nodes are named pci…"),
        ("/pci@0,0/pci8086,0151@1", "without leading zeros"),
        ("/pci@0,0", "it is a bus"),
        ("/dev/vfio/3", "named by physical path"),
    ] {
        let key = key(&[("boot/loader.conf", "")]);
        let refused = reserve(key.path(), &[name.to_owned()]).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn lines_without_effect_are_told_and_can_be_taken_out() {
    let aliases = "overlay/etc/ppt_aliases";
    let (bad, good) = ("ppt \"/pci@0,0/isa@1F\"\n", "ppt \"/pci@0,0/display@2\"\n");
    let key = key(&[
        ("boot/loader.conf", ""),
        (aliases, &[bad, good].concat()),
        ("overlay/etc/ppt_matches", "PCI8086\n"),
    ]);
    let plan = reserve(key.path(), &["pci8086,1".to_owned()]).unwrap();
    let [alias, matched] = &plan.notes[..] else { panic!("{:?}", plan.notes) };
    assert!(alias.contains("/overlay/etc/ppt_aliases: line 1: '/pci@0,0/isa@1F' binds nothing"), "{alias}");
    assert!(matched.contains("/overlay/etc/ppt_matches: line 1: 'PCI8086': ignored"), "{matched}");
    let plan = release(key.path(), &["/pci@0,0/isa@1F".to_owned()]).unwrap();
    assert_eq!(plan.notes.len(), 2, "{:?}", plan.notes);
    carried_out(plan);
    assert_eq!(text(&key, aliases), good);
}
