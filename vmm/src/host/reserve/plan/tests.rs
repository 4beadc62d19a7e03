use std::fs;

use super::*;
use crate::host::reserve::Host;
use crate::host::reserve::carry_out::{self, bytes_of};
use crate::host::reserve::change;
use crate::host::reserve::test_host::TestHost;

const NVME: u32 = 0x01_0802;
const NIC: u32 = 0x02_0000;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn reserve_of(list: &[&str]) -> Reserve {
    Reserve { names: names(list), ..Reserve::default() }
}

fn release_of(list: &[&str]) -> Release {
    Release { names: names(list), ..Release::default() }
}

/// The commands of a plan, without those of files, which the scenarios carry out.
fn script(plan: &Plan) -> Vec<String> {
    let of = |change: &Change| change::script(change, bytes_of).unwrap();
    plan.changes.iter().flat_map(of).collect()
}

fn refusals<T: std::fmt::Debug>(
    result: Result<T, Vec<impl std::fmt::Display + std::fmt::Debug>>,
) -> Vec<String> {
    result.unwrap_err().iter().map(ToString::to_string).collect()
}

fn never(_: &[Other]) -> bool {
    panic!("nobody is to be asked")
}

fn reserved(host: &Host, request: &Reserve) -> Plan {
    reserve(host, request, &mut never).unwrap()
}

#[test]
fn the_alias_is_written_before_the_driver_changes_and_removed_after() {
    let test = TestHost::new();
    let directory = test.function("0000:00:04.0", "1b36:0010", NVME, Some(1), Some("nvme"));
    let file = test.host.at_boot.display().to_string();
    let sysfs = "/sys/bus/pci/devices/0000:00:04.0";
    let plan = reserved(&test.host, &reserve_of(&["0000:00:04.0"]));
    assert_eq!(
        script(&plan),
        [
            format!("# {file}"),
            "# +ppt \"/pci@0,0/pci1af4,1100@4\"".into(),
            format!("printf '%s\\n' 'ppt \"/pci@0,0/pci1af4,1100@4\"' >>{file}"),
            "modprobe vfio-pci".into(),
            format!("echo vfio-pci >{sysfs}/driver_override"),
            format!("echo 0000:00:04.0 >{sysfs}/driver/unbind"),
            "echo 0000:00:04.0 >/sys/bus/pci/drivers_probe".into(),
        ]
    );

    test.write("etc/ppt_aliases", "# mine\nppt \"pci9,9\" \"/pci@0,0/pci1af4,1100@4\"\n");
    test.write(&format!("{directory}/driver_override"), "vfio-pci\n")
        .write(&format!("{directory}/modalias"), "pci:v1\n");
    fs::remove_file(test.at(&directory).join("driver")).unwrap();
    test.directory("sys/bus/pci/drivers/vfio-pci")
        .link(&format!("{directory}/driver"), "sys/bus/pci/drivers/vfio-pci");
    let plan = release(&test.host, &release_of(&["0000:00:04.0"])).unwrap();
    assert_eq!(
        script(&plan),
        [
            format!("echo >{sysfs}/driver_override"),
            format!("echo 0000:00:04.0 >{sysfs}/driver/unbind"),
            "modprobe -q pci:v1 || true".into(),
            "echo 0000:00:04.0 >/sys/bus/pci/drivers_probe".into(),
            format!("# {file}"),
            "# -ppt \"pci9,9\" \"/pci@0,0/pci1af4,1100@4\"".into(),
            "# +ppt \"pci9,9\"".into(),
            format!("sed -i -e '2c\\' -e 'ppt \"pci9,9\"' -- {file}"),
        ]
    );
    assert!(script(&reserved(&test.host, &reserve_of(&["0000:00:04.0"]))).is_empty(), "it is reserved");
}

