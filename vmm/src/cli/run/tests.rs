//! What the command line and a VM's file say together.

use std::fs;

use clap::{Args as _, CommandFactory as _, Parser};

use super::*;

#[derive(Debug, Parser)]
struct Run {
    #[command(flatten)]
    arguments: Arguments,
}

/// What the VM of a file and of options is, or why it is none.
fn described(file: &str, options: &[&str]) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.json");
    fs::write(&path, file).unwrap();
    let config = ["run", "--config", path.to_str().unwrap()];
    let run = Run::try_parse_from(config.iter().chain(options)).map_err(|error| error.to_string())?;
    run.arguments.description().map(|it| format!("{it:?}")).map_err(|error| error.to_string())
}

/// Each option, what it can be given, and the same in a file; nothing for what is said of a run, not of a VM.
const OPTIONS: &[(&str, Option<&str>, &str, &str)] = &[
    ("config", None, "", ""),
    ("bhyve-config", None, "", ""),
    ("log", None, "", ""),
    ("stats", None, "", ""),
    ("kernel", Some("kernel"), "other", r#""other""#),
    ("initrd", Some("initrd"), "initrd", r#""initrd""#),
    ("cmdline", Some("cmdline"), "a=b c", r#""a=b c""#),
    ("memory", Some("memory"), "3G", r#""3G""#),
    ("cpus", Some("cpus"), "7", "7"),
    ("cpu-affinity", Some("cpu_affinity"), "6=1-2,5", r#"["6=1-2,5"]"#),
    ("halt-poll", Some("halt_poll"), "5000", "5000"),
    ("disable-exits", Some("disable_exits"), "pause,hlt", r#""hlt,pause""#),
    (
        "slot",
        Some("pci_devices"),
        "1:0:0=fd:5,port,rom=x",
        r#"[{ "pci_slot": "1:0:0", "path": "fd:5", "port": true, "rom": "x" }]"#,
    ),
    ("port", Some("ports"), "3", "[3]"),
    ("port-window", Some("port_window"), "1M,2G", r#""1M,2G""#),
    ("no-reboot", Some("no_reboot"), "", "true"),
    ("require-reset", Some("require_reset"), "", "true"),
    ("iommufd", Some("iommufd"), "fd:6", r#""fd:6""#),
    ("control", Some("control"), "vm.sock", r#""vm.sock""#),
    ("on-error", Some("on_error"), "pass", r#""pass""#),
    ("on-request", Some("on_request"), "ask:3", r#""ask:3""#),
    ("hugepages", Some("hugepages"), "", "true"),
];

#[test]
fn every_option_that_says_what_a_vm_is_has_a_field_and_every_field_an_option() {
    let command = Arguments::augment_args(clap::Command::new("run"));
    let given: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    assert_eq!(given.len(), Run::command().get_arguments().count(), "an option without a long name");
    for option in &given {
        assert!(OPTIONS.iter().any(|(name, ..)| name == option), "--{option}");
    }
    assert_eq!(given.len(), OPTIONS.len());
    // The error names all fields that there are.
    let error = described(r#"{ "?": 0 }"#, &[]).unwrap_err();
    let (_, expected) = error.split_once("expected one of ").unwrap();
    let mut fields: Vec<&str> = expected.split(", ").map(|field| field.trim_matches('`')).collect();
    let mut known: Vec<&str> = OPTIONS.iter().filter_map(|(_, field, ..)| *field).collect();
    fields.sort_unstable();
    known.sort_unstable();
    assert_eq!(fields, known);
}

#[test]
fn an_option_and_its_field_say_the_same() {
    let kernel = r#""kernel": "linux""#;
    let default = described(&format!("{{ {kernel} }}"), &[]).unwrap();
    for (option, field, value, json) in OPTIONS {
        let Some(field) = field else { continue };
        let option = format!("--{option}");
        let by_option: Vec<&str> = [&option, *value].into_iter().filter(|word| !word.is_empty()).collect();
        let by_option = described(&format!("{{ {kernel} }}"), &by_option).unwrap();
        let kernel = if *field == "kernel" { String::new() } else { format!("{kernel}, ") };
        let by_field = described(&format!(r#"{{ {kernel}"{field}": {json} }}"#), &[]).unwrap();
        assert_eq!(by_option, by_field, "{option}");
        assert_ne!(by_field, default, "{option} makes no difference");
    }
}

#[test]
fn an_option_counts_more_than_its_field() {
    for (options, file, wanted) in [
        (&["--iommufd", "off"][..], r#""iommufd": "on""#, "iommufd: Off"),
        (&["--iommufd", "auto"], r#""iommufd": "fd:6""#, "iommufd: Auto"),
        (&["--cpus", "2"], r#""cpus": 3"#, "cpus: 2"),
        (
            &["--cpu-affinity", "1=7"],
            r#""cpu_affinity": ["0=3", "1=5"]"#,
            "[Pin { vcpu: 0, cpus: CpuList([3..=3]) }, Pin { vcpu: 1, cpus: CpuList([7..=7]) }]",
        ),
        (&["--halt-poll", "0"], r#""halt_poll": 9"#, "halt_poll: Some(0)"),
        (&["--disable-exits", "pause"], r#""disable_exits": "hlt""#, "disabled_exits: DisabledExits(4)"),
        (&["--on-error", "log"], r#""on_error": "pass""#, "error: Log"),
        (&["--port", "4"], r#""ports": [3]"#, "empty: [3, 4]"),
        (&[], r#""no_reboot": false"#, "no_reboot: false"),
        (&["--no-reboot"], r#""no_reboot": false"#, "no_reboot: true"),
    ] {
        let description = described(&format!(r#"{{ "kernel": "linux", {file} }}"#), options).unwrap();
        assert!(description.contains(wanted), "{options:?} {file}: {description}");
    }
}

#[test]
fn what_is_wrong_is_wrong_in_the_same_words() {
    for (option, field, value, words) in [
        ("--iommufd", "iommufd", "fd:x", "'fd:x' is none of auto, on, off and fd:N"),
        ("--iommufd", "iommufd", "", "'' is none of auto, on, off and fd:N"),
        ("--on-error", "on_error", "cry", "'cry' is not stop, log or pass"),
        ("--disable-exits", "disable_exits", "hlt,c1", "'hlt,c1' is not a list of hlt, pause and mwait"),
        ("--port-window", "port_window", "1", "'1' is not the room of a root port"),
    ] {
        let by_option = described("{}", &[option, value]).unwrap_err();
        let by_field = described(&format!(r#"{{ "{field}": "{value}" }}"#), &[]).unwrap_err();
        assert!(by_option.contains(words) && by_field.contains(words), "{by_option}\n{by_field}");
        assert!(by_field.contains(&format!("field {field}")), "{by_field}");
    }
}
