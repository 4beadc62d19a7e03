//! `slotpass reserve`, `release` and `apply`, as far as they need no function of this host: boot keys of SmartOS, refusals.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{Ended, Slotpass, skipped};

const MENU: &str = "default=0
title Live 64-bit
   kernel$ /os/20180203/platform/i86pc/kernel/amd64/unix -B smartos=true
   module$ /os/20180203/platform/i86pc/amd64/boot_archive
   module$ /os/20180203/platform/i86pc/amd64/boot_archive.hash
";
const DISPLAY: &str = "/pci@0,0/pci8086,151@1/display@0";

fn slotpass(arguments: &[&str]) -> Ended {
    Slotpass::new().args(arguments).end()
}

/// A boot key with these files.
fn key(files: &[(&str, &str)]) -> TempDir {
    let key = TempDir::new().unwrap();
    for (name, text) in files {
        let path = key.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    key
}

/// All files of a key.
fn files(key: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut directories = vec![key.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => directories.push(entry.path()),
                false => files.push((entry.path(), fs::read_to_string(entry.path()).unwrap())),
            }
        }
    }
    files.sort();
    files
}

fn on_key(command: &str, key: &TempDir, devices: &[&str]) -> Ended {
    let directory = key.path().to_str().unwrap();
    slotpass(&[&[command, "--smartos", directory], devices].concat())
}

#[test]
fn a_boot_key_is_set_up_and_as_before_again() {
    for boot in [
        &[("boot/grub/menu.lst", MENU)][..],
        &[("boot/loader.conf", "console=\"ttya\"\n")],
        &[
            ("boot/loader.conf", "console=\"ttya\"\n"),
            ("boot/loader.conf.local", "# no newline"),
            ("boot/grub/menu.lst", MENU),
        ],
        &[
            ("boot/grub/menu.lst", MENU),
            ("overlay/etc/ppt_matches", "pci10de,15f0\n"),
            ("overlay/etc/ppt_aliases", "# mine\n"),
        ],
    ] {
        let key = key(boot);
        let before = files(key.path());
        let devices = [&format!("/devices{DISPLAY}"), "pciex8086,37d2"];
        on_key("reserve", &key, &devices).expect_code(0).expect_silent_stderr();
        let after = files(key.path());
        let text = |name: &str| {
            let found = after.iter().find(|(path, _)| path.ends_with(name));
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let aliases = text("overlay/etc/ppt_aliases");
        assert!(aliases.ends_with(&format!("ppt \"{DISPLAY}\"\nppt \"pciex8086,37d2\"\n")), "{aliases}");
        let matches = text("overlay/etc/ppt_matches");
        let entries: Vec<&str> = matches.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(entries.ends_with(&[DISPLAY, "pciex8086,37d2"]), "{matches}");
        if boot.iter().any(|(name, _)| name.contains("grub")) {
            let menu = text("boot/grub/menu.lst");
            for line in [
                "boot_archive type=rootfs name=ramdisk\n",
                "boot_archive.hash type=hash name=ramdisk\n",
                "   module$ /overlay/etc/ppt_aliases type=file name=etc/ppt_aliases\n",
                "   module$ /overlay/etc/ppt_matches type=file name=etc/ppt_matches\n",
            ] {
                assert!(menu.contains(line), "no {line} in:\n{menu}");
            }
        } else {
            let local = text("boot/loader.conf.local");
            for line in [
                "_load=\"YES\"\n",
                "_type=\"file\"\n",
                "_name=\"/overlay/etc/ppt_aliases\"\n",
                "_flags=\"name=etc/ppt_matches\"\n",
            ] {
                assert!(local.contains(line), "no {line} in:\n{local}");
            }
        }
        on_key("reserve", &key, &devices).expect_code(0).expect_stdout("nothing to change\n");
        assert_eq!(files(key.path()), after);
        // What loads the files goes with the last of the devices.
        on_key("release", &key, &devices[..1]).expect_code(0);
        assert!(
            files(key.path())
                .iter()
                .any(|(_, text)| text.contains("etc/ppt_matches\"") || text.contains("name=etc/ppt_matches"))
        );
        on_key("release", &key, &devices[1..]).expect_code(0);
        assert_eq!(files(key.path()), before, "{boot:?}");
    }
}

#[test]
fn what_would_change_on_a_boot_key_is_printed() {
    let boot = [("boot/grub/menu.lst", MENU), ("boot/loader.conf", "")];
    let (key, other) = (key(&boot), key(&boot));
    for command in ["reserve", "release"] {
        let before = files(key.path());
        let printed = on_key(command, &key, &["--dry-run", DISPLAY]).expect_code(0).expect_silent_stderr();
        assert_eq!(files(key.path()), before);
        for line in [
            format!("# {}ppt \"{DISPLAY}\"\n", if command == "reserve" { "+" } else { "-" }),
            format!(
                "# {}   module$ /overlay/etc/ppt_aliases type=file",
                if command == "reserve" { "+" } else { "-" }
            ),
        ] {
            assert!(printed.stdout.contains(&line), "no {line} in:\n{printed}");
        }
        let ran = Command::new("sh").args(["-ec", &printed.stdout]).status().unwrap();
        assert!(ran.success(), "{printed}");
        on_key(command, &other, &[DISPLAY]).expect_code(0);
        let texts = |key: &TempDir| files(key.path()).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(&key), texts(&other), "{printed}");
    }
}