#[test]
fn what_is_between_two_drivers_is_finished() {
    // Driver, override, what reserve does, what release does; after the interrupted command the alias is in the file.
    for (driver, with, to_vfio, to_host) in [
        (Some("nvme"), "(null)", "override unbind probe", ""),
        (Some("nvme"), "vfio-pci", "unbind probe", "clear"),
        (None, "vfio-pci", "probe", "clear modprobe probe"),
        (None, "(null)", "override probe", "modprobe probe"),
        (Some("vfio-pci"), "(null)", "override", "unbind modprobe probe"),
        (Some("vfio-pci"), "vfio-pci", "", "clear unbind modprobe probe"),
        (Some("mlx5_vfio_pci"), "mlx5_vfio_pci", "", "clear unbind modprobe probe"),
        (Some("mlx5_vfio_pci"), "(null)", "", "unbind modprobe probe"),
        (Some("nvme"), "nvme", "override unbind probe", ""),
    ] {
        let test = TestHost::new();
        let directory = test.function("0000:00:04.0", "1b36:0010", NVME, Some(1), driver);
        test.write(&format!("{directory}/driver_override"), &format!("{with}\n"));
        test.write(&format!("{directory}/modalias"), "pci:x\n").directory("sys/bus/pci/drivers/vfio-pci");
        test.write("etc/ppt_aliases", "ppt \"/pci@0,0/pci1af4,1100@4\"\n");
        let steps = |changes: &[Change]| {
            let lines = changes.iter().filter(|change| !matches!(change, Change::Lines(_)));
            let lines = lines.flat_map(|change| change::script(change, bytes_of).unwrap());
            let step = |line: String| match line {
                line if line.starts_with("echo >") => "clear",
                line if line.ends_with("driver_override") => "override",
                line if line.ends_with("unbind") => "unbind",
                line if line.starts_with("modprobe") => "modprobe",
                _ => "probe",
            };
            lines.map(step).collect::<Vec<_>>().join(" ")
        };
        let case = format!("driver {driver:?}, override {with}");
        assert_eq!(steps(&reserved(&test.host, &reserve_of(&["0000:00:04.0"])).changes), to_vfio, "{case}");
        assert_eq!(steps(&apply(&test.host).unwrap().changes), to_vfio, "{case}");
        let released = release(&test.host, &release_of(&["0000:00:04.0"])).unwrap();
        assert_eq!(steps(&released.changes), to_host, "{case}");
        assert!(matches!(released.changes.last(), Some(Change::Lines(_))), "the alias goes last: {case}");
    }
}

#[test]
fn others_of_a_group_are_asked_for() {
    let test = TestHost::new();
    for (function, driver) in [
        ("4.0", "nvme"),
        ("4.1", "snd_hda_intel"),
        ("4.2", "xhci_hcd"),
        ("4.3", "pcieport"),
        ("4.4", "vfio-pci"),
    ] {
        test.function(&format!("0000:00:0{function}"), "1b36:0010", NVME, Some(14), Some(driver));
    }
    test.function("0000:00:04.5", "1b36:0010", NVME, Some(14), None);
    let bridge = test.function("0000:00:04.6", "1b36:000c", 0x06_0400, Some(14), Some("shpchp"));
    test.bridge(&bridge);
    let mut asked = Vec::new();
    let request = reserve_of(&["0000:00:04.0"]);
    let refused = refusals(reserve(&test.host, &request, &mut |others| {
        asked =
            others.iter().map(|other| format!("{} {} {}", other.address, other.driver, other.with)).collect();
        false
    }));
    assert_eq!(asked, ["0000:00:04.1 snd_hda_intel 0000:00:04.0", "0000:00:04.2 xhci_hcd 0000:00:04.0"]);
    assert_eq!(refused.len(), 1);
    for word in ["0000:00:04.0: 0000:00:04.1, 0000:00:04.2", "snd_hda_intel, xhci_hcd", "--group"] {
        assert!(refused[0].contains(word), "{refused:?}");
    }
    let agreed = reserve(&test.host, &request, &mut |_| true).unwrap();
    let taken: Vec<String> = agreed.functions.iter().map(ToString::to_string).collect();
    assert_eq!(taken, ["0000:00:04.0", "0000:00:04.1", "0000:00:04.2"]);
    let group = Reserve { group: true, ..request };
    assert_eq!(reserved(&test.host, &group).functions, agreed.functions);
    let all = reserve_of(&["0000:00:04.2", "0000:00:04.0", "/pci@0,0/pci1af4,1100@4,1", "0000:00:04.0"]);
    assert_eq!(reserved(&test.host, &all).functions.len(), 3, "nobody is asked");
}

