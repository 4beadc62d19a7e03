use std::ffi::CString;
use std::fs;

use proptest::prelude::*;

use super::*;

fn one(line: &str) -> (Option<Entry>, Option<Reason>) {
    let matches = PptMatches::parse(format!("{line}\n").as_bytes());
    let mut findings = matches.findings().iter().map(|finding| finding.reason.clone());
    let found = (matches.entries().next().cloned(), findings.next());
    assert_eq!((matches.lines().len(), findings.next()), (1, None), "{line:?}");
    found
}

fn ids(vendor: &str, device: &str) -> Option<Entry> {
    let device = (!device.is_empty()).then(|| device.into());
    Some(Entry::Ids { vendor: vendor.into(), device })
}

fn at(path: &str) -> Option<Entry> {
    Some(Entry::Path(path.into()))
}

#[test]
fn lines_are_taken_as_libppt_takes_them() {
    let vendor = |id: &str, fault| Some(Reason::Vendor { id: id.into(), fault });
    let device = |id: &str, fault| Some(Reason::Device { id: id.into(), fault });
    let whole = |rest: &str| Some(Reason::WholeVendor { rest: rest.into() });
    let path = |fault| Some(Reason::Path(fault));
    let rest = |rest: &str| Some(Reason::Rest { rest: rest.into() });
    for (line, entry, reason) in [
        ("pciex10de,a65", ids("10de", "a65"), None),
        ("pci10de,15f0", ids("10de", "15f0"), None),
        ("pciex8086", ids("8086", ""), None),
        ("pci8086", ids("8086", ""), None),
        ("pci11", ids("11", ""), None),
        ("pciex11", ids("11", ""), None),
        ("pci8086,1528\r", ids("8086", "1528"), None),
        ("pci8086\r", ids("8086", ""), None),
        ("pci10de,a65 # sound", ids("10de", "a65"), None),
        ("pci8086 # all of Intel's", ids("8086", ""), None),
        ("pci 8086, 1528", ids("8086", "1528"), None),
        ("/pci@0,0/pci8086,151@1/display@0", at("/pci@0,0/pci8086,151@1/display@0"), None),
        ("", None, None),
        (" \t\r", None, None),
        ("# comment", None, None),
        ("  # comment", None, None),
        ("pci10DE,a65", ids("10DE", "a65"), vendor("10DE", IdFault::UpperCase)),
        ("pci10de,A65", ids("10de", "A65"), device("A65", IdFault::UpperCase)),
        ("pci10de,0a65", ids("10de", "0a65"), device("0a65", IdFault::Padded)),
        ("pci001b", ids("001b", ""), vendor("001b", IdFault::Padded)),
        ("pcixyzw", ids("xyzw", ""), vendor("xyzw", IdFault::NotHexadecimal)),
        ("pciex", ids("ex", ""), vendor("ex", IdFault::NotHexadecimal)),
        ("pci11,46", ids("11,4", ""), Some(Reason::ShortVendor)),
        ("pciex11,46", ids("ex11", "46"), Some(Reason::ShortVendor)),
        ("pciex111,46", ids("111,", ""), Some(Reason::ShortVendor)),
        ("pciclass,0300", ids("clas", ""), Some(Reason::Class)),
        ("pciexclass,030000", ids("clas", ""), Some(Reason::Class)),
        ("pci8086,", ids("8086", ""), whole(",")),
        ("pciex8086,", ids("8086", ""), whole(",")),
        ("pci8086 ,1528", ids("8086", ""), whole(" ,1528")),
        ("pci8086.1528", ids("8086", ""), whole(".1528")),
        ("pci80861528", ids("8086", ""), whole("1528")),
        ("pci8086,1528.8086.1", ids("8086", "1528"), rest(".8086.1")),
        ("pci8086,15281", ids("8086", "1528"), rest("1")),
        ("pci10de,a65.1", ids("10de", "a65."), device("a65.", IdFault::NotHexadecimal)),
        ("PCI10de,a65", None, Some(Reason::UpperCasePrefix)),
        (" pci10de,a65", None, Some(Reason::LeadingBlank)),
        ("\t/pci@0,0/display@2", None, Some(Reason::LeadingBlank)),
        ("pci", None, Some(Reason::NoEntry)),
        ("10de,a65", None, Some(Reason::NoEntry)),
        ("0000:01:00.0", None, Some(Reason::NoEntry)),
        ("\"pci10de,a65\"", None, Some(Reason::NoEntry)),
        ("/pci@0,0/display@2\r", at("/pci@0,0/display@2\r"), Some(Reason::CarriageReturn)),
        ("/pci@0,0/display@2 # GPU", at("/pci@0,0/display@2 # GPU"), Some(Reason::BlankInPath)),
        ("/devices/pci@0,0/display@2", at("/devices/pci@0,0/display@2"), Some(Reason::DevicesPrefix)),
        (
            "/pci@0,0/display@2:ppt",
            at("/pci@0,0/display@2:ppt"),
            Some(Reason::MinorName { minor: ":ppt".into() }),
        ),
        (
            "/pci@0,0/display@2:ppt/isa@1",
            at("/pci@0,0/display@2:ppt/isa@1"),
            Some(Reason::Path(PathFault::Part { part: "display@2:ppt".into() })),
        ),
        ("/sys/bus/pci/devices/0000:01:00.0", at("/sys/bus/pci/devices/0000:01:00.0"), path(PathFault::File)),
        ("/dev/vfio/3", at("/dev/vfio/3"), path(PathFault::File)),
        (
            "/pci@0,0/pci8086,151@1F/display@0",
            at("/pci@0,0/pci8086,151@1F/display@0"),
            path(PathFault::UpperCase { part: "pci8086,151@1F".into() }),
        ),
        (
            "/pci@0,0/isa@1f,0",
            at("/pci@0,0/isa@1f,0"),
            path(PathFault::FunctionZero { part: "isa@1f,0".into() }),
        ),
        ("pci10de,a65\0pci8086", ids("10de", "a65"), Some(Reason::Nul)),
    ] {
        assert_eq!(one(line), (entry, reason), "{line:?}");
    }
    let long = format!("/{}", "a".repeat(LONGEST_PATH));
    assert_eq!(one(&long), (at(&long[..LONGEST_PATH]), Some(Reason::LongPath)));
}

