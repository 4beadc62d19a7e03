use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use ppt_files::ppt_aliases::PptAliases;

use super::fields::{Chosen, FieldsError};
use super::*;
use crate::host::reserve::meaning::AliasFile;

fn listed(dev: Option<&str>, ids: (&str, &str), path: &str) -> Listed {
    Listed {
        dev: dev.map(str::to_owned),
        path: Some(path.to_owned()),
        vendor: ids.0.to_owned(),
        device: ids.1.to_owned(),
        revision: "a1".to_owned(),
        ..Listed::default()
    }
}

fn columns(functions: &[Listed], fields: &[Field], height: usize) -> String {
    let mut out = Vec::new();
    table::columns(&mut out, functions, fields, height).unwrap();
    String::from_utf8(out).unwrap()
}

fn parsable(functions: &[Listed], fields: &[Field]) -> String {
    let mut out = Vec::new();
    table::parsable(&mut out, functions, fields).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(functions: &[Listed]) -> String {
    let mut out = Vec::new();
    json::devices(&mut out, functions).unwrap();
    String::from_utf8(out).unwrap()
}

const PORT: &str = "/pci@5e,0/pci8086,2030@0/pci8086,37c0@0/pci8086,37c5@3/pci15d9,37d2@0";

#[test]
fn the_default_columns_as_published() {
    let second = format!("{PORT},1");
    let functions = [
        listed(Some("/dev/ppt0"), ("8086", "37d2"), PORT),
        listed(Some("/dev/ppt1"), ("8086", "37d2"), &second),
    ];
    let expected = format!(
        "DEV        VENDOR DEVICE PATH\n\
         /dev/ppt0  8086   37d2   {PORT}\n\
         /dev/ppt1  8086   37d2   {PORT},1\n"
    );
    assert_eq!(columns(&functions, &Field::DEFAULT, 24), expected);
    let functions = [
        listed(Some("/dev/ppt0"), ("10de", "a65"), "/pci@0,0/display@0"),
        listed(None, ("10de", "be3"), "/pci@0,0/pci1462,2291@0,1"),
    ];
    let expected = "DEV        VENDOR DEVICE PATH\n\
                    /dev/ppt0  10de   a65    /pci@0,0/display@0\n\
                    --         10de   be3    /pci@0,0/pci1462,2291@0,1\n";
    assert_eq!(columns(&functions, &Field::DEFAULT, 24), expected);
}

#[test]
fn the_state_is_a_column_of_its_own() {
    let used = Listed { state: Some("used:web".to_owned()), ..listed(None, ("10de", "1db4"), "/") };
    let functions = [used, listed(None, ("8086", "10d3"), "/")];
    let fields = Chosen::parse("state,device", false).unwrap().fields;
    let expected = "STATE               DEVICE\nused:web            1db4\n--                  10d3\n";
    assert_eq!(columns(&functions, &fields, 24), expected);
    assert_eq!(parsable(&functions, &fields), "used\\:web:1db4\n--:10d3\n");
    assert!(!json(&functions).contains("used"), "pptadm's JSON has no such key");
    assert!(!Chosen::parse("all", false).unwrap().fields.contains(&Field::State));
}

#[test]
fn all_columns_have_their_widths() {
    let function = Listed {
        subvendor: Some("10de".to_owned()),
        subdevice: Some("1214".to_owned()),
        label: Some("NVIDIA Corporation GV100GL".to_owned()),
        ..listed(None, ("10de", "1db4"), "/pci@0,0")
    };
    let line = |values: [&str; 8]| {
        let [dev, vendor, device, subvendor, subdevice, rev, path, label] = values;
        format!("{dev:11}{vendor:7}{device:7}{subvendor:10}{subdevice:10}{rev:4}{path:50}{label}\n")
    };
    let heading = line(["DEV", "VENDOR", "DEVICE", "SUBVENDOR", "SUBDEVICE", "REV", "PATH", "LABEL"]);
    let row = line(["--", "10de", "1db4", "10de", "1214", "a1", "/pci@0,0", "NVIDIA Corporation GV100GL"]);
    assert_eq!(columns(&[function], &Field::ALL, 24), heading + &row);
    assert_eq!(Field::Label.width(), 60);
    assert_eq!(columns(&[], &Field::ALL, 24), "", "no rows, no heading");
    let bare = listed(None, ("1", "2"), "/");
    assert_eq!(
        columns(&[bare], &[Field::Label, Field::Subvendor], 24).lines().nth(1),
        Some(&*format!("{:60}--", "--"))
    );
}

#[test]
fn what_is_too_long_makes_the_next_columns_narrower() {
    for (dev, vendor, expected) in [
        ("/dev/ppt10", "8086", "/dev/ppt10 8086   37d2   /\n"),
        // As long as the column and its gap.
        ("/dev/ppt100", "8086", "/dev/ppt100 8086  37d2   /\n"),
        ("/dev/vfio/12", "8086", "/dev/vfio/12 8086 37d2   /\n"),
        // There is no room left to catch up in the first, so that the second does.
        ("/dev/vfio/123", "8086", "/dev/vfio/123 8086 37d2  /\n"),
        ("/dev/vfio/devices/vfio0", "8086", "/dev/vfio/devices/vfio0 8086 37d2 /\n"),
        ("/dev/vfio/12", "1", "/dev/vfio/12 1    37d2   /\n"),
    ] {
        let function = listed(Some(dev), (vendor, "37d2"), "/");
        assert_eq!(
            columns(&[function], &Field::DEFAULT, 24).lines().nth(1).unwrap(),
            expected.trim_end(),
            "{dev}"
        );
    }
}

#[test]
fn the_heading_comes_again_when_the_terminal_is_full() {
    let functions: Vec<Listed> = (0..50).map(|n| listed(None, ("1", &format!("{n:x}")), "/")).collect();
    for (height, expected) in
        [(24, vec![0, 24, 48]), (5, (0..63).step_by(5).collect()), (1, (0..100).step_by(2).collect())]
    {
        let text = columns(&functions, &[Field::Device, Field::Path], height);
        let headings: Vec<usize> = text
            .lines()
            .enumerate()
            .filter_map(|(number, line)| line.starts_with("DEVICE ").then_some(number))
            .collect();
        assert_eq!(headings, expected, "{height} lines");
        assert_eq!(text.lines().count(), 50 + expected.len());
    }
    assert_eq!(columns(&functions[..23], &Field::DEFAULT, 24).matches("DEV ").count(), 1);
}

#[test]
fn colons_and_backslashes_are_escaped_between_colons() {
    let function = Listed {
        label: Some(r"A:B\C".to_owned()),
        ..listed(Some("/dev/ppt0"), ("8086", "37d2"), "/pci@0,0/display@0")
    };
    let functions = std::slice::from_ref(&function);
    for (fields, expected) in [
        (&[Field::Dev, Field::Label][..], "/dev/ppt0:A\\:B\\\\C\n"),
        (&[Field::Label, Field::Subvendor, Field::Rev], "A\\:B\\\\C:--:a1\n"),
        (&[Field::Label], "A:B\\C\n"),
        (&[Field::Subvendor], "--\n"),
        (&[Field::Path, Field::Path], "/pci@0,0/display@0:/pci@0,0/display@0\n"),
    ] {
        assert_eq!(parsable(functions, fields), expected);
    }
    assert_eq!(parsable(&[], &[Field::Dev]), "");
}

#[test]
fn fields_are_chosen_in_any_case() {
    let chosen = |fields: &[Field], ignored: &[&str]| {
        let ignored = ignored.iter().map(|name| name.to_string()).collect();
        Ok(Chosen { fields: fields.to_vec(), ignored })
    };
    for (text, is_parsable, expected) in [
        ("dev", true, chosen(&[Field::Dev], &[])),
        ("PATH,dev,Dev", false, chosen(&[Field::Path, Field::Dev, Field::Dev], &[])),
        (",rev,,label,", true, chosen(&[Field::Rev, Field::Label], &[])),
        ("all", false, chosen(&Field::ALL, &[])),
        ("ALL", false, chosen(&Field::ALL, &[])),
        ("all,dev", false, chosen(&[Field::Dev], &["all"])),
        ("dev,nope, rev", false, chosen(&[Field::Dev], &["nope", " rev"])),
        ("nope", false, Err(FieldsError::NoneValid)),
        (",", true, Err(FieldsError::NoneValid)),
        ("", false, Err(FieldsError::NoneValid)),
        ("nope", true, Err(FieldsError::NoneValid)),
        ("", true, Err(FieldsError::NotSpecified)),
        ("All", true, Err(FieldsError::All)),
        ("dev,nope", true, Err(FieldsError::Unknown(vec!["nope".to_owned()]))),
    ] {
        assert_eq!(Chosen::parse(text, is_parsable), expected, "{text:?}");
    }
}

#[test]
fn messages_about_fields_are_pptadms() {
    let warning = |text| Chosen::parse(text, false).unwrap().warning();
    assert_eq!(warning("dev"), None);
    assert_eq!(warning("dev,x").as_deref(), Some("ignoring unknown output field: `x'"));
    assert_eq!(warning("dev,x,y").as_deref(), Some("ignoring unknown output fields: `x' `y'"));
    for (text, message) in [
        ("all", "output field `all' invalid in parsable mode"),
        ("", "output fields must be specified in parsable mode"),
        ("x", "no valid output fields"),
        ("x,dev", "unknown output field: `x'"),
        ("x,dev,y", "unknown output fields: `x' `y'"),
    ] {
        assert_eq!(Chosen::parse(text, true).unwrap_err().to_string(), message);
    }
}

#[test]
fn json_has_its_layout_and_order() {
    let full = Listed {
        subvendor: Some("8086".to_owned()),
        subdevice: Some("1".to_owned()),
        label: Some("Intel \"X\" \\ ré\u{1}".to_owned()),
        ..listed(Some("/dev/ppt0"), ("8086", "1528"), "/pci@0,0")
    };
    let bare = listed(None, ("10de", "a65"), "/pci@0,0/display@0");
    let expected = concat!(
        "{\n\t\"devices\": [\n",
        "\t\t{\"dev\":\"/dev/ppt0\",\"path\":\"/pci@0,0\",\"vendor-id\":\"8086\",\"device-id\":\"1528\",",
        "\"revision-id\":\"a1\",\"subsystem-vendor-id\":\"8086\",\"subsystem-id\":\"1\",",
        "\"label\":\"Intel \\\"X\\\" \\\\ r\\u00e9\\u0001\"},\n",
        "\t\t{\"path\":\"/pci@0,0/display@0\",\"vendor-id\":\"10de\",\"device-id\":\"a65\",\"revision-id\":\"a1\"}",
        "\n\t]\n}\n",
    );
    assert_eq!(json(&[full, bare]), expected);
    assert_eq!(json(&[]), "{\n\t\"devices\": [\n\n\t]\n}\n");
}

/// Functions below a root port and beside it, as sysfs has them.
struct Sysfs(tempfile::TempDir);

impl Sysfs {
    fn new() -> Sysfs {
        let sysfs = Sysfs(tempfile::tempdir().unwrap());
        fs::create_dir(sysfs.devices()).unwrap();
        sysfs
    }

    fn devices(&self) -> PathBuf {
        self.0.path().join("bus")
    }

    /// `place` is its directory below the root bus; ids are vendor, device, subvendor, subdevice.
    fn add(
        &self,
        place: &str,
        ids: [u16; 4],
        header: u8,
        driver: Option<&str>,
        group: Option<u32>,
    ) -> PathBuf {
        let directory = self.0.path().join("pci0000:00").join(place);
        fs::create_dir_all(&directory).unwrap();
        for (file, id) in ["vendor", "device", "subsystem_vendor", "subsystem_device"].into_iter().zip(ids) {
            fs::write(directory.join(file), format!("{id:#06x}\n")).unwrap();
        }
        fs::write(directory.join("revision"), "0x0b\n").unwrap();
        if header & 0x7f != 0 {
            fs::write(directory.join("secondary_bus_number"), "1\n").unwrap();
        }
        if let Some(driver) = driver {
            symlink(Path::new("/drivers").join(driver), directory.join("driver")).unwrap();
        }
        if let Some(group) = group {
            let groups = self.0.path().join(format!("groups/{group}"));
            fs::create_dir_all(&groups).unwrap();
            symlink(groups, directory.join("iommu_group")).unwrap();
        }
        symlink(&directory, self.devices().join(directory.file_name().unwrap())).unwrap();
        directory
    }

    fn list(&self, selection: &Selection) -> Listing {
        let path_of = |address: HostAddress| match address.slot().device() {
            0x1e => Err("no way there"),
            _ => Ok(format!("/at/{address}")),
        };
        let state_of =
            |function: &SysfsFunction| Some(format!("used:{:x}", function.address.slot().device()));
        Listing::of(&self.devices(), selection, path_of, state_of).unwrap()
    }
}

fn all(matches: Option<&str>) -> Selection {
    let path = PathBuf::from("/etc/ppt_matches");
    let lookup = vec![PathBuf::from("/system/boot/etc/ppt_matches"), path.clone()];
    Selection::All { matches: matches.map(|text| (path, PptMatches::parse(text.as_bytes()))), lookup }
}

fn remarks(listing: &Listing) -> Vec<String> {
    listing.remarks.iter().map(ToString::to_string).collect()
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing.functions.iter().map(|function| function.path.as_deref().unwrap_or("--")).collect()
}

#[test]
fn functions_are_listed_as_sysfs_has_them() {
    let sysfs = Sysfs::new();
    sysfs.add("0000:00:01.0", [0x8086, 0x3420, 0x1af4, 0x1100], 1, Some("pcieport"), Some(1));
    sysfs.add("0000:00:01.0/0000:01:00.0", [0x8086, 0x10d3, 0x8086, 0], 0, Some("vfio-pci"), Some(10));
    sysfs.add("0000:00:02.0", [0x8086, 0x10d3, 0, 0], 0x80, Some("vfio-pci"), Some(2));
    sysfs.add("0000:00:03.0", [0x5350, 1, 0x11, 0x46], 0, Some("mlx5_vfio_pci"), Some(3));
    let bridge = sysfs.add("0000:00:04.0", [0x8086, 0x1, 0, 0], 1, Some("vfio-pci"), Some(4));
    fs::create_dir_all(bridge.join("vfio-dev/vfio7")).unwrap();
    let held = sysfs.add("0000:00:1e.0", [0x1234, 0x1111, 0, 0], 0, Some("vfio-pci"), Some(12));
    fs::write(held.join("iommu_group/name"), "vfio-noiommu\n").unwrap();
    sysfs.add("0000:00:1f.0", [0x8086, 0x2918, 0x1af4, 0x1100], 0, Some("lpc_ich"), None);

    let bound = sysfs.list(&Selection::Bound);
    let devs: Vec<_> = bound.functions.iter().map(|function| function.dev.as_deref().unwrap()).collect();
    let by_text =
        ["/dev/vfio/10", "/dev/vfio/2", "/dev/vfio/3", "/dev/vfio/devices/vfio7", "/dev/vfio/noiommu-12"];
    assert_eq!(devs, by_text, "sorted as texts");
    assert_eq!(remarks(&bound), ["0000:00:1e.0 is listed without a path: no way there"]);
    assert_eq!(
        bound.functions[0],
        Listed {
            dev: Some("/dev/vfio/10".to_owned()),
            path: Some("/at/0000:01:00.0".to_owned()),
            vendor: "8086".to_owned(),
            device: "10d3".to_owned(),
            subvendor: Some("8086".to_owned()),
            subdevice: Some("0".to_owned()),
            revision: "b".to_owned(),
            label: Some("Intel Corporation 82574L Gigabit Network Connection".to_owned()),
            state: Some("used:0".to_owned()),
        }
    );
    assert_eq!((&bound.functions[1].subvendor, &bound.functions[1].subdevice), (&None, &None));
    assert_eq!(bound.functions[2].label, None);

    let everything = sysfs.list(&all(Some("pci8086\n")));
    let tree = [
        "/at/0000:00:01.0",
        "/at/0000:01:00.0",
        "/at/0000:00:02.0",
        "/at/0000:00:03.0",
        "/at/0000:00:04.0",
        "--",
        "/at/0000:00:1f.0",
    ];
    assert_eq!(paths(&everything), tree, "as the tree is walked");
    let port = &everything.functions[0];
    assert_eq!((&port.dev, port.subvendor.as_deref()), (&None, Some("1af4")), "not bound, and a bridge");
    assert_eq!(everything.functions[4].subvendor, None);
    let by_path = sysfs.list(&all(Some("/at/0000:00:1f.0\n")));
    assert_eq!(paths(&by_path).last(), Some(&"/at/0000:00:1f.0"));
    assert_eq!(by_path.functions.len(), 6);
}

#[test]
fn an_empty_list_says_why() {
    let sysfs = Sysfs::new();
    let nowhere = Listing::of(Path::new("/nowhere"), &all(None), |_| Err(""), |_| None).unwrap();
    assert_eq!(remarks(&nowhere), ["the list is empty: /nowhere has no PCI functions"]);
    let none = format!("the list is empty: {} has no PCI functions", sysfs.devices().display());
    assert_eq!(remarks(&sysfs.list(&Selection::Bound)), [none]);

    sysfs.add("0000:00:02.0", [0x8086, 0x10d3, 0, 0], 0, Some("e1000e"), None);
    let nothing = "the list is empty: of 1 PCI functions none is bound to a VFIO driver such as vfio-pci";
    let said = remarks(&sysfs.list(&Selection::Bound));
    assert_eq!(said[0], nothing);
    assert!(said[1].starts_with("no IOMMU groups: ") && said.len() == 2, "{said:?}");

    sysfs.add("0000:00:03.0", [0x8086, 0x10d3, 0, 0], 0, None, Some(5));
    let nothing = nothing.replace("of 1", "of 2");
    assert_eq!(remarks(&sysfs.list(&Selection::Bound)), [nothing.as_str()]);
    let absent = "nothing says which functions could be bound: /system/boot/etc/ppt_matches and /etc/ppt_matches are not there";
    assert_eq!(remarks(&sysfs.list(&all(None))), [nothing.as_str(), absent]);
    assert_eq!(
        remarks(&sysfs.list(&all(Some("pci10de,a65\nPCI8086\n")))),
        [
            "/etc/ppt_matches: line 2: 'PCI8086': ignored: pci and pciex are written in lower case",
            nothing.as_str(),
            "/etc/ppt_matches: none of its 1 entries matches a function of this host",
        ]
    );
}

#[test]
fn an_empty_list_says_what_is_reserved() {
    let file = |text: &str| AliasFile {
        path: "/etc/ppt_aliases".into(),
        aliases: PptAliases::parse(text.as_bytes()),
    };
    for (text, expected) in [
        ("", vec![]),
        ("# none\n", vec![]),
        (
            "ppt \"pci8086,1\" \"/pci@0,0/display@2\"\nnvme \"pci8086,2\"\n",
            vec![
                "/etc/ppt_aliases: line 2: names driver 'nvme', not ppt; if the host has such a driver, it keeps the device",
                "/etc/ppt_aliases: 2 aliases are reserved: slotpass apply binds the functions that they mean, or says why not",
            ],
        ),
        (
            "ppt \"pci8086,01\"\n",
            vec![
                "/etc/ppt_aliases: line 1: 'pci8086,01' binds nothing: '01': ids are compared as text, without leading zeros",
            ],
        ),
    ] {
        let said: Vec<String> = of_aliases(&file(text)).iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }
    assert_eq!(of_aliases(&file(&"ppt\n".repeat(1000))).len(), 21);
}

#[test]
fn lines_that_are_ignored_are_named_but_not_without_end() {
    let sysfs = Sysfs::new();
    sysfs.add("0000:00:02.0", [0x8086, 0x10d3, 0, 0], 0, None, None);
    let listing = sysfs.list(&all(Some(&("x\n".repeat(1000) + "pci8086\n"))));
    assert_eq!(listing.functions.len(), 1);
    let said = remarks(&listing);
    assert_eq!((said.len(), said[20].as_str()), (21, "/etc/ppt_matches: 980 more lines like these"));
}

#[test]
fn what_sysfs_does_not_say_does_no_harm() {
    let sysfs = Sysfs::new();
    let directory = sysfs.add("0000:00:02.0", [0x8086, 1, 0, 0], 0, Some("vfio-pci"), None);
    let listing = sysfs.list(&Selection::Bound);
    assert_eq!(listing.functions[0].dev, None, "bound, without a group or a file");
    fs::write(directory.join("vendor"), "garbage").unwrap();
    assert!(sysfs.list(&Selection::Bound).functions.is_empty());
    symlink("/nowhere", sysfs.devices().join("0000:00:05.0")).unwrap();
    fs::write(sysfs.devices().join("not a function"), "").unwrap();
    assert!(sysfs.list(&all(Some("pci8086"))).functions.is_empty());
}

/// What a program makes of a line of the parsable form.
fn split(line: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => values.push(String::new()),
            '\\' => values.last_mut().unwrap().extend(characters.next()),
            _ => values.last_mut().unwrap().push(character),
        }
    }
    values
}

proptest! {
    #[test]
    fn programs_get_back_what_there_is(label in r"[a-z:\\ ]{0,12}", path in r"[/a-z0-9@,:\\]{0,12}") {
        let function = Listed { label: Some(label.clone()), ..listed(None, ("1", "2"), &path) };
        let line = parsable(std::slice::from_ref(&function), &[Field::Label, Field::Dev, Field::Path]);
        prop_assert_eq!(split(line.trim_end_matches('\n')), [label.clone(), "--".to_owned(), path.clone()]);
        let text = json(&[function]);
        prop_assert!(text.is_ascii());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value["devices"][0]["label"].as_str(), Some(label.as_str()));
        prop_assert_eq!(value["devices"][0]["path"].as_str(), Some(path.as_str()));
    }

    /// Columns are in line again as soon as there is room.
    #[test]
    fn what_fits_is_in_line(dev in "[a-z]{1,10}", vendor in "[0-9a-f]{1,4}", device in "[0-9a-f]{1,4}") {
        let text = columns(&[listed(Some(&dev), (&vendor, &device), "/")], &Field::DEFAULT, 24);
        prop_assert_eq!(text.lines().nth(1).unwrap(), format!("{dev:11}{vendor:7}{device:7}/"));
    }
}