#[test]
fn the_set_up_that_is_known_not_to_work_is_reported() {
    let broken = "ppt_aliases_load=\"YES\"\nppt_aliases_type=\"file\"\nppt_aliases_name=/etc/overlay/ppt_aliases\n\
                  ppt_aliases_flags=\"name=/etc/overlay\"\nppt_matches_load=\"YES\"\nppt_matches_type=\"file\"\n\
                  ppt_matches_name=/etc/overlay/ppt_matches\nppt_matches_flags=\"name=/etc/overlay\"\n";
    let key = key(&[("boot/loader.conf", broken)]);
    let ended = on_key("reserve", &key, &[DISPLAY]).expect_code(0);
    let ended = ended.expect_stderr("boot/loader.conf: line 4: ppt_aliases_flags=\"name=/etc/overlay\"");
    ended.expect_stderr("line 8: ").expect_stderr("it has to be ppt_matches_flags=\"name=etc/ppt_matches\"");
    let local = fs::read_to_string(key.path().join("boot/loader.conf.local")).unwrap();
    assert!(local.contains("slotpass_ppt_aliases_flags=\"name=etc/ppt_aliases\""), "{local}");
    assert_eq!(fs::read_to_string(key.path().join("boot/loader.conf")).unwrap(), broken);
}

#[test]
fn paths_on_a_boot_key_have_illumos_spelling() {
    let key = key(&[("boot/grub/menu.lst", MENU), ("overlay/etc/ppt_aliases", "pptt \"pci8086,1\"\n")]);
    let devices = ["/pci@0,0/isa@1F", "/devices/pci@00,0/pci8086,151@1/display@0,0:ppt"];
    let ended = on_key("reserve", &key, &devices).expect_code(0);
    ended.expect_stderr("ppt_aliases: line 1: names driver 'pptt', not ppt; if the host has such a driver");
    let text = |name: &str| fs::read_to_string(key.path().join("overlay/etc").join(name)).unwrap();
    assert_eq!(
        text("ppt_aliases"),
        format!("pptt \"pci8086,1\"\nppt \"/pci@0,0/isa@1f\"\nppt \"{DISPLAY}\"\n")
    );
    let matches = text("ppt_matches");
    let entries: Vec<&str> = matches.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(entries, ["/pci@0,0/isa@1f", DISPLAY]);
}

#[test]
fn what_is_loaded_but_not_as_a_file_is_reported() {
    let own = "x_load=\"YES\"\nx_name=/overlay/etc/ppt_aliases\nx_flags=\"name=etc/ppt_aliases\"\n";
    let key = key(&[("boot/loader.conf", own)]);
    on_key("reserve", &key, &[DISPLAY])
        .expect_code(0)
        .expect_stderr("line 3: no x_type does not load it as a file");
    let local = fs::read_to_string(key.path().join("boot/loader.conf.local")).unwrap();
    assert!(local.contains("slotpass_ppt_aliases_type=\"file\""), "{local}");
}

