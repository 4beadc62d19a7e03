//! `slotpass list`: pptadm's interface.

use std::fs;
use std::path::Path;

use crate::support::{Ended, Slotpass, skipped};

const USAGE: &str = "Usage:\nslotpass list [ -j ]\nslotpass list [-ap] [-o fields]\n";

fn list(arguments: &str) -> Slotpass {
    Slotpass::new().args(["list"]).args(arguments.split_whitespace())
}

/// The vendor ids of this host's functions, in hexadecimal; empty without PCI.
fn vendors() -> Vec<String> {
    let entries = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            Some(fs::read_to_string(entry.path().join("vendor")).ok()?.trim()[2..].to_owned())
        })
        .collect()
}

/// Whether a VFIO driver holds a function of this host.
fn is_bound() -> bool {
    let drivers = fs::read_dir("/sys/bus/pci/drivers").into_iter().flatten().flatten();
    drivers.filter(|driver| driver.file_name().to_string_lossy().contains("vfio")).any(|driver| {
        let mut entries = fs::read_dir(driver.path()).unwrap().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().contains(':'))
    })
}

#[test]
fn arguments_are_refused_as_pptadm_refuses_them() {
    for (arguments, message) in [
        ("-x", "unrecognized option"),
        ("-N", "unrecognized option"),
        ("--nope", "unrecognized option"),
        ("-o", "unrecognized option"),
        ("-ajx", "unrecognized option"),
        ("-U", "unrecognized option"),
        ("-aU", "unrecognized option"),
        ("--json=1", "unrecognized option"),
        ("surplus", "unused arguments"),
        ("-a -- -j", "unused arguments"),
        ("one two", "unused arguments"),
        ("-j -p -o dev", "-j option cannot be used with -p or -o options"),
        ("-jp", "-j option cannot be used with -p or -o options"),
        ("-j -o dev", "-j option cannot be used with -p or -o options"),
        ("-p", "-o must be provided when using -p option"),
        ("-ap", "-o must be provided when using -p option"),
        ("--matches /dev/null", "--matches is of use with -a only"),
        ("--tree -a", "--tree shows all functions, as a text or with -j"),
        ("--tree -p -o dev", "--tree shows all functions, as a text or with -j"),
    ] {
        let ended = list(arguments).end().expect_refusal(&[]);
        let said = format!("slotpass: {message}\n{USAGE}");
        assert!(ended.stderr.ends_with(&said), "{said}\n{ended}");
        let named = ended.stderr.strip_suffix(&said).unwrap();
        assert_eq!(named.is_empty(), message != "unrecognized option", "{ended}");
    }
    list("-x").end().expect_stderr("slotpass list: illegal option -- x\n");
    list("--json=1").end().expect_stderr("slotpass list: option takes no argument -- json\n");
    list("-o").end().expect_stderr("slotpass list: option requires an argument -- o\n");
}

#[test]
fn fields_are_refused_as_pptadm_refuses_them() {
    for (arguments, message) in [
        ("-p -o all", "output field `all' invalid in parsable mode"),
        ("-p -o nope,dev", "unknown output field: `nope'"),
        ("-p -o nope,dev,-x", "unknown output fields: `nope' `-x'"),
        ("-p -o nope", "no valid output fields"),
        ("-o nope", "no valid output fields"),
        ("-o ,", "no valid output fields"),
    ] {
        let ended = list(arguments).end().expect_refusal(&[]);
        assert_eq!(ended.stderr, format!("slotpass: {message}\n"), "{ended}");
    }
    let empty = Slotpass::new().args(["list", "-p", "-o", ""]).end().expect_refusal(&[]);
    assert_eq!(empty.stderr, "slotpass: output fields must be specified in parsable mode\n");
    let ended = list("-o dev,nope,rev").end().expect_code(0);
    assert!(ended.stderr.starts_with("slotpass: ignoring unknown output field: `nope'\n"), "{ended}");
}

#[test]
fn help_is_on_stdout() {
    let ended = list("-h").end().expect_code(0).expect_silent_stderr();
    assert_eq!(ended.stdout, USAGE, "{ended}");
    list("--help").end().expect_code(0).expect_silent_stderr().expect_stdout("--matches");
}

#[test]
fn options_may_be_joined_and_given_again() {
    for arguments in ["-aj", "-ja", "-a -a -j -j", "-a -odev -o path", "-apodev", "-a -o DEV,Label"] {
        list(arguments).end().expect_code(0);
    }
}

/// The most that can be said of a list on any host.
fn expect_reason(ended: Ended) -> Ended {
    let ended = ended.expect_code(0).expect_stderr("the list is empty: ");
    if !Path::new("/sys/kernel/iommu_groups").is_dir() && !vendors().is_empty() {
        return ended.expect_stderr("no IOMMU groups: ");
    }
    ended
}

#[test]
fn an_empty_list_says_why_and_keeps_stdout_as_it_is() {
    const NAME: &str = "an_empty_list_says_why_and_keeps_stdout_as_it_is";
    if is_bound() {
        skipped(NAME, "a VFIO driver holds a function of this host, so that the list is not empty");
        return;
    }
    for (arguments, stdout) in [
        ("", ""),
        ("-o all", ""),
        ("-p -o dev,path", ""),
        ("-j", "{\n\t\"devices\": [\n\n\t]\n}\n"),
        ("-aj --matches /dev/null", "{\n\t\"devices\": [\n\n\t]\n}\n"),
    ] {
        let ended = expect_reason(list(arguments).end());
        assert_eq!(ended.stdout, stdout, "{ended}");
    }
    if !vendors().is_empty() {
        let ended = expect_reason(list("-a --matches /dev/null").end());
        ended.expect_stderr("/dev/null: none of its 0 entries matches a function of this host");
    }
}

