use passthru::function::pieces::{Backing, Reason};
use passthru::host::vfio::sysfs::Member;

use super::super::facts::function::{Neighbour, Resource};
use super::super::facts::iommu::Reserved;
use super::super::finding::Level;
use super::super::tests::{asked, drive, facts, user, words};
use super::*;
use crate::host::holders::{Hidden, Holder};

/// What is found of a drive that was changed so, by a user who is not root.
fn found(change: impl FnOnce(&mut Function)) -> Vec<Finding> {
    found_with(change, |_| {}, false)
}

fn found_with(
    change: impl FnOnce(&mut Function),
    change_host: impl FnOnce(&mut Facts),
    require_reset: bool,
) -> Vec<Finding> {
    let mut function = drive();
    change(&mut function);
    let mut facts = Facts { process: user(), asked: vec![asked(function)], ..facts() };
    change_host(&mut facts);
    check(&facts, &facts.asked[0], require_reset)
}

fn member(address: &str, driver: Option<&str>) -> Member {
    Member { address: address.parse().unwrap(), driver: driver.map(str::to_owned) }
}

#[track_caller]
fn expect(findings: &[Finding], check: Check, level: Level, parts: &[&str]) {
    let fits = |finding: &&Finding| {
        finding.check == check
            && finding.level == level
            && parts.iter().all(|part| words(finding).contains(part))
    };
    assert!(findings.iter().any(|finding| fits(&finding)), "{check:?} {level:?} {parts:?} in {findings:#?}");
    let others: Vec<&Finding> =
        findings.iter().filter(|f| f.level > Level::Note && f.check != check).collect();
    assert!(others.is_empty(), "more than that: {others:#?}");
}

#[test]
fn a_function_that_is_ready() {
    let findings = found(|_| {});
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    expect(&findings, Check::Reset, Level::Ok, &["flr, then bus"]);
    expect(
        &findings,
        Check::Bars,
        Level::Ok,
        &["BAR 0, 0x2000..0x3000: reads take no exit, writes are trapped: holds the MSI-X table"],
    );
}

#[test]
fn functions_that_can_be_nobodys() {
    expect(
        &found(|f| f.is_gone = true),
        Check::Presence,
        Level::Problem,
        &[
            "all-ones",
            "takes it from its driver",
            "echo '1' | sudo tee /sys/bus/pci/devices/0000:01:00.0/remove; echo '1' | sudo tee /sys/bus/pci/rescan",
        ],
    );
    expect(&found(|f| f.header_type = Some(1)), Check::Presence, Level::Problem, &["bridge"]);
    expect(&found(|f| f.shown = Err("odd".to_owned())), Check::Presence, Level::Problem, &["odd"]);
    let graphics = |f: &mut Function| {
        f.sysfs.address = "0000:00:02.0".parse().unwrap();
        (f.sysfs.ids, f.sysfs.class) = (0x1234_8086, 0x03_0000);
    };
    expect(&found(graphics), Check::Presence, Level::Problem, &["OpRegion"]);
    let absent = Asked {
        name: crate::slot_map::DeviceName::Host("0000:ff:00.0".to_owned()),
        found: Found::Nothing("there is none".to_owned()),
    };
    expect(&check(&facts(), &absent, false), Check::Presence, Level::Problem, &["there is none"]);
}

