use std::os::unix::fs::symlink;

use crate::host::reserve::inventory::Inventory;
use crate::host::reserve::test_host::TestHost;

use super::*;

const NVME: u32 = 0x01_0802;
const NIC: u32 = 0x02_0000;

/// What is said of each function that has a use.
fn said(test: &TestHost) -> Vec<String> {
    let (inventory, uses) = (Inventory::read(&test.host).unwrap(), Uses::read(&test.host));
    let of = |function: &Function| {
        let uses = uses.of(&test.host, function);
        uses.iter().map(|found| format!("{}: {found}", function.address())).collect::<Vec<_>>()
    };
    inventory.iter().flat_map(of).collect()
}

fn nvme(test: &TestHost, address: &str) -> String {
    test.function(address, "1b36:0010", NVME, None, Some("nvme"))
}

/// A drive with one partition, as the nvme driver has it: its directory.
fn drive(test: &TestHost, address: &str, number: u32) -> String {
    let drive = format!("{}/nvme/nvme{number}/nvme{number}n1", nvme(test, address));
    let partition = format!("{drive}/nvme{number}n1p1");
    test.block(&drive, &format!("259:{}", number * 2)).block(&partition, &format!("259:{}", number * 2 + 1));
    test.write(&format!("{partition}/partition"), "1\n");
    drive
}

