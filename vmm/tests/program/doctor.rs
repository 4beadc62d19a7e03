//! `slotpass doctor`: whether a guest would start.

use std::fs;

use serde_json::Value;

use crate::support::Slotpass;

fn doctor(arguments: &str) -> Slotpass {
    Slotpass::new().args(["doctor"]).args(arguments.split_whitespace())
}

/// This host has an IOMMU that the kernel uses.
fn has_iommu() -> bool {
    fs::read_dir("/sys/kernel/iommu_groups").is_ok_and(|mut groups| groups.next().is_some())
}

fn has_kvm() -> bool {
    fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

fn findings(json: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(json).unwrap();
    assert_eq!(answer["schema"], 1);
    answer["findings"].as_array().unwrap().clone()
}

#[test]
fn a_simulated_function_needs_kvm_alone() {
    if !has_kvm() {
        doctor("sim:demo").end().expect_code(1).expect_stdout("problem  kvm");
        return;
    }
    let ended = doctor("sim:demo").end().expect_code(0).expect_silent_stderr();
    assert!(ended.stdout.ends_with("\nA guest would start.\n"), "{ended}");
    for absent in ["iommu", "vfio", "memory lock", "\x1b"] {
        assert!(!ended.stdout.contains(absent), "{absent}\n{ended}");
    }
}

/// Here is no fixture in the place of sysfs, so what is right depends on the machine.
#[test]
fn the_host_is_what_it_is() {
    let ended = doctor("").end().expect_silent_stderr();
    if !has_iommu() {
        let ended = ended
            .expect_code(1)
            .expect_stdout("  problem  iommu                off: this host has no IOMMU groups\n");
        let json = doctor("--json").end().expect_code(1).expect_silent_stderr();
        let findings = findings(&json.stdout);
        let iommu = findings.iter().find(|finding| finding["check"] == "iommu").unwrap();
        assert_eq!((&iommu["subject"], &iommu["level"]), (&"host".into(), &"problem".into()), "{json}");
        assert!(!iommu["remedies"].as_array().unwrap().is_empty(), "{json}");
        assert!(ended.stdout.contains("\nA guest would not start: "), "{ended}");
    } else {
        ended.expect_stdout("  ok       iommu                on: ");
    }
}

#[test]
fn what_is_not_there_is_a_problem_of_its_name() {
    for (name, part) in [
        ("0000:ff:1f.7", "there is no PCI function '0000:ff:1f.7'"),
        ("sim:none", "there are: demo"),
        ("/pci@fe,0/display@1", "there is no pci@fe,0 in this host"),
        ("nvme:0", "there is no PCI function 'nvme:0'"),
    ] {
        let ended = doctor(name).end().expect_code(1).expect_silent_stderr();
        ended.expect_stdout(&format!("\nFunction {name}\n  problem  presence ")).expect_stdout(part);
    }
    // A name without a colon or slash is a VM's.
    doctor("nvme0").end().expect_refusal(&["there is no VM \"nvme0\"", "a device is named by its address"]);
}

#[test]
fn a_description_is_checked_as_a_whole() {
    if !has_kvm() {
        return;
    }
    let vm = |slot: &str, kernel: &str| {
        format!(
            r#"{{ "kernel": "{kernel}", "memory": "64M",
                  "pci_devices": [ {{ "path": "sim:demo", "pci_slot": "{slot}" }} ] }}"#
        )
    };
    let run = |description: String| {
        let run = Slotpass::new().file("kernel.elf", guest::EXIT).file("vm.json", description);
        run.args(["doctor", "--config", "vm.json"]).end().expect_silent_stderr()
    };
    let ended = run(vm("0:8:0", "kernel.elf")).expect_code(0);
    ended.expect_stdout("they go together, and all BARs fit").expect_stdout("kernel.elf");
    run(vm("0:8:1", "kernel.elf")).expect_code(1).expect_stdout("  problem  slots ");
    run(vm("0:8:0", "none.elf")).expect_code(1).expect_stdout("  problem  kernel ");
}

#[test]
fn what_is_refused_before_anything_is_looked_at() {
    doctor("--config none.json").end().expect_refusal(&["none.json: No such file"]);
    doctor("--memory much").end().expect_refusal(&["memory size much"]);
    doctor("--config vm.json sim:demo").end().expect_refusal(&["--config"]);
    doctor("sim:demo --report /no/such/folder/report").end().expect_refusal(&["/no/such/folder/report"]);
}

#[test]
fn a_report_has_the_host_and_not_its_name() {
    let (ended, report) = doctor("sim:demo --report report.txt").end_and_read("report.txt");
    for title in ["findings", "host", "modules", "limits", "functions"] {
        assert!(report.contains(&format!("\n== {title}\n")), "{title}\n{report}\n{ended}");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(report.contains(&format!("kernel: {}", release.trim())), "{report}");
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    // A name such as "vm" is a part of many words.
    assert!(name.trim().len() < 5 || !report.contains(name.trim()), "{name} in\n{report}");
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        let address = address.trim();
        assert!(address.is_empty() || !report.contains(address), "{address} in\n{report}");
    }
}