#[test]
fn drivers_and_members_in_the_way_each_with_its_command() {
    expect(
        &found(|f| f.sysfs.driver = Some("nvme".to_owned())),
        Check::Driver,
        Level::Problem,
        &["driver nvme of the host holds it", "0000:01:00.0", "sudo "],
    );
    expect(&found(|f| f.sysfs.driver = None), Check::Driver, Level::Problem, &["no driver holds it"]);
    let both = found(|f| {
        f.offenders =
            vec![member("0000:01:00.1", Some("snd_hda_intel")), member("0000:01:00.2", Some("xhci_hcd"))];
    });
    for (address, driver) in [("0000:01:00.1", "snd_hda_intel"), ("0000:01:00.2", "xhci_hcd")] {
        expect(
            &both,
            Check::Group,
            Level::Problem,
            &[address, driver, &format!("sudo slotpass reserve --group {address}")],
        );
    }
    let one = found(|f| f.offenders = vec![member("0000:01:00.1", Some("snd_hda_intel"))]);
    expect(&one, Check::Group, Level::Problem, &["sudo slotpass reserve 0000:01:00.1"]);
    let later = found_with(|f| f.sysfs.driver = None, |facts| facts.host.groups = 0, false);
    expect(&later, Check::Driver, Level::Problem, &["once the IOMMU is on"]);
    // A function that its driver holds is not in its own way a second time.
    let own = found(|f| {
        f.sysfs.driver = Some("nvme".to_owned());
        f.offenders = vec![member("0000:01:00.0", Some("nvme"))];
    });
    expect(&own, Check::Driver, Level::Problem, &[]);
}

#[test]
fn groups_that_are_not_there_or_are_the_firmwares() {
    let none = |f: &mut Function| (f.sysfs.group, f.file) = (None, None);
    expect(&found(none), Check::Group, Level::Problem, &["not behind it"]);
    let off = found_with(none, |facts| facts.host.groups = 0, false);
    expect(&off, Check::Group, Level::Problem, &["the host's IOMMU is off"]);
    let reserve = |kind: &str| {
        let kind = kind.to_owned();
        move |f: &mut Function| f.reserved.push(Reserved { range: 0xbdf0_0000..0xbdf1_0000, kind })
    };
    expect(&found(reserve("direct")), Check::Group, Level::Problem, &["0xbdf00000..0xbdf10000", "RMRR"]);
    assert!(found(reserve("direct-relaxable")).iter().all(|finding| finding.level == Level::Ok));
}

#[test]
fn users_and_other_users() {
    let holder = Holder { pid: 7, name: "qemu".to_owned() };
    expect(&found(|f| f.holders.seen = vec![holder]), Check::InUse, Level::Problem, &["process 7 (qemu)"]);
    for (hidden, driver, level, parts) in [
        (Hidden::None, "vfio-pci", Level::Ok, None),
        (Hidden::Open(2), "vfio-pci", Level::Unknown, Some(["2 functions of driver vfio-pci", "as root"])),
        (Hidden::Unknown, "vfio-pci", Level::Note, Some(["not known", "as root"])),
        // Nobody has open what VFIO has not got.
        (Hidden::Open(2), "nvme", Level::Problem, None),
        (Hidden::Unknown, "nvme", Level::Problem, None),
    ] {
        let findings = found(|f| {
            f.holders.hidden = hidden;
            f.sysfs.driver = Some(driver.to_owned());
        });
        assert_eq!(findings.iter().map(|finding| finding.level).max(), Some(level), "{findings:#?}");
        match parts {
            Some(parts) => expect(&findings, Check::InUse, level, &parts),
            None => assert!(findings.iter().all(|finding| finding.check != Check::InUse), "{findings:#?}"),
        }
    }
    let denied = found(|f| f.access = Access::Denied);
    expect(
        &denied,
        Check::Access,
        Level::Problem,
        &[
            "sudo chown ann /dev/vfio/14",
            "echo 'SUBSYSTEM==\"vfio\", TEST==\"/sys/kernel/iommu_groups/%k/devices/0000:01:00.0\", OWNER=\"ann\"' \
             | sudo tee /etc/udev/rules.d/60-slotpass-0000:01:00.0.rules; ",
            "echo 'SUBSYSTEM==\"vfio-dev\", KERNELS==\"0000:01:00.0\", OWNER=\"ann\"' \
             | sudo tee -a /etc/udev/rules.d/60-slotpass-0000:01:00.0.rules; ",
            "sudo udevadm trigger --settle --name-match=/dev/vfio/14",
        ],
    );
    expect(&found(|f| f.access = Access::Absent), Check::Access, Level::Problem, &["container"]);
    // Nobody is asked for a file before there can be one.
    let unbound = found(|f| {
        f.sysfs.driver = None;
        f.access = Access::Absent;
    });
    expect(&unbound, Check::Driver, Level::Problem, &[]);
}