#[test]
fn findings_have_the_number_and_the_reason() {
    let file =
        b"# mine\npci10de,a65\n\npciex10de,a65\nPCI8086\n pci8086\nx\x1b[2J\n/pci@0,0/a@1\n/pci@0,0/a@1\n";
    let matches = PptMatches::parse(file);
    let findings: Vec<String> = matches.findings().iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        [
            "line 4: 'pciex10de,a65': says the same as line 2",
            "line 5: 'PCI8086': ignored: pci and pciex are written in lower case",
            "line 6: ' pci8086': ignored: an entry starts at the beginning of the line",
            "line 7: 'x\\u{1b}[2J': ignored: it is neither pciVVVV,DDDD nor pciVVVV nor a path",
            "line 9: '/pci@0,0/a@1': says the same as line 8",
        ]
    );
    assert_eq!(matches.lines()[0].text, b"# mine");
    assert_eq!(matches.lines().len(), 9);
}

#[test]
fn what_matches() {
    let path = "/pci@0,0/pci8086,151@1/display@0";
    for (file, path_known, vendor, device, expected) in [
        ("", true, 0x10de, 0xa65, false),
        ("pciex10de,a65", true, 0x10de, 0xa65, true),
        ("pci10de,a65\r\n", true, 0x10de, 0xa65, true),
        ("pci10de,a65", true, 0x10de, 0xa66, false),
        ("pci10de", true, 0x10de, 0xa66, true),
        ("pci10de", true, 0x10df, 0xa66, false),
        ("pci10de,0a65", true, 0x10de, 0xa65, false),
        ("pci10DE,a65", true, 0x10de, 0xa65, false),
        ("pciex11,46", true, 0x11, 0x46, false),
        ("pciex11", true, 0x11, 0x46, true),
        ("pci8086\npci10de,a65\npci1", true, 0x10de, 0xa65, true),
        ("/pci@0,0/pci8086,151@1/display@0", true, 0, 0, true),
        ("/pci@0,0/pci8086,151@1/display@0", false, 0, 0, false),
        ("/pci@0,0/pci8086,151@1/display@0\r", true, 0, 0, false),
        ("/pci@0,0/pci8086,151@1", true, 0, 0, false),
        ("/devices/pci@0,0/pci8086,151@1/display@0", true, 0, 0, false),
    ] {
        let matches = PptMatches::parse(file.as_bytes());
        assert_eq!(matches.matches(path_known.then_some(path), vendor, device), expected, "{file:?}");
    }
}