/// Whoever runs it, where a user's files are is not told to others.
#[test]
fn a_report_names_no_files() {
    let vm = r#"{ "kernel": "KERNEL", "initrd": "INITRD",
                  "pci_devices": [ { "path": "sim:demo", "pci_slot": "0:8:0", "rom": "ROM" },
                                   { "path": "/home/secret/device", "pci_slot": "0:9:0" } ] }"#;
    for (kernel, initrd, part) in [
        ("kernel.elf", "secret-initrd", "initrd FILE: "),
        ("secret-kernel", "secret-initrd", "kernel FILE: cannot open: No such file"),
    ] {
        let run = Slotpass::new().file("kernel.elf", guest::EXIT);
        let folder = run.path("");
        let [kernel, initrd, rom] =
            [kernel, initrd, "secret-rom"].map(|name| folder.join(name).display().to_string());
        let vm = vm.replace("KERNEL", &kernel).replace("INITRD", &initrd).replace("ROM", &rom);
        let arguments = ["doctor", "--config", "vm.json", "--report", "report.txt"];
        let (ended, report) = run.file("vm.json", vm).args(arguments).end_and_read("report.txt");
        let ended = ended.expect_code(1).expect_stdout("/home/secret/device");
        assert!(report.contains(part), "{part} in {report}\n{ended}");
        for secret in ["secret", folder.to_str().unwrap()] {
            assert!(!report.contains(secret), "{secret} in {report}");
        }
    }
}

/// The image, whose last segment wants this much memory.
fn that_needs(mib: u64) -> Vec<u8> {
    let mut image = guest::EXIT.to_vec();
    let number = |at: usize, length: usize| {
        guest::EXIT[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    // ELF64: where the program headers are, how large each is, and how many there are.
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let loaded = (0..count).map(|index| table + index * size).filter(|at| number(*at, 4) == 1);
    let last = loaded.max_by_key(|at| number(at + 24, 8)).unwrap();
    image[last + 40..last + 48].copy_from_slice(&(mib << 20).to_le_bytes());
    image
}

/// What run says of a description before it touches a device, doctor says too.
#[test]
fn doctor_and_run_refuse_the_same_descriptions() {
    let line = "x".repeat(70_000);
    let rows = [
        (r#""memory": "64M""#, None),
        (r#""cpus": 0"#, Some("0 is not 1 to 254")),
        (r#""cpus": 255"#, Some("255 is not 1 to 254")),
        (r#""cmdline": "LINE""#, Some("kernel command line: 7")),
        (r#""cmdline": "a\u0000b""#, Some("a zero byte at offset")),
        (r#""initrd": "none""#, Some("initrd none: cannot open")),
        (r#""initrd": "large", "memory": "64M""#, Some("bytes do not fit between the kernel's end")),
        (r#""initrd": "large", "memory": "128M""#, None),
        (r#""kernel": "large.elf", "memory": "64M""#, Some("kernel large.elf: needs RAM up to")),
        (r#""kernel": "large.elf", "memory": "128M""#, None),
        (r#""kernel": null"#, Some("no kernel")),
    ];
    for (fields, problem) in rows {
        let kernel = if fields.contains("kernel") { "" } else { r#""kernel": "kernel.elf", "# };
        let command = if fields.contains("cmdline") { "" } else { r#""cmdline": "poweroff", "# };
        let vm = format!("{{ {kernel}{command}{} }}", fields.replace("LINE", &line));
        let [doctor, run] = ["doctor", "run"].map(|command| {
            let run = Slotpass::new().file("kernel.elf", guest::EXIT).file("large.elf", that_needs(80));
            let run = run.file("vm.json", &vm).file("large", "");
            fs::File::create(run.path("large")).unwrap().set_len(80 << 20).unwrap();
            // Without KVM neither gets so far; what is wrong with the description is said nevertheless.
            run.args([command, "--config", "vm.json"]).end()
        });
        let Some(problem) = problem else {
            if has_kvm() {
                doctor.expect_code(0).expect_stdout("  ok       kernel ");
                run.expect_code(0);
            }
            continue;
        };
        doctor.expect_code(1).expect_silent_stderr().expect_stdout(problem);
        run.expect_refusal(&[problem]);
    }
}

#[test]
fn arguments_that_run_refuses() {
    for arguments in ["--cpus 0", "--cpus 255", "--cpus many"] {
        doctor(arguments).end().expect_refusal(&["--cpus"]);
    }
    // What is given beside a description counts more, as for run.
    if has_kvm() {
        let run = Slotpass::new().file("kernel.elf", guest::EXIT);
        let run = run.file("vm.json", r#"{ "kernel": "kernel.elf", "cpus": 0 }"#);
        run.args(["doctor", "--config", "vm.json", "--cpus", "1"]).end().expect_code(0);
    }
}