#[test]
fn files_that_a_kernel_or_an_option_leaves_no_way_to() {
    let by_file = |cdev: Option<&str>| {
        let cdev = cdev.map(str::to_owned);
        move |f: &mut Function| {
            f.by_device_file = true;
            f.file = cdev.as_ref().map(|name| format!("/dev/vfio/devices/{name}"));
            f.sysfs.cdev = cdev;
        }
    };
    expect(
        &found(by_file(Some("vfio0"))),
        Check::Access,
        Level::Ok,
        &["/dev/vfio/devices/vfio0 can be opened"],
    );
    expect(
        &found(by_file(None)),
        Check::Access,
        Level::Problem,
        &["no file below /dev/vfio/devices", "CONFIG_VFIO_DEVICE_CDEV", "--iommufd off"],
    );
    let handed_over = found(|f| f.sysfs.file = Some(5));
    expect(&handed_over, Check::Access, Level::Problem, &["handed over", "--iommufd auto"]);
    let taken = found(|f| {
        by_file(Some("vfio0"))(f);
        f.sysfs.file = Some(5);
        f.access = Access::Denied;
    });
    assert!(taken.iter().all(|finding| finding.check != Check::Access), "{taken:#?}");
}

fn neighbour(address: &str, driver: Option<&str>, group: u32) -> Neighbour {
    Neighbour { member: member(address, driver), group: Some(group) }
}

/// The drive of group 14, which has no reset of its own.
fn without_reset(neighbours: &[Neighbour]) -> impl FnOnce(&mut Function) {
    let neighbours = neighbours.to_vec();
    move |f: &mut Function| {
        f.resets.clear();
        f.neighbours = neighbours;
    }
}

#[test]
fn functions_without_a_reset_of_their_own() {
    expect(&found(without_reset(&[])), Check::Reset, Level::Note, &["its bus none"]);
    let refused = found_with(without_reset(&[]), |_| {}, true);
    expect(&refused, Check::Reset, Level::Problem, &["--require-reset"]);
    let together = |facts: &mut Facts| {
        let mut other = drive();
        (other.sysfs.address, other.sysfs.group) = ("0000:01:00.1".parse().unwrap(), Some(15));
        facts.asked.push(asked(other));
    };
    let both = found_with(without_reset(&[neighbour("0000:01:00.1", Some("e1000e"), 15)]), together, true);
    expect(&both, Check::Reset, Level::Ok, &["together with 0000:01:00.1"]);
}

#[test]
fn a_reset_of_a_bus_takes_what_nobody_else_can_have() {
    let give = "sudo slotpass reserve --group 0000:01:00.1";
    for (neighbours, level, parts) in [
        // One that is reserved, in a group that the guest has another function of.
        (
            &[neighbour("0000:01:00.1", Some("vfio-pci"), 14)][..],
            Level::Ok,
            &["together with 0000:01:00.1"][..],
        ),
        (&[neighbour("0000:01:00.1", Some("mlx5_vfio_pci"), 14)], Level::Ok, &["together with 0000:01:00.1"]),
        // Another guest can have that.
        (
            &[neighbour("0000:01:00.1", Some("vfio-pci"), 15)],
            Level::Problem,
            &["0000:01:00.1 (vfio-pci)", "the same guest"],
        ),
        (&[neighbour("0000:01:00.1", None, 14)], Level::Problem, &["0000:01:00.1 (no driver)", give]),
        (
            &[neighbour("0000:01:00.1", Some("e1000e"), 15)],
            Level::Problem,
            &["0000:01:00.1 (e1000e)", "the same guest", give],
        ),
        (
            &[
                neighbour("0000:01:00.1", Some("vfio-pci"), 14),
                neighbour("0000:01:00.2", Some("pcieport"), 14),
            ],
            Level::Problem,
            &["would also reset 0000:01:00.2 (pcieport)"],
        ),
        (
            &[Neighbour { group: None, ..neighbour("0000:01:00.1", Some("vfio-pci"), 14) }],
            Level::Problem,
            &["0000:01:00.1 (vfio-pci)"],
        ),
    ] {
        let findings = found_with(without_reset(neighbours), |_| {}, true);
        expect(&findings, Check::Reset, level, parts);
        let others = findings.iter().filter(|finding| words(finding).contains("the same guest")).count();
        assert_eq!(others > 0, level == Level::Problem && neighbours.iter().any(|n| n.group != Some(14)));
    }
}