#[test]
fn what_is_refused_says_why() {
    let test = TestHost::new();
    let bridge = test.function("0000:00:01.0", "1b36:000c", 0x06_0400, Some(1), Some("pcieport"));
    test.bridge(&bridge);
    test.function("0000:00:1f.0", "8086:2918", 0x06_0100, Some(2), None);
    test.function("0000:00:05.0", "8086:10d3", NIC, None, Some("e1000e"));
    let display = test.function("0000:00:02.0", "1234:1111", 0x03_0000, Some(4), None);
    test.write(&format!("{display}/boot_vga"), "1\n");
    for (name, force, expected) in [
        ("0000:00:01.0", true, "it is a bridge"),
        ("0000:00:1f.0", false, "(060100) is that of a part of the host"),
        (
            "0000:00:05.0",
            true,
            "it has no IOMMU group: turn VT-d or AMD-Vi on in the firmware, and on an Intel",
        ),
        ("0000:00:02.0", false, "boot_vga); --force"),
        ("0000:00:09.0", false, "there is no PCI function '0000:00:09.0' in this host"),
        ("/devices/pci@0,0/display@9", false, "/devices/pci@0,0/display@9: there is no display@9"),
        ("/pci@0,0/nonsense", false, "is not NAME@DEVICE"),
        ("fd:3", false, "'fd:3'"),
        ("", false, "there is no PCI function ''"),
    ] {
        let request = Reserve { force, ..reserve_of(&[name]) };
        let refused = refusals(reserve(&test.host, &request, &mut never));
        assert!(refused.len() == 1 && refused[0].contains(expected), "{name}: {refused:?}");
    }
    for name in ["0000:00:1f.0", "0000:00:02.0"] {
        reserved(&test.host, &Reserve { force: true, ..reserve_of(&[name]) });
    }
    let all = reserve_of(&["0000:00:01.0", "0000:00:05.0", "0000:00:02.0"]);
    assert_eq!(refusals(reserve(&test.host, &all, &mut never)).len(), 3, "all of them at once");
    test.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    reserved(&test.host, &reserve_of(&["0000:00:05.0"]));
}

#[test]
fn ids_mean_all_that_have_them() {
    let test = TestHost::new();
    for (number, address) in ["0000:00:04.0", "0000:00:05.0"].iter().enumerate() {
        test.function(address, "8086:10d3", NIC, Some(number as u32), Some("e1000e"));
    }
    test.function("0000:00:06.0", "1b36:0010", NVME, Some(7), Some("nvme"));
    let by_id = Reserve { by_id: true, ..reserve_of(&["0000:00:05.0"]) };
    let plan = reserved(&test.host, &by_id);
    assert_eq!(plan.functions.len(), 2);
    assert_eq!(script(&plan)[1], "# +ppt \"pci8086,10d3\"");

    test.write("etc/ppt_aliases", "#\nppt \"pci8086,10d3\"\n");
    let refused = refusals(release(&test.host, &release_of(&["0000:00:04.0"])));
    let file = test.host.at_boot.display().to_string();
    for word in ["0000:00:04.0: line 2 of ", &file, " means 0000:00:05.0 too: 'pci8086,10d3'", "--by-id"] {
        assert!(refused[0].contains(word), "{word}: {refused:?}");
    }
    for request in [
        Release { by_id: true, ..release_of(&["0000:00:04.0"]) },
        release_of(&["0000:00:04.0", "0000:00:05.0"]),
        release_of(&["pci8086,10d3"]),
    ] {
        let plan = release(&test.host, &request).unwrap();
        assert_eq!(plan.functions.len(), 2, "{request:?}");
    }
    let refused = refusals(release(&test.host, &release_of(&["pci8086,1"])));
    assert!(refused[0].contains("there is no PCI function 'pci8086,1'"), "{refused:?}");
}