fn mounted(test: &TestHost, lines: &[&str]) {
    test.write("proc/self/mountinfo", &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
}

#[test]
fn file_systems_on_partitions() {
    let test = TestHost::new();
    drive(&test, "0000:00:04.0", 0);
    drive(&test, "0000:00:05.0", 1);
    mounted(
        &test,
        &[
            "22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw",
            "23 22 0:21 / /proc rw - proc proc rw",
            r"24 22 259:1 /sub /mnt/a\040b rw - ext4 /dev/nvme0n1p1 rw",
            "not a line",
        ],
    );
    assert_eq!(
        said(&test),
        [
            "0000:00:04.0: the file system mounted at / is on it (/dev/nvme0n1p1)",
            "0000:00:04.0: the file system mounted at /mnt/a b is on it (/dev/nvme0n1p1)",
        ]
    );
}

#[test]
fn many_mounts_of_one_drive() {
    let test = TestHost::new();
    drive(&test, "0000:00:04.0", 0);
    let lines: Vec<String> =
        (10..20).map(|number| format!("{number} 1 259:1 / /{number} rw - ext4 /dev/nvme0n1p1 rw")).collect();
    mounted(&test, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let said = said(&test);
    assert_eq!(said.len(), 5);
    assert_eq!(said[4], "0000:00:04.0: 6 more file systems that are mounted are on it");
}

#[test]
fn file_systems_on_what_is_made_of_drives() {
    let test = TestHost::new();
    let drives =
        [drive(&test, "0000:00:04.0", 0), drive(&test, "0000:00:05.0", 1), drive(&test, "0000:00:06.0", 2)];
    test.block("sys/devices/virtual/block/md0", "9:0").block("sys/devices/virtual/block/dm-0", "253:0");
    test.link("sys/devices/virtual/block/md0/slaves/nvme0n1p1", &format!("{}/nvme0n1p1", drives[0]));
    test.link("sys/devices/virtual/block/md0/slaves/nvme1n1", &drives[1]);
    test.link("sys/devices/virtual/block/dm-0/slaves/md0", "sys/devices/virtual/block/md0");
    mounted(&test, &["22 1 253:0 / /var rw - xfs /dev/mapper/vg-var rw"]);
    let on_it = "the file system mounted at /var is on it (/dev/mapper/vg-var)";
    assert_eq!(said(&test), [format!("0000:00:04.0: {on_it}"), format!("0000:00:05.0: {on_it}")]);
    // A circle, which cannot be, ends.
    symlink(test.at("sys/devices/virtual/block/dm-0"), test.at("sys/devices/virtual/block/md0/slaves/dm-0"))
        .unwrap();
    assert_eq!(said(&test).len(), 2);
}

#[test]
fn a_drive_with_two_ways_to_it() {
    let test = TestHost::new();
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    for (address, name) in [("0000:00:04.0", "nvme0"), ("0000:00:05.0", "nvme1")] {
        let controller = format!("{}/nvme/{name}", nvme(&test, address));
        test.directory(&controller).link(&format!("{subsystem}/{name}"), &controller);
    }
    nvme(&test, "0000:00:06.0");
    test.block(&format!("{subsystem}/nvme0n1"), "259:0");
    test.write("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1 partition 1 0 -2\n");
    let swap = "the host swaps to it (/dev/nvme0n1)";
    assert_eq!(said(&test), [format!("0000:00:04.0: {swap}"), format!("0000:00:05.0: {swap}")]);
}

#[test]
fn file_systems_whose_numbers_are_no_devices() {
    let test = TestHost::new();
    let drives = [drive(&test, "0000:00:04.0", 0), drive(&test, "0000:00:05.0", 1)];
    let share = format!(
        "{}/virtio3",
        test.function("0000:00:06.0", "1af4:1049", 0x02_0000, None, Some("virtio-pci"))
    );
    test.write(&format!("{share}/mount_tag"), "home\0").link("sys/bus/virtio/devices/virtio3", &share);
    for (number, drive) in drives.iter().enumerate() {
        test.link(&format!("sys/fs/btrfs/8a-b/devices/nvme{number}n1"), drive);
    }
    mounted(
        &test,
        &[
            "22 1 0:30 / / rw - btrfs /dev/nvme1n1 rw",
            "23 22 0:31 / /home rw - 9p home rw",
            "24 22 0:32 / /x rw - tmpfs none rw",
        ],
    );
    let found = said(&test);
    assert_eq!(
        found,
        [
            "0000:00:04.0: the file system mounted at / is on it (/dev/nvme1n1)",
            "0000:00:05.0: the file system mounted at / is on it (/dev/nvme1n1)",
            "0000:00:06.0: the file system mounted at /home is on it (home)",
        ]
    );
}

#[test]
fn default_routes_through_what_is_made_of_cards() {
    let test = TestHost::new();
    for (address, name) in [("0000:00:04.0", "eth0"), ("0000:00:05.0", "eth1"), ("0000:00:06.0", "eth2")] {
        let interface =
            format!("{}/net/{name}", test.function(address, "8086:10d3", NIC, None, Some("e1000e")));
        test.directory(&interface).link(&format!("sys/class/net/{name}"), &interface);
    }
    for (upper, lower) in [("vlan7", "bond0"), ("bond0", "eth0"), ("bond0", "eth1")] {
        test.directory(&format!("sys/devices/virtual/net/{upper}"));
        if !test.at(&format!("sys/class/net/{upper}")).exists() {
            test.link(&format!("sys/class/net/{upper}"), &format!("sys/devices/virtual/net/{upper}"));
        }
        test.directory(&format!("sys/devices/virtual/net/{upper}/lower_{lower}"));
    }
    test.write(
        "proc/net/route",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
         vlan7\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
         eth2\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
         eth2\t00000000\t00000000\t0000\t0\t0\t0\t00000000\t0\t0\t0\n",
    );
    let route = "the default route goes through it (vlan7)";
    assert_eq!(said(&test), [format!("0000:00:04.0: {route}"), format!("0000:00:05.0: {route}")]);

    let zero = "0".repeat(32);
    test.write("proc/net/route", "").write(
        "proc/net/ipv6_route",
        &format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth2\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             fe80{} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth1\n",
            "0".repeat(28)
        ),
    );
    assert_eq!(said(&test), ["0000:00:06.0: the default route goes through it (eth2)"]);
}

#[test]
fn virtual_functions_and_the_physical_one() {
    let test = TestHost::new();
    let physical = test.function("0000:00:04.0", "8086:10c9", NIC, None, Some("igb"));
    let of_it = test.function("0000:00:04.2", "8086:10ca", NIC, None, Some("igbvf"));
    test.link(&format!("{physical}/virtfn0"), &of_it).link(&format!("{of_it}/physfn"), &physical);
    let interface = format!("{of_it}/net/eth0");
    test.directory(&interface).link("sys/class/net/eth0", &interface);
    test.write("proc/net/route", "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
    assert_eq!(
        said(&test),
        [
            "0000:00:04.0: the default route goes through it (eth0)",
            "0000:00:04.0: its virtual functions (there: 1) go with its driver",
            "0000:00:04.2: the default route goes through it (eth0)",
        ]
    );
}

#[test]
fn screens_and_serial_ports() {
    let test = TestHost::new();
    let first = test.function("0000:00:02.0", "1234:1111", 0x03_0000, None, None);
    let second = test.function("0000:00:03.0", "1002:67df", 0x03_0000, None, Some("amdgpu"));
    let serial = test.function("0000:00:04.0", "1b36:0002", 0x07_0002, None, Some("serial"));
    test.write(&format!("{first}/boot_vga"), "1\n").write(&format!("{second}/boot_vga"), "0\n");
    test.directory(&format!("{second}/graphics/fb0"))
        .link("sys/class/graphics/fb0", &format!("{second}/graphics/fb0"));
    test.directory(&format!("{serial}/tty/ttyS4"))
        .link("sys/class/tty/ttyS4", &format!("{serial}/tty/ttyS4"));
    test.write("sys/class/tty/console/active", "tty0 ttyS4\n");
    test.write("sys/class/vtconsole/vtcon0/bind", "0\n")
        .write("sys/class/vtconsole/vtcon0/name", "(S) dummy device\n");
    test.write("sys/class/vtconsole/vtcon1/bind", "0\n");
    test.write("sys/class/vtconsole/vtcon1/name", "(M) frame buffer device\n");
    let (started, on_serial) = (
        "0000:00:02.0: it is the display that the host started on (boot_vga)",
        "0000:00:04.0: the console ttyS4 is on it",
    );
    assert_eq!(said(&test), [started, on_serial]);
    test.write("sys/class/vtconsole/vtcon1/bind", "1\n");
    assert_eq!(said(&test), [started, "0000:00:03.0: the console fb0 is on it", on_serial]);
}

#[test]
fn processes_with_a_node_open() {
    let test = TestHost::new();
    let drive = drive(&test, "0000:00:04.0", 0);
    test.write(&format!("{drive}/uevent"), "MAJOR=259\nDEVNAME=nvme0n1\n").write("proc/77/comm", "qemu\n");
    test.directory("proc/77/fd").link("proc/77/fd/3", "dev/nvme0n1").link("proc/77/fd/4", "dev/null");
    let expected = format!("0000:00:04.0: process 77 (qemu) has {} open", test.at("dev/nvme0n1").display());
    assert_eq!(said(&test), [expected]);
}

#[test]
fn the_users_of_a_display_of_nvidia() {
    let test = TestHost::new();
    test.function("0000:00:04.0", "10de:1eb8", 0x03_0200, None, Some("nvidia"));
    test.write("proc/driver/nvidia/gpus/0000:00:04.0/information", "Model: \t x\nDevice Minor: \t 2\n");
    test.write("proc/77/comm", "cuda\n").directory("proc/77/fd").link("proc/77/fd/3", "dev/nvidia0");
    assert!(said(&test).is_empty());
    test.link("proc/77/fd/4", "dev/nvidia2");
    let expected = format!("0000:00:04.0: process 77 (cuda) has {} open", test.at("dev/nvidia2").display());
    assert_eq!(said(&test), [expected]);
}

#[test]
fn what_cannot_be_told_is_no_leave() {
    let test = TestHost::new();
    let drive = drive(&test, "0000:00:04.0", 0);
    test.write(&format!("{drive}/uevent"), "DEVNAME=nvme0n1\n");
    test.write("dev/nvme0n1", "");
    assert!(said(&test).is_empty());
    // Root may open everything: another error stands for the lack of permission.
    std::fs::remove_file(test.at("dev/nvme0n1")).unwrap();
    test.link("dev/nvme0n1", "dev/nvme0n1").link("proc/78/fd", "proc/78/fd");
    let node = test.at("dev/nvme0n1").display().to_string();
    let error = io::Error::from_raw_os_error(libc::ELOOP);
    assert_eq!(
        said(&test),
        [
            format!("0000:00:04.0: whether a process has {node} open cannot be told: {error}"),
            format!("0000:00:04.0: whether the kernel has {node} open cannot be told: {error}"),
        ]
    );
    // Processes of others may be hidden altogether.
    std::fs::remove_file(test.at("dev/nvme0n1")).unwrap();
    std::fs::remove_file(test.at("proc/78/fd")).unwrap();
    std::fs::remove_dir_all(test.at("proc/1")).unwrap();
    let found = said(&test);
    assert!(
        found.len() == 1 && found[0].ends_with("(Permission denied (os error 13)): run with sudo"),
        "{found:?}"
    );
}

#[test]
fn what_the_kernel_has_open() {
    let test = TestHost::new();
    let directory = nvme(&test, "0000:00:04.0");
    // In sysfs `!` stands for a slash of the name.
    test.block(&format!("{directory}/cciss!c0d0"), "104:0").link("dev/cciss/c0d0", "dev/cciss/c0d0");
    let found = said(&test);
    assert!(found.len() == 1 && found[0].contains("dev/cciss/c0d0 open cannot be told"), "{found:?}");
    for (errno, expected) in [
        (libc::EBUSY, Some("a pool, an array")),
        (libc::EACCES, Some("without root")),
        (libc::EPERM, Some("without root")),
        (libc::EIO, Some("cannot be told: ")),
        (libc::ENOENT, None),
        (libc::ENXIO, None),
        (libc::ENOMEDIUM, None),
    ] {
        let error = io::Error::from_raw_os_error(errno);
        let said =
            blocks::refused("sda".into(), Path::new("/dev/sda"), &error).map(|found| found.to_string());
        assert_eq!(said.is_some(), expected.is_some(), "{errno}");
        assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()), "{errno}");
    }
    // A drive that is part of another device is looked at there.
    test.link(&format!("{directory}/cciss!c0d0/slaves/x"), "dev");
    assert!(said(&test).is_empty());
}

#[test]
fn mount_points_may_have_any_bytes() {
    let test = TestHost::new();
    drive(&test, "0000:00:04.0", 0);
    let lines = b"21 1 0:9 / /\xff rw - tmpfs none rw\n22 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n";
    std::fs::write(test.at("proc/self/mountinfo"), lines).unwrap();
    assert_eq!(said(&test), ["0000:00:04.0: the file system mounted at / is on it (/dev/nvme0n1p1)"]);
}

#[test]
fn a_host_without_anything() {
    let test = TestHost::new();
    std::fs::remove_dir_all(test.at("sys")).unwrap();
    std::fs::remove_dir_all(test.at("proc")).unwrap();
    assert!(said(&test).is_empty());
}
