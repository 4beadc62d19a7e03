use proptest::prelude::*;

use super::*;

fn entry(driver: &str, aliases: &[&str]) -> Option<Entry> {
    Some(Entry { driver: driver.into(), aliases: aliases.iter().map(|alias| (*alias).into()).collect() })
}

#[test]
fn lines_are_taken_as_the_kernel_takes_them() {
    let unexpected = |text: &str| Reason::Unexpected { text: text.into() };
    let no_alias = |driver: &str| Reason::NoAlias { driver: driver.into() };
    let comma = |text: &str| Reason::EndsWithComma { text: text.into() };
    let other = |driver: &str| Reason::OtherDriver { driver: driver.into() };
    let id = |alias: &str, id: &str, fault| Reason::Id { alias: alias.into(), id: id.into(), fault };
    let path = |alias: &str, fault| Reason::Path { alias: alias.into(), fault };
    let no_name = |alias: &str| Reason::NoName { alias: alias.into() };
    for (line, expected, reasons) in [
        (r#"ppt "pciex8086,37d2""#, entry("ppt", &["pciex8086,37d2"]), vec![]),
        (
            r#"ppt "/pci@0,0/pci8086,151@1/display@0""#,
            entry("ppt", &["/pci@0,0/pci8086,151@1/display@0"]),
            vec![],
        ),
        (r#"ppt "pci8086,1" "pci8086,2" # two"#, entry("ppt", &["pci8086,1", "pci8086,2"]), vec![]),
        (r#"  "ppt"	"pci8086,1528.8086.1""#, entry("ppt", &["pci8086,1528.8086.1"]), vec![]),
        (
            r#"ppt "pci15d9,37d2,s" "pci8086,37d2,p""#,
            entry("ppt", &["pci15d9,37d2,s", "pci8086,37d2,p"]),
            vec![],
        ),
        ("ppt \"pci8086,1\"\r", entry("ppt", &["pci8086,1"]), vec![]),
        (
            r#"ppt "pciclass,0300" "pciexclass,030000""#,
            entry("ppt", &["pciclass,0300", "pciexclass,030000"]),
            vec![],
        ),
        (r#"ppt "\160ci8086\,1""#, entry("ppt", &["pci8086,1"]), vec![]),
        ("ppt pciex10de,be3", entry("ppt", &["pciex10de,be3"]), vec![]),
        ("ppt pciex10de\\,be3", entry("ppt", &["pciex10de,be3"]), vec![]),
        ("", None, vec![]),
        ("# comment", None, vec![]),
        (" \t # comment", None, vec![]),
        // Without quotes digits are numbers, and only what follows them is a name.
        ("ppt pciex8086,37d2", entry("ppt", &["pciex8086,d2"]), vec![unexpected("37")]),
        ("ppt pciex8086,1528", None, vec![unexpected("1528"), comma("pciex8086,"), no_alias("ppt")]),
        ("ppt,", None, vec![comma("ppt,")]),
        (r#"ppt "pci8086,1" "pci8086,","#, entry("ppt", &["pci8086,1"]), vec![comma("pci8086,,")]),
        (r#"ppt "pci8086","1""#, entry("ppt", &["pci8086,1"]), vec![]),
        (
            "ppt pci,,a",
            entry("ppt", &["pci,,a"]),
            vec![unexpected(","), id("pci,,a", "", IdFault::NotHexadecimal)],
        ),
        (
            "ppt /pci@0",
            entry("ppt", &["pci"]),
            vec![unexpected("/"), unexpected("@"), unexpected("0"), no_name("pci")],
        ),
        ("ppt", None, vec![no_alias("ppt")]),
        ("ppt # nothing", None, vec![no_alias("ppt")]),
        (r#""pci8086,1""#, None, vec![no_alias("pci8086,1")]),
        (r#"nvme "pci8086,1""#, entry("nvme", &["pci8086,1"]), vec![other("nvme")]),
        (r#"PPT "pci8086,1""#, entry("PPT", &["pci8086,1"]), vec![other("PPT")]),
        (
            r#"ppt "pci8086,1" "pci8086,2"#,
            entry("ppt", &["pci8086,1"]),
            vec![Reason::OpenQuote { text: "pci8086,2".into() }],
        ),
        (r#", ppt "pci8086,1""#, entry("ppt", &["pci8086,1"]), vec![unexpected(",")]),
        (r#"ppt """#, entry("ppt", &[""]), vec![Reason::Empty]),
        (
            r#"ppt "pciex10DE,a65""#,
            entry("ppt", &["pciex10DE,a65"]),
            vec![id("pciex10DE,a65", "10DE", IdFault::UpperCase)],
        ),
        (
            r#"ppt "pciex10de,0a65""#,
            entry("ppt", &["pciex10de,0a65"]),
            vec![id("pciex10de,0a65", "0a65", IdFault::Padded)],
        ),
        (r#"ppt "pciex8086""#, entry("ppt", &["pciex8086"]), vec![no_name("pciex8086")]),
        (r#"ppt "pciclass,300""#, entry("ppt", &["pciclass,300"]), vec![no_name("pciclass,300")]),
        (
            r#"ppt "pci8086,37d2.15d9.37d2,s" "pciex8086,37d2,p" "pci8086,1,s""#,
            entry("ppt", &["pci8086,37d2.15d9.37d2,s", "pciex8086,37d2,p", "pci8086,1,s"]),
            ["pci8086,37d2.15d9.37d2,s", "pciex8086,37d2,p"]
                .map(|alias| Reason::Suffix { alias: alias.into() })
                .into(),
        ),
        (
            r#"ppt "pci8086,1528.8086" "pciex8086,1.2.3.100" "pci8086,1.ff" "pci8086,1.8086.1000""#,
            entry(
                "ppt",
                &["pci8086,1528.8086", "pciex8086,1.2.3.100", "pci8086,1.ff", "pci8086,1.8086.1000"],
            ),
            [("pci8086,1528.8086", "8086"), ("pciex8086,1.2.3.100", "100")]
                .map(|(alias, id)| Reason::Revision { alias: alias.into(), id: id.into() })
                .into(),
        ),
        (r#"ppt "pci1,2.3.4.5.6""#, entry("ppt", &["pci1,2.3.4.5.6"]), vec![no_name("pci1,2.3.4.5.6")]),
        (
            r#"ppt "/devices/pci@0,0/display@2""#,
            entry("ppt", &["/devices/pci@0,0/display@2"]),
            vec![Reason::DevicesPrefix { alias: "/devices/pci@0,0/display@2".into() }],
        ),
        (
            r#"ppt "/pci@0,0/display@2:ppt""#,
            entry("ppt", &["/pci@0,0/display@2:ppt"]),
            vec![Reason::MinorName { alias: "/pci@0,0/display@2:ppt".into() }],
        ),
        (
            r#"ppt "/pci@0,0/isa@1F""#,
            entry("ppt", &["/pci@0,0/isa@1F"]),
            vec![path("/pci@0,0/isa@1F", PathFault::UpperCase { part: "isa@1F".into() })],
        ),
        (
            r#"ppt "/pci@00,0/isa@1f""#,
            entry("ppt", &["/pci@00,0/isa@1f"]),
            vec![path("/pci@00,0/isa@1f", PathFault::Padded { part: "pci@00,0".into() })],
        ),
        (
            r#"ppt "/sys/bus/pci/devices/0000:01:00.0""#,
            entry("ppt", &["/sys/bus/pci/devices/0000:01:00.0"]),
            vec![path("/sys/bus/pci/devices/0000:01:00.0", PathFault::File)],
        ),
    ] {
        let aliases = PptAliases::parse(line.as_bytes());
        let found: Vec<Reason> = aliases.findings().iter().map(|finding| finding.reason.clone()).collect();
        assert_eq!((aliases.entries().next().cloned(), found), (expected, reasons), "{line}");
    }
}

#[test]
fn the_first_of_equal_aliases_counts() {
    let aliases = PptAliases::parse(b"ppt \"pci8086,1\"\n# again\nppt \"pci8086,1\"\n");
    let findings: Vec<String> = aliases.findings().iter().map(ToString::to_string).collect();
    assert_eq!(findings, ["line 3: 'pci8086,1' is ignored: line 1 has it already"]);
    assert_eq!((aliases.lines().len(), &aliases.lines()[1].text[..]), (3, &b"# again"[..]));
    for (file, said) in [
        (
            "ppt \"pci8086,1\" \"pci8086,2\" \"pci8086,1\"\n",
            "line 1: 'pci8086,1' is ignored: line 1 has it already",
        ),
        ("ppt \"pci8086,1\"\nnvme \"pci8086,1\"\n", "line 2: 'pci8086,1' is ignored: line 1 has it already"),
        ("pptt \"pci8086,1\"\npptt \"pci8086,1\"\n", "line 2: 'pci8086,1' is ignored: line 1 has it already"),
        // The kernel skips a line whose driver it does not have.
        (
            "pptt \"pci8086,1\"\nppt \"pci8086,1\"\n",
            "line 2: 'pci8086,1' is ignored if the host has driver 'pptt': line 1 has it already",
        ),
        (
            "pptt \"pci8086,1\"\nppt \"pci8086,1\"\nppt \"pci8086,1\"\n",
            "line 3: 'pci8086,1' is ignored: line 2 has it already",
        ),
        (
            "pptt \"pci8086,1\"\n",
            "line 1: names driver 'pptt', not ppt; if the host has such a driver, it keeps the device",
        ),
    ] {
        let aliases = PptAliases::parse(file.as_bytes());
        assert_eq!(aliases.findings().last().map(ToString::to_string).as_deref(), Some(said), "{file}");
    }
}

#[test]
fn names_have_a_longest() {
    let line = |length: usize| format!("ppt \"/pci@0,0/{}@1\"", "a".repeat(length - 11));
    assert!(PptAliases::parse(line(1023).as_bytes()).findings().is_empty());
    let too_long = PptAliases::parse(line(1024).as_bytes());
    assert!(matches!(too_long.findings()[0].reason, Reason::TooLong { .. }));
    assert_eq!(too_long.entries().count(), 0);
}

proptest! {
    #[test]
    fn any_bytes_are_lines(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let aliases = PptAliases::parse(&bytes);
        let mut again: Vec<u8> = aliases.lines().iter().flat_map(|l| [&l.text[..], b"\n"].concat()).collect();
        if !bytes.ends_with(b"\n") {
            again.pop();
        }
        prop_assert_eq!(again, bytes, "comments and order are kept");
        prop_assert!(aliases.findings().is_sorted_by_key(|finding| finding.line));
    }

    #[test]
    fn names_in_quotes_come_out_as_they_are(alias in r"[^\x00\n]{1,40}") {
        let escaped: String = alias
            .chars()
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        let aliases = PptAliases::parse(format!("ppt \"{escaped}\"").as_bytes());
        let entry = aliases.entries().next().unwrap();
        prop_assert_eq!(&entry.aliases[..], &[alias.into_bytes()]);
    }

    #[test]
    fn what_has_no_finding_has_an_alias_for_ppt(line in r#"[ptx]{0,3} ?"?[pciex/]{0,5}[0-9a-fA-F,.]{0,9}"?[ #]?"#) {
        let aliases = PptAliases::parse(line.as_bytes());
        let blank = line.trim_start().is_empty() || line.trim_start().starts_with('#');
        if aliases.findings().is_empty() && !blank {
            prop_assert_eq!(&aliases.entries().next().unwrap().driver[..], b"ppt");
        }
    }
}