#[test]
fn what_matches_is_listed() {
    const NAME: &str = "what_matches_is_listed";
    let vendors = vendors();
    let Some(vendor) = vendors.iter().find(|vendor| !vendor.starts_with('0')) else {
        skipped(NAME, "this host has no PCI functions");
        return;
    };
    let count = vendors.iter().filter(|other| *other == vendor).count();
    let list = |arguments: &str| {
        let content = format!("# those of one vendor\npci{vendor}\n pci{vendor}\nPCI{vendor}\n");
        let run = Slotpass::new().file("matches", content);
        let path = run.path("matches");
        run.args(["list", "-a", "--matches"])
            .args([path])
            .args(arguments.split_whitespace())
            .end()
            .expect_code(0)
    };
    let ended = list("-p -o vendor,rev");
    let rows = ended.stdout.lines().filter(|line| line.starts_with(&format!("{vendor}:"))).count();
    assert_eq!(rows, count, "{ended}");
    let ended = ended.expect_stderr("matches: line 3: ' pci").expect_stderr("matches: line 4: 'PCI");
    assert!(!ended.stderr.contains("empty"), "{ended}");

    let ended = list("");
    assert!(ended.stdout.starts_with("DEV        VENDOR DEVICE PATH\n"), "{ended}");
    let ended = list("-j");
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let devices = json["devices"].as_array().unwrap();
    assert_eq!(devices.iter().filter(|device| device["vendor-id"] == **vendor).count(), count, "{ended}");
    // Listed by its path as well as by its id.
    let Some(path) = devices.iter().find_map(|device| device["path"].as_str()) else {
        skipped(NAME, "functions of this host have no physical paths");
        return;
    };
    let run = Slotpass::new().file("matches", format!("{path}\n"));
    let file = run.path("matches");
    let ended = run.args(["list", "-a", "-p", "-o", "path", "--matches"]).args([file]).end().expect_code(0);
    assert!(ended.stdout.lines().any(|line| line == path), "{ended}");
}

#[test]
fn a_file_that_was_asked_for_has_to_be_there() {
    list("-a --matches /no/such/file").end().expect_refusal(&["/no/such/file: ", "No such file"]);
    list("-a --matches /dev/zero").end().expect_refusal(&["/dev/zero: ", "more than"]);
}

#[test]
fn whoever_stops_reading_is_no_error() {
    let mut run = list("-j");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    run.command().stdout(writer);
    run.start_with_own_stdout().end().expect_code(0);
}

/// In a host with these files in `/etc`, which a command makes; nothing if none can be made here.
fn list_with(files: &str, arguments: &str) -> Option<Ended> {
    let script = format!("mount -t tmpfs none /etc && {files} && exec \"$@\"");
    let through = ["--mount", "sh", "-c", &script, "sh"];
    let run = Slotpass::through("unshare", &through).args(["list"]).args(arguments.split_whitespace());
    let ended = run.end();
    (!ended.stderr.starts_with("unshare: ") && !ended.stderr.starts_with("mount: ")).then_some(ended)
}

#[test]
fn a_file_that_cannot_be_read_makes_an_empty_list() {
    for (arguments, stdout) in [("-a", ""), ("-aj", "{\n\t\"devices\": [\n\n\t]\n}\n")] {
        let Some(ended) = list_with("mkdir /etc/ppt_matches", arguments) else {
            skipped("a_file_that_cannot_be_read_makes_an_empty_list", "no file system can be mounted here");
            return;
        };
        let ended =
            ended.expect_code(0).expect_stderr("slotpass: the list is empty: /etc/ppt_matches: Is a dir");
        assert_eq!(ended.stdout, stdout, "{ended}");
    }
    // One that is looked for only if another is not there.
    let ended = list_with("mkdir /etc/ppt_matches", "").unwrap().expect_code(0);
    assert!(!ended.stderr.contains("ppt_matches"), "{ended}");
}

#[test]
fn an_empty_list_says_what_is_reserved() {
    const NAME: &str = "an_empty_list_says_what_is_reserved";
    if is_bound() {
        skipped(NAME, "a VFIO driver holds a function of this host, so that the list is not empty");
        return;
    }
    let files = r#"printf 'ppt "pci8086,1"\nppt "/sys/bus/pci/devices/0000:01:00.0"\n' >/etc/ppt_aliases"#;
    let Some(ended) = list_with(files, "") else {
        skipped(NAME, "no file system can be mounted here");
        return;
    };
    let ended =
        ended.expect_code(0).expect_stderr("/etc/ppt_aliases: 1 alias is reserved: slotpass apply binds");
    ended.expect_stderr(
        "/etc/ppt_aliases: line 2: '/sys/bus/pci/devices/0000:01:00.0' binds nothing: a file's name",
    );
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    for arguments in ["-j", "--tree -j"] {
        let mut run = list(arguments);
        run.command().stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        run.start_with_own_stdout().end().expect_refusal(&["stdout: ", "No space left"]);
    }
}

#[test]
fn a_tree_has_every_function_of_the_host() {
    let shown = list("--tree").end().expect_code(0);
    let json = list("--tree --json").end().expect_code(0);
    let tree: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let mut count = 0;
    let mut open: Vec<&serde_json::Value> = tree["roots"].as_array().unwrap().iter().collect();
    while let Some(node) = open.pop() {
        if let Some(address) = node["address"].as_str() {
            count += 1;
            assert!(shown.stdout.contains(address), "{address}\n{shown}");
        }
        open.extend(node["functions"].as_array().unwrap());
    }
    assert_eq!(count, vendors().len());
    if count == 0 {
        shown.expect_stderr("has no PCI functions");
    }
}
