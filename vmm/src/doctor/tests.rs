//! A host that has all that a guest needs, from which tests take things away; and the judgement as a whole.

use passthru::function::pieces::{Backing, Reason};
use passthru::host::vfio::sysfs::SysfsFunction;
use passthru::pci::bar::BarKind;

use super::facts::function::{Found, Function, Guests, Resource};
use super::facts::host::{Boot, Memory, Module, Table, UnsafeInterrupts, Virtualization};
use super::facts::iommu::{Kind, Reserved, Unit};
use super::facts::process::Limit;
use super::finding::Level;
use super::*;
use crate::host::holders::{Hidden, Holders};

pub fn host() -> Host {
    Host {
        kernel: "6.12.0".to_owned(),
        command_line: "quiet".to_owned(),
        virtualization: Virtualization::Vmx,
        is_guest: false,
        kvm: Kvms::Opens { routes: 4096, cpus: 64, address_bits: 46 },
        kvm_group: Some("kvm".to_owned()),
        kvm_loaded: true,
        table: Table::Dmar,
        groups: 12,
        groups_without_iommu: 0,
        units: vec![Unit {
            name: "dmar0".to_owned(),
            kind: Kind::Intel,
            registers: vec![("cap".to_owned(), "d2008c22260206".to_owned())],
        }],
        remapping: Some(true),
        unsafe_interrupts: UnsafeInterrupts::default(),
        vfio_pci: Module::Loaded,
        stays_in_d0: false,
        container: Access::Granted,
        iommufd: Access::Granted,
        iommufd_module: Module::Loaded,
        boot: Boot::UpdateGrub,
        memory: Memory { total: 16 << 30, available: 12 << 30, ..Memory::default() },
        huge_pages: None,
        dma_entries: Some(65535),
        processors: 8,
        frame_buffers: Vec::new(),
    }
}

pub fn root() -> Process {
    let limit = Some(Limit { soft: 8 << 20, hard: 8 << 20 });
    Process {
        uid: 0,
        user: "root".to_owned(),
        locks_without_limit: true,
        raises_limits: true,
        memory_lock: limit,
        open_files: Some(Limit { soft: 1024, hard: 1 << 20 }),
        group_room: None,
    }
}

pub fn user() -> Process {
    let user = "ann".to_owned();
    Process { uid: 1000, user, locks_without_limit: false, raises_limits: false, ..root() }
}

/// An NVMe drive in the hands of vfio-pci.
pub fn drive() -> Function {
    Function {
        sysfs: SysfsFunction {
            address: "0000:01:00.0".parse().unwrap(),
            driver: Some("vfio-pci".to_owned()),
            group: Some(14),
            file: None,
            cdev: None,
            resources: [(0, BarKind::Io); 6],
            rom: 0,
            ids: 0x0010_1b36,
            class: 0x01_0802,
        },
        label: "QEMU NVM Express Controller".to_owned(),
        header_type: Some(0),
        is_all_seen: true,
        is_gone: false,
        offenders: Vec::new(),
        reserved: vec![Reserved { range: 0xfee0_0000..0xfef0_0000, kind: "msi".to_owned() }],
        unit: Some("dmar0".to_owned()),
        holders: Holders { seen: Vec::new(), hidden: Hidden::None },
        by_device_file: false,
        file: Some("/dev/vfio/14".to_owned()),
        access: Access::Granted,
        resets: vec!["flr".to_owned(), "bus".to_owned()],
        neighbours: Vec::new(),
        power_state: Some("D0".to_owned()),
        runtime_status: Some("active".to_owned()),
        is_boot_display: false,
        virtual_functions: 0,
        physical: None,
        resources: vec![Resource {
            bar: 0,
            start: 0xfe00_0000,
            size: 0x4000,
            is_unassigned: false,
            is_memory: true,
        }],
        shown: Ok(Guests {
            trapped: vec![(0, 0x2000, 0x1000, Backing::ReadOnly(Reason::MsixTable))],
            mapped: 2,
            vectors: 65,
            problems: Vec::new(),
        }),
    }
}

pub fn asked(function: Function) -> Asked {
    Asked { name: DeviceName::Host(function.name()), found: Found::Host(Box::new(function)) }
}

pub fn facts() -> Facts {
    Facts { host: host(), process: root(), asked: vec![asked(drive())] }
}

/// All words of a finding and its remedies.
pub fn words(finding: &Finding) -> String {
    let remedy = |remedy: &Remedy| {
        let words =
            [&remedy.kernel_parameter, &remedy.arguments].map(|word| word.clone().unwrap_or_default());
        format!("{} {} {}", remedy.what, words.join(" "), remedy.commands.join("; "))
    };
    let remedies: Vec<String> = finding.remedies.iter().map(remedy).collect();
    format!("{} {} {}", finding.found, finding.reason.clone().unwrap_or_default(), remedies.join(" | "))
}

#[test]
fn nothing_is_wrong_with_a_host_that_has_it_all() {
    let question = Question::about([DeviceName::Host("0000:01:00.0".to_owned())]);
    let findings = question.judge(&facts());
    let worse: Vec<&Finding> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
    assert!(worse.is_empty(), "{worse:?}");
    let text = Diagnosis::new(findings, facts()).text(Style::Plain);
    assert!(
        text.starts_with("Host\n  ok       kvm                  /dev/kvm opens, and makes VMs\n"),
        "{text}"
    );
    assert!(
        text.contains("\nFunction 0000:01:00.0\n") && text.ends_with("\n\nA guest would start.\n"),
        "{text}"
    );
}

#[test]
fn commands_are_lines_of_their_own() {
    let mut facts = facts();
    facts.process = user();
    facts.host.vfio_pci = Module::Available;
    let mut unbound = drive();
    unbound.sysfs.driver = None;
    facts.asked = vec![asked(unbound)];
    let findings = Question::default().judge(&facts);
    let diagnosis = Diagnosis::new(findings, facts);
    assert_eq!(diagnosis.verdict, Verdict::Refused);
    let text = diagnosis.text(Style::Plain);
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("        ")).collect();
    assert!(commands.contains(&"sudo modprobe vfio-pci"), "{text}");
    assert!(
        commands.iter().all(|command| command.starts_with("sudo ") || command.starts_with("echo ")),
        "{text}"
    );
    let coloured = diagnosis.text(Style::Colours);
    assert!(coloured.contains("\x1b[31mproblem \x1b[0m") && !text.contains('\x1b'));
}

#[test]
fn json_has_what_a_program_needs() {
    let mut facts = facts();
    facts.host.groups = 0;
    let findings = Question::default().judge(&facts);
    let json = serde_json::to_value(Diagnosis::new(findings, facts)).unwrap();
    assert_eq!((&json["schema"], &json["verdict"]), (&1.into(), &"refused".into()));
    let iommu = &json["findings"][1];
    assert_eq!(
        (&iommu["subject"], &iommu["check"], &iommu["level"]),
        (&"host".into(), &"iommu".into(), &"problem".into())
    );
    assert_eq!(iommu["remedies"][0]["kernel_parameter"], "intel_iommu=on");
    let function =
        json["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "reset").unwrap();
    assert_eq!(function["subject"]["function"], "0000:01:00.0");
}