#[test]
fn the_first_file_counts_and_only_absence_makes_it_look_on() {
    let folder = tempfile::tempdir().unwrap();
    let lookup = ["first", "second"].map(|name| folder.path().join(name));
    assert_eq!(PptMatches::find(&lookup).unwrap(), None);
    fs::write(&lookup[1], "pci8086\n").unwrap();
    let (path, matches) = PptMatches::find(&lookup).unwrap().unwrap();
    assert_eq!((&path, matches.entries().count()), (&lookup[1], 1));
    fs::write(&lookup[0], "").unwrap();
    let (path, matches) = PptMatches::find(&lookup).unwrap().unwrap();
    assert_eq!((&path, matches.entries().count()), (&lookup[0], 0), "nothing is merged");
    fs::remove_file(&lookup[0]).unwrap();
    fs::create_dir(&lookup[0]).unwrap();
    let error = PptMatches::find(&lookup).unwrap_err();
    assert!(error.to_string().starts_with(lookup[0].to_str().unwrap()), "{error}");
}

/// What the C library's scanf says, asked as libppt asks it.
fn scanf(line: &[u8]) -> Option<Entry> {
    let line = CString::new(line).unwrap();
    let ask = |format: &std::ffi::CStr| {
        let (mut vendor, mut device) = ([0_u8; 5], [0_u8; 5]);
        // SAFETY: both formats take at most four characters and a terminator for each of the one or two buffers.
        let taken =
            unsafe { libc::sscanf(line.as_ptr(), format.as_ptr(), vendor.as_mut_ptr(), device.as_mut_ptr()) };
        let text = |buffer: [u8; 5]| buffer.split(|byte| *byte == 0).next().unwrap().to_vec();
        (taken, text(vendor), text(device))
    };
    for format in [c"pciex%4s,%4s", c"pci%4s,%4s"] {
        if let (2, vendor, device) = ask(format) {
            return Some(Entry::Ids { vendor, device: Some(device) });
        }
    }
    for format in [c"pciex%4s", c"pci%4s"] {
        if let (1, vendor, _) = ask(format) {
            return Some(Entry::Ids { vendor, device: None });
        }
    }
    None
}

proptest! {
    #[test]
    fn ids_are_read_as_scanf_reads_them(
        line in r"(pciex|pci|pcie|PCI| pci|)[ \t\x0b\r]?[0-9a-fA-Fgx,.]{0,6}[ ,.]{0,2}[0-9a-f]{0,5}[ \r#x]{0,3}"
    ) {
        let entry = PptMatches::parse(line.as_bytes()).entries().next().cloned();
        prop_assert_eq!(entry, scanf(line.as_bytes()));
    }

    #[test]
    fn any_bytes_are_lines(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let matches = PptMatches::parse(&bytes);
        let mut again: Vec<u8> = matches.lines().iter().flat_map(|l| [&l.text[..], b"\n"].concat()).collect();
        if !bytes.ends_with(b"\n") {
            again.pop();
        }
        prop_assert_eq!(again, bytes, "comments and order are kept");
        prop_assert!(matches.findings().is_sorted_by_key(|finding| finding.line));
        matches.matches(Some("/pci@0,0"), 0x8086, 0);
    }

    #[test]
    fn what_is_not_matched_for_its_form_is_a_finding(
        line in r"[a-z]{0,5}(10de|10DE|11|0)[,.]?(0?a65|A65|)[ \r]?", vendor in 0_u16.., device in 0_u16..
    ) {
        let matches = PptMatches::parse(line.as_bytes());
        if matches.findings().is_empty() {
            let Some(Entry::Ids { vendor, device }) = matches.entries().next() else {
                return Err(TestCaseError::fail(format!("{line:?} is neither an entry nor a finding")));
            };
            let number = |text: &[u8]| u16::from_str_radix(std::str::from_utf8(text).unwrap(), 16).unwrap();
            let device = device.as_ref().map_or(1, |device| number(device));
            prop_assert!(matches.matches(None, number(vendor), device));
        } else if matches.entries().next().is_none() {
            prop_assert!(!matches.matches(None, vendor, device));
        }
    }
}