#[test]
fn what_is_no_boot_key_and_what_is_no_device_of_one() {
    let empty = TempDir::new().unwrap();
    on_key("reserve", &empty, &[DISPLAY])
        .expect_refusal(&["no boot key of SmartOS is mounted there", "menu.lst"]);
    assert!(files(empty.path()).is_empty());
    let untyped = key(&[("boot/grub/menu.lst", "title x\nkernel /unix\nmodule /archive\nmodule /more\n")]);
    let before = files(untyped.path());
    on_key("reserve", &untyped, &[DISPLAY]).expect_refusal(&["menu.lst: line 4: the module 'module /more'"]);
    assert_eq!(files(untyped.path()), before);
    let key = key(&[("boot/grub/menu.lst", MENU)]);
    let before = files(key.path());
    for (name, word) in [
        ("0000:01:00.0", "named by physical path"),
        ("pciex8086,037d", "without leading zeros"),
        ("pciex10DE,a65", "lower case"),
        ("/pci@0,0/display@2:pci", "is not NAME@DEVICE"),
        ("/pci@0,0/a b@1\nppt \"x\"", "is not NAME@DEVICE"),
        ("/pci@0,0/\n@1", "neither a path nor a name"),
        ("/pci@0,0/pciex8086,151@1", "also those of PCI Express"),
        ("pci8086,37d2.15d9.37d2,s", "only names such as pci8086,37d2 have ,s"),
        ("pci8086,1528.8086", "would be a revision"),
        ("/sys/bus/pci/devices/0000:01:00.0", "named by physical path"),
        ("nvme", "named by physical path"),
        ("", "named by physical path"),
        ("pci8086", "pci8086"),
    ] {
        on_key("reserve", &key, &[name]).expect_refusal(&[word]);
        on_key("release", &key, &[name]).expect_code(1);
    }
    on_key("release", &key, &[DISPLAY]).expect_refusal(&[DISPLAY, "ppt_aliases has no line for it"]);
    on_key("reserve", &key, &["pciex11,46"]).expect_code(0).expect_stderr("not in ppt_matches");
    on_key("release", &key, &["pciex11,46"]).expect_code(0);
    assert_eq!(files(key.path()), before);
}

#[test]
fn arguments_that_do_not_go_together() {
    for arguments in [
        &["reserve"][..],
        &["release"],
        &["reserve", "--now", "--boot", "0000:01:00.0"],
        &["reserve", "--now", "--initramfs", "0000:01:00.0"],
        &["reserve", "--smartos", ".", "--force", DISPLAY],
        &["release", "--smartos", ".", "--by-id", DISPLAY],
        &["apply", "0000:01:00.0"],
    ] {
        slotpass(arguments).expect_code(1).expect_stderr("Usage: slotpass");
    }
}

#[test]
fn devices_that_are_none() {
    for name in ["0000:ff:1f.7", "nonsense", "fd:3", "/sys", "/nowhere/0000:00:00.0", ""] {
        for command in ["reserve", "release"] {
            for more in [&[][..], &["--dry-run"]] {
                slotpass(&[&[command, name], more].concat()).expect_refusal(&["there is no PCI function"]);
            }
        }
    }
    let path = "/devices/pci@fe,0/pci8086,151@1/display@0";
    slotpass(&["reserve", path]).expect_refusal(&["there is no pci@fe,0 in this host"]);
    slotpass(&["release", "--dry-run", "/pci@0,0/display"]).expect_refusal(&["is not NAME@DEVICE"]);
}

#[test]
fn functions_of_a_host_without_iommu() {
    const NAME: &str = "functions_of_a_host_without_iommu";
    let mut functions = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let Some(function) = functions.find(|function| !function.path().join("iommu_group").exists()) else {
        skipped(NAME, "every function of this host has an IOMMU group, or there is none");
        return;
    };
    let name = function.file_name().into_string().unwrap();
    let ended = slotpass(&["reserve", "--force", "--dry-run", &name]).expect_code(1);
    let is_bridge = ended.stderr.contains("it is a bridge");
    assert!(is_bridge || ended.stderr.contains(&format!("{name}: it has no IOMMU group: ")), "{ended}");
}

#[test]
fn nothing_is_done_without_rights() {
    let run = |arguments: &[&str]| {
        let through = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        Slotpass::through("setpriv", &through).args(arguments).end()
    };
    let ended = run(&["--version"]);
    if ended.stdout.is_empty() {
        skipped("nothing_is_done_without_rights", "cannot become another user here");
        return;
    }
    run(&["apply"]).expect_refusal(&["takes root: sudo slotpass apply"]);
    run(&["release", "0000:ff:1f.7"]).expect_refusal(&["takes root: sudo slotpass release"]);
    run(&["apply", "--dry-run"]).expect_code(0);
}