#[test]
fn a_power_state_that_cannot_be_changed_is_in_the_way_of_the_open() {
    let error = |f: &mut Function| f.runtime_status = Some("error".to_owned());
    expect(
        &found(error),
        Check::Power,
        Level::Problem,
        &[
            "echo '1' | sudo tee /sys/bus/pci/devices/0000:01:00.0/remove; echo '1' | sudo tee /sys/bus/pci/rescan",
            "reserve it again",
        ],
    );
    let left = found_with(error, |facts| facts.host.stays_in_d0 = true, false);
    expect(&left, Check::Power, Level::Note, &["disable_idle_d3"]);
}

#[test]
fn power_displays_and_virtual_functions() {
    expect(&found(|f| f.power_state = Some("D3cold".to_owned())), Check::Power, Level::Note, &["wakes"]);
    expect(&found(|f| f.is_boot_display = true), Check::Display, Level::Note, &["console"]);
    let framed = found_with(|_| {}, |facts| facts.host.frame_buffers = vec![0xfe00_1000..0xfe00_2000], false);
    expect(&framed, Check::Display, Level::Note, &["initcall_blacklist=sysfb_init"]);
    let beside = found_with(|_| {}, |facts| facts.host.frame_buffers = vec![0xfe00_4000..0xfe00_5000], false);
    assert!(beside.iter().all(|finding| finding.check != Check::Display));
    expect(
        &found(|f| f.virtual_functions = 3),
        Check::VirtualFunctions,
        Level::Note,
        &["3 virtual functions"],
    );
    for (driver, level) in [("vfio-pci", Level::Problem), ("igb", Level::Ok)] {
        let findings = found(|f| f.physical = Some(member("0000:01:00.4", Some(driver))));
        let worst = findings.iter().map(|finding| finding.level).max();
        assert_eq!(worst, Some(level), "{findings:#?}");
    }
}

#[test]
fn bars_without_an_address_or_a_page() {
    let bar = |size| Resource { bar: 2, start: 0, size, is_unassigned: true, is_memory: true };
    for (size, level) in [(16 << 30, Level::Problem), (0, Level::Note)] {
        expect(
            &found(|f| f.resources.push(bar(size))),
            Check::Bars,
            level,
            &["BAR 2", "echo '1' | sudo tee /sys/bus/pci/rescan", "pci=realloc", "Above 4G Decoding"],
        );
    }
    expect(&found(|f| f.is_all_seen = false), Check::Bars, Level::Note, &["others than root"]);
    let shared = found(|f| {
        f.shown.as_mut().unwrap().trapped = vec![(0, 0, 0x100, Backing::Trapped(Reason::SubPage))];
    });
    expect(
        &shared,
        Check::Bars,
        Level::Note,
        &[
            "BAR 0, 0x0..0x100: trapped",
            "until the host boots again",
            "echo \"12@0000:01:00.0;$(cat /sys/bus/pci/resource_alignment)\" | sudo tee /sys/bus/pci/resource_alignment",
            "pci=resource_alignment=12@0000:01:00.0",
        ],
    );
}