#[test]
fn the_most_exact_name_counts() {
    let test = TestHost::new();
    test.function("0000:00:04.0", "8086:10d3", NIC, Some(1), Some("e1000e"));
    test.function("0000:00:05.0", "8086:10d3", NIC, Some(2), Some("e1000e"));
    test.write(
        "etc/ppt_aliases",
        "ppt \"pci8086,10d3\"\ne1000e \"/pci@0,0/pci1af4,1100@4\"\nppt \"/pci@0,0/pci1af4,1100@4\"\n",
    );
    let applied = apply(&test.host).unwrap();
    let switched: Vec<String> = applied
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::ToVfio(switch) => Some(switch.address.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(switched, ["0000:00:05.0"]);
    assert!(matches!(applied.changes[0], Change::LoadDriver));
    assert_eq!(applied.warnings.len(), 2, "{:?}", applied.warnings);
}

#[test]
fn a_display_that_is_reserved_is_taken_at_boot_and_a_drive_in_use_is_not() {
    let test = TestHost::new();
    let display = test.function("0000:00:02.0", "1234:1111", 0x03_0000, Some(1), None);
    let nvme = test.function("0000:00:04.0", "1b36:0010", NVME, Some(2), Some("nvme"));
    test.write(&format!("{display}/boot_vga"), "1\n");
    test.block(&format!("{nvme}/nvme/nvme0/nvme0n1"), "259:0");
    test.write("proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    test.write("etc/ppt_aliases", "ppt \"pci1b36,10\" \"pciclass,0300\" \"/pci@0,0/display@9\"\n");
    let applied = apply(&test.host).unwrap();
    assert!(
        matches!(&applied.changes[..], [Change::LoadDriver, Change::ToVfio(switch)] if switch.address.to_string() == "0000:00:02.0")
    );
    let file = test.host.at_boot.display();
    assert_eq!(
        applied.warnings,
        [
            format!("{file}: line 1: this host has no function '/pci@0,0/display@9' now"),
            "0000:00:04.0: left to the host, though it is reserved: the file system mounted at / is on it (/dev/nvme0n1)"
                .to_owned(),
        ]
    );
}

#[test]
fn an_initramfs_gets_ids_and_modules() {
    let test = TestHost::new();
    test.function("0000:00:04.0", "1b36:0010", NVME, Some(1), Some("nvme"));
    let request = Reserve { initramfs: true, only_boot: true, ..reserve_of(&["0000:00:04.0"]) };
    let refused = refusals(reserve(&test.host, &request, &mut never));
    assert!(refused[0].contains("neither initramfs-tools nor dracut"), "{refused:?}");
    test.directory("etc/initramfs-tools/hooks").directory("etc/modprobe.d");
    let plan = reserved(&test.host, &request);
    let text = script(&plan).join("\n");
    for line in ["options vfio-pci ids=1b36:0010:1af4:1100", "manual_add_modules vfio-pci", "chmod 755 -- "] {
        assert!(text.contains(line), "no {line} in:\n{text}");
    }
    assert!(plan.notes.iter().any(|note| note.ends_with("update-initramfs -u -k all")), "{:?}", plan.notes);
    // One like it that the host needs.
    let other = test.function("0000:00:05.0", "1b36:0010", NVME, Some(2), Some("nvme"));
    test.block(&format!("{other}/nvme/nvme0/nvme0n1"), "259:0");
    test.write("proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    let refused = refusals(reserve(&test.host, &request, &mut never));
    assert!(refused[0].contains("0000:00:05.0 has the same ids"), "{refused:?}");
}

#[test]
fn what_a_group_adds_is_not_reserved_by_its_ids() {
    let test = TestHost::new();
    test.function("0000:00:04.0", "10de:1eb8", 0x03_0200, Some(1), Some("nouveau"));
    test.function("0000:00:04.1", "10de:10f8", 0x04_0300, Some(1), Some("snd_hda_intel"));
    // The same ids as the one beside, on which the host is.
    let other = test.function("0000:00:05.0", "10de:10f8", NVME, Some(2), Some("nvme"));
    test.block(&format!("{other}/nvme/nvme0/nvme0n1"), "259:0");
    test.write("proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    let request = Reserve { by_id: true, group: true, ..reserve_of(&["0000:00:04.0"]) };
    let plan = reserved(&test.host, &request);
    let added: Vec<String> = script(&plan).into_iter().filter(|line| line.starts_with("# +")).collect();
    assert_eq!(added, ["# +ppt \"pci10de,1eb8\"", "# +ppt \"/pci@0,0/pci1af4,1100@4,1\""]);
    assert_eq!(plan.functions.len(), 2);
    // Those of a group are refused for the same reasons as what was asked for.
    test.write("proc/self/mountinfo", "");
    test.directory("sys/devices/pci0000:00/0000:00:04.1/tty/ttyS4");
    test.link("sys/class/tty/ttyS4", "sys/devices/pci0000:00/0000:00:04.1/tty/ttyS4");
    test.write("sys/class/tty/console/active", "ttyS4\n");
    let refused = refusals(reserve(&test.host, &request, &mut never));
    assert!(refused.len() == 1 && refused[0].starts_with("0000:00:04.1: the console ttyS4"), "{refused:?}");
}

#[test]
fn ids_are_also_those_of_express_functions() {
    let test = TestHost::new();
    test.function("0000:00:04.0", "8086:10d3", NIC, Some(1), Some("e1000e"));
    let express = test.function("0000:00:05.0", "8086:10d3", NIC, Some(2), Some("e1000e"));
    test.write(&format!("{express}/max_link_speed"), "8 GT/s\n");
    // `pci8086,10d3` is a name of both, `pciex8086,10d3` of one.
    for (address, count) in [("0000:00:04.0", 2), ("0000:00:05.0", 1)] {
        let plan = reserved(&test.host, &Reserve { by_id: true, ..reserve_of(&[address]) });
        assert_eq!(plan.functions.len(), count, "{address}");
    }
}

#[test]
fn only_those_that_were_named_are_agreed_to() {
    let other = |address: &str| Other {
        address: address.parse().unwrap(),
        driver: "nvme".into(),
        with: "0000:00:04.0".parse().unwrap(),
    };
    let named = [other("0000:00:04.1"), other("0000:00:04.2")];
    assert!(Other::are_agreed(&named, &named) && Other::are_agreed(&named, &named[1..]));
    assert!(!Other::are_agreed(&named, &[other("0000:00:04.1"), other("0000:00:04.3")]));
}

#[test]
fn what_cannot_be_told_without_root_is_refused() {
    let test = TestHost::new();
    let drive = test.function("0000:00:04.0", "1b36:0010", NVME, Some(1), Some("nvme"));
    test.block(&format!("{drive}/nvme/nvme0/nvme0n1"), "259:0");
    test.write(&format!("{drive}/nvme/nvme0/nvme0n1/uevent"), "DEVNAME=nvme0n1\n");
    let request = reserve_of(&["0000:00:04.0"]);
    reserved(&test.host, &request);
    // Processes of others are hidden.
    fs::remove_dir_all(test.at("proc/1")).unwrap();
    let refused = refusals(reserve(&test.host, &request, &mut never));
    assert!(refused.len() == 1 && refused[0].contains("run with sudo; --force"), "{refused:?}");
    reserved(&test.host, &Reserve { force: true, ..request });
}

const CONF: &str = "etc/modprobe.d/slotpass.conf";

#[test]
fn release_says_what_the_initramfs_keeps() {
    let test = TestHost::new();
    test.function("0000:00:04.0", "1b36:0010", NVME, Some(1), Some("nvme"));
    test.directory("etc/initramfs-tools/hooks");
    test.write(
        CONF,
        "# function /pci@0,0/pci1af4,1100@4 1b36:0010:1af4:1100 nvme\n# function /pci@0,0/display@9 10de:1eb8 nouveau\n",
    );
    test.write("etc/ppt_aliases", "ppt \"/pci@0,0/pci1af4,1100@4\" \"/pci@0,0/display@9\"\n");
    let plan = release(&test.host, &release_of(&["0000:00:04.0"])).unwrap();
    let expected = "/pci@0,0/pci1af4,1100@4: the initramfs still takes it for guests at boot; what ends that: slotpass \
                    release --initramfs /pci@0,0/pci1af4,1100@4";
    assert_eq!(plan.notes, [expected]);
    let plan = release(&test.host, &release_of(&["/devices/pci@0,0/display@9"])).unwrap();
    assert!(
        plan.notes.iter().any(|note| note.starts_with("/pci@0,0/display@9: the initramfs")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_card_that_was_taken_out_is_removed_from_the_initramfs() {
    let test = TestHost::new();
    test.directory("etc/initramfs-tools/hooks");
    let (gone, stays) =
        ("# function /pci@0,0/display@9 10de:1eb8 nouveau\n", "# function 0000:07:00.0 8086:10d3 e1000e\n");
    test.write(CONF, &[gone, stays].concat());
    let request = Release { initramfs: true, ..release_of(&["/pci@0,0/display@9"]) };
    for aliases in ["ppt \"/pci@0,0/display@9\"\n", ""] {
        test.write("etc/ppt_aliases", aliases);
        let text = script(&release(&test.host, &request).unwrap()).join("\n");
        assert!(text.contains("0000:07:00.0") && !text.contains("10de:1eb8"), "{text}");
    }
    let refused = refusals(release(&test.host, &release_of(&["/pci@0,0/display@9"])));
    assert!(refused[0].contains("/pci@0,0/display@9: there is no"), "{refused:?}");
    let text = script(&release(&test.host, &Release { names: names(&["0000:07:00.0"]), ..request }).unwrap());
    assert!(text.join("\n").contains("10de:1eb8"), "{text:?}");
}

#[test]
fn ids_without_a_subsystem_are_only_of_those_without_one() {
    let test = TestHost::new();
    let bare = test.function("0000:00:04.0", "1b36:0010", NVME, Some(1), Some("nvme"));
    test.write(&format!("{bare}/subsystem_vendor"), "0x0000\n")
        .write(&format!("{bare}/subsystem_device"), "0x0007\n");
    let other = test.function("0000:00:05.0", "1b36:0010", NVME, Some(2), Some("nvme"));
    test.block(&format!("{other}/nvme/nvme0/nvme0n1"), "259:0");
    test.write("proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    test.directory("etc/dracut.conf.d");
    let request = Reserve { initramfs: true, only_boot: true, ..reserve_of(&["0000:00:04.0"]) };
    let plan = reserved(&test.host, &request);
    let text = script(&plan).join("\n");
    assert!(text.contains("options vfio-pci ids=1b36:0010:0000:0007\n"), "{text}");
    assert!(
        plan.notes.iter().any(|note| note.ends_with("dracut --regenerate-all --force")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_hook_that_is_no_program_is_made_one() {
    use std::os::unix::fs::PermissionsExt;
    let test = TestHost::new();
    test.function("0000:00:04.0", "1b36:0010", NVME, Some(1), Some("nvme"));
    test.directory("etc/initramfs-tools/hooks").directory("etc/modprobe.d");
    let request = Reserve { initramfs: true, only_boot: true, ..reserve_of(&["0000:00:04.0"]) };
    let make = || {
        let plan = reserved(&test.host, &request);
        carry_out::all_or_nothing(&test.host, &plan.changes, &mut |_| {}).unwrap();
    };
    let hook = test.at("etc/initramfs-tools/hooks/slotpass");
    make();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o600)).unwrap();
    make();
    assert_eq!(fs::metadata(&hook).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn apply_leaves_the_chipset_alone() {
    let test = TestHost::new();
    test.function("0000:00:1f.0", "8086:2918", 0x06_0100, Some(2), Some("lpc_ich"));
    test.write("etc/ppt_aliases", "ppt \"pci8086,2918\"\n");
    let applied = apply(&test.host).unwrap();
    assert!(applied.changes.is_empty(), "{:?}", applied.changes);
    assert!(
        applied.warnings.len() == 1 && applied.warnings[0].contains("(060100) is that of a part of the host")
    );
}

#[test]
fn names_of_files_are_never_commands() {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    for (name, is_refused) in [
        (&b"/x/a\nreboot"[..], true),
        (b"/x/\x1b[2J", true),
        (b"/x/\xff", true),
        ("/x/\u{e4} $(reboot)".as_bytes(), false),
    ] {
        let path = Path::new(std::ffi::OsStr::from_bytes(name)).to_owned();
        let edits = vec![change::Edit::AddAlias(b"pci8,8".to_vec())];
        let lines = Change::Lines(change::LinesChange { path: path.clone(), edits });
        let whole =
            Change::Whole(change::WholeFile { path, before: None, contents: None, executable: false });
        for change in [lines, whole] {
            let script = change::script(&change, |_| Ok(None));
            assert_eq!(script.is_err(), is_refused, "{change:?}");
            assert!(!script.unwrap_or_default().iter().any(|line| line.starts_with("reboot")));
        }
    }
}

#[test]
fn lines_without_effect_are_told_by_whoever_reads_the_file() {
    let test = TestHost::new();
    test.function("0000:00:04.0", "1b36:0010", NVME, Some(1), Some("nvme"));
    let bad = "ppt \"/pci@00,0/pci1af4,1100@4\"\n";
    test.write("etc/ppt_aliases", bad);
    let file = test.host.at_boot.display();
    let note = format!("{file}: line 1: '/pci@00,0/pci1af4,1100@4' binds nothing: 'pci@00,0': paths are");
    let plans = [
        reserved(&test.host, &reserve_of(&["0000:00:04.0"])),
        release(&test.host, &release_of(&["0000:00:04.0"])).unwrap(),
    ];
    for plan in plans {
        assert!(plan.notes.iter().any(|found| found.starts_with(&note)), "{:?}", plan.notes);
    }
    let only_now = Reserve { only_now: true, ..reserve_of(&["0000:00:04.0"]) };
    assert!(
        !reserved(&test.host, &only_now).notes.iter().any(|found| found.starts_with(&note)),
        "another file"
    );
    // Named as it is there, it is taken out, though it is no name of the function.
    let plan = release(&test.host, &release_of(&["/pci@00,0/pci1af4,1100@4"])).unwrap();
    assert!(script(&plan).contains(&format!("# -{}", bad.trim_end())), "{:?}", script(&plan));
}
