//! One text that a user can send with a bug: the host, its IOMMU, all of its functions, and what doctor found.
//!
//! Not in it: the host's name, MAC addresses, names of files of the user, and serial numbers but those that are in a function's
//! configuration space, of which the Device Serial Number capability is blanked.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use passthru::host::vfio::sysfs;
use passthru::pci::capability;

use super::facts::Facts;
use super::finding::{Finding, Subject};
use super::{Diagnosis, Style};

/// Extended capability with a serial number (PCIe 6.0 §7.9.3): an identifier and 8 bytes of it.
const DEVICE_SERIAL_NUMBER: u16 = 0x0003;
const SERIAL: std::ops::Range<usize> = 4..12;
/// Modules that say something.
const MODULES: [&str; 10] = [
    "kvm",
    "kvm_intel",
    "kvm_amd",
    "vfio",
    "vfio_pci",
    "vfio_pci_core",
    "vfio_iommu_type1",
    "vfio_virqfd",
    "iommufd",
    "irqbypass",
];
/// What words of the kernel's command line start with whose values say something. Others are named without theirs.
const WORDS: [&str; 26] = [
    "acpi",
    "amd_iommu",
    "console",
    "default_hugepagesz",
    "efi",
    "hugepages",
    "hugepagesz",
    "initcall_blacklist",
    "intel_iommu",
    "intremap",
    "iommu",
    "isolcpus",
    "kvm",
    "lockdown",
    "maxcpus",
    "mem",
    "memmap",
    "mitigations",
    "modprobe.blacklist",
    "module_blacklist",
    "nr_cpus",
    "pci",
    "pcie",
    "swiotlb",
    "vfio",
    "video",
];

/// All of it.
pub fn of(diagnosis: &Diagnosis) -> String {
    let facts = &diagnosis.facts;
    let mut text = format!("slotpass {} doctor report 1\n", diagnosis.version);
    let findings = diagnosis.findings.iter().map(without_files).collect();
    let findings = Diagnosis { findings, ..diagnosis.clone() }.text(Style::Plain);
    section(&mut text, "findings", &hide(facts, &findings));
    section(&mut text, "host", &host(facts));
    section(&mut text, "modules", &modules());
    section(&mut text, "limits", &limits(facts));
    section(&mut text, "functions", &functions());
    for function in facts.functions() {
        let path = Path::new(sysfs::DEVICES).join(function.name()).join("config");
        let mut config = fs::read(path).unwrap_or_default();
        blank_serial(&mut config);
        section(&mut text, &format!("configuration space of {}", function.name()), &hex(&config));
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    let _ = write!(text, "\n== {title}\n{body}");
    if !body.ends_with('\n') {
        text.push('\n');
    }
}

/// Names of files are told by what they are for, which the text around them says.
fn without_files(finding: &Finding) -> Finding {
    let mut finding = finding.clone();
    // The longest first: one may be a part of another.
    finding.files.sort_by_key(|file| std::cmp::Reverse(file.len()));
    let own = std::mem::take(&mut finding.files);
    let hide = |text: &mut String| own.iter().for_each(|file| *text = replaced(text, file, "FILE"));
    hide(&mut finding.found);
    finding.reason.iter_mut().for_each(hide);
    for remedy in &mut finding.remedies {
        hide(&mut remedy.what);
        remedy.arguments.iter_mut().chain(&mut remedy.commands).for_each(hide);
    }
    if let Subject::Function(name) = &mut finding.subject {
        hide(name);
    }
    finding
}

/// The user's name is nobody's business either.
fn hide(facts: &Facts, text: &str) -> String {
    let user = &facts.process.user;
    if user == "root" { text.to_owned() } else { replaced(text, user, "USER") }
}

/// With `other` wherever `name` is not a part of a longer word.
fn replaced(text: &str, name: &str, other: &str) -> String {
    if name.is_empty() {
        return text.to_owned();
    }
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(name) {
        made += before;
        let is_part = made.ends_with(char::is_alphanumeric) && name.starts_with(char::is_alphanumeric)
            || after.starts_with(char::is_alphanumeric) && name.ends_with(char::is_alphanumeric);
        made += if is_part { name } else { other };
        rest = after;
    }
    made + rest
}

fn host(facts: &Facts) -> String {
    let host = &facts.host;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = |name: &str| {
        let line = cpuinfo.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("", |line| line.trim_start_matches([' ', '\t', ':'])).to_owned()
    };
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let mut text = String::new();
    let _ = writeln!(text, "kernel: {}", host.kernel);
    let _ = writeln!(text, "command line: {}", command_line(&host.command_line));
    let _ = writeln!(text, "lockdown: {}", lockdown.trim());
    let _ = writeln!(
        text,
        "processor: {} ({}), {} running",
        cpu("model name"),
        cpu("vendor_id"),
        host.processors
    );
    let _ =
        writeln!(text, "virtualization: {:?}; in a virtual machine: {}", host.virtualization, host.is_guest);
    let _ = writeln!(text, "kvm: {:?}", host.kvm);
    let _ = writeln!(text, "IOMMU table: {:?}; groups: {}", host.table, host.groups);
    let _ = writeln!(
        text,
        "interrupt remapping: {:?}; unsafe interrupts: {:?}",
        host.remapping, host.unsafe_interrupts
    );
    for unit in &host.units {
        let _ = writeln!(text, "unit {}: {:?}, {:?} bits", unit.name, unit.kind, unit.address_bits());
        for (register, value) in &unit.registers {
            let _ = writeln!(text, "  {register}: {value}");
        }
    }
    let _ = writeln!(text, "memory: {:?}; huge pages: {:?}", host.memory, host.huge_pages);
    let _ = writeln!(text, "/dev/vfio/vfio: {:?}; /dev/iommu: {:?}", host.container, host.iommufd);
    text
}

/// The kernel's own words, those behind `--` being a program's, and their values where they are known to be harmless.
fn command_line(text: &str) -> String {
    let one = |word: String| match word.trim_start_matches('"').split_once('=') {
        Some((name, _)) if !WORDS.iter().any(|known| is_of(name, known)) => format!("{name}=…"),
        // Blanks in what has no value: nobody knows what of it is a name.
        None if word.contains('"') => "…".to_owned(),
        _ => word,
    };
    words(text).into_iter().take_while(|word| word != "--").map(one).collect::<Vec<_>>().join(" ")
}

/// As the kernel divides its command line: blanks between quotes do not (`next_arg` in Linux' `lib/cmdline.c`).
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in text.chars() {
        is_quoted ^= character == '"';
        match words.last_mut() {
            Some(word) if is_quoted || !character.is_whitespace() => word.push(character),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A parameter of the kernel, or of a module, of this name.
fn is_of(name: &str, known: &str) -> bool {
    name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_', '-']))
}

fn modules() -> String {
    let mut text = String::new();
    for module in MODULES {
        let directory = Path::new("/sys/module").join(module);
        if !directory.exists() {
            continue;
        }
        let _ = write!(text, "{module}:");
        let mut parameters: Vec<_> =
            fs::read_dir(directory.join("parameters")).into_iter().flatten().flatten().collect();
        parameters.sort_by_key(fs::DirEntry::file_name);
        for parameter in parameters {
            let value = fs::read_to_string(parameter.path()).unwrap_or_default();
            let _ = write!(text, " {}={}", parameter.file_name().display(), value.trim());
        }
        text.push('\n');
    }
    text
}

fn limits(facts: &Facts) -> String {
    let process = &facts.process;
    let is_root = process.uid == 0;
    format!(
        "root: {is_root}; CAP_IPC_LOCK: {}; CAP_SYS_RESOURCE: {}\nmemory lock: {:?}\nopen files: {:?}\nfree in the \
         control groups: {:?}\nDMA entries: {:?}\n",
        process.locks_without_limit,
        process.raises_limits,
        process.memory_lock,
        process.open_files,
        process.group_room,
        facts.host.dma_entries,
    )
}

/// Every function of the host, a line each, then its resources.
fn functions() -> String {
    let mut text = String::new();
    let mut names: Vec<String> = fs::read_dir(sysfs::DEVICES)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    for name in names {
        let directory = Path::new(sysfs::DEVICES).join(&name);
        let line =
            |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default().trim().to_owned();
        let link = |file: &str| sysfs::link_name(&directory.join(file)).unwrap_or_else(|| "-".to_owned());
        let ids = [line("vendor"), line("device"), line("subsystem_vendor"), line("subsystem_device")];
        let _ = writeln!(
            text,
            "{name} {} class {} revision {} driver {} group {} unit {} reset [{}] power {}",
            ids.map(|id| id.trim_start_matches("0x").to_owned()).join(":"),
            line("class"),
            line("revision"),
            link("driver"),
            link("iommu_group"),
            link("iommu"),
            line("reset_method"),
            line("power_state"),
        );
        let resources = line("resource");
        let lines = resources.lines().enumerate();
        for (index, resource) in lines.filter(|(_, line)| line.contains(|c| !matches!(c, '0' | 'x' | ' '))) {
            let _ = writeln!(text, "  {index}: {resource}");
        }
    }
    text
}

/// Bytes as lspci -xxx has them, which reads them as well.
fn hex(config: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in config.chunks(16).enumerate() {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{:02x}: {}", number * 16, bytes.join(" "));
    }
    text
}

fn blank_serial(config: &mut [u8]) {
    let (list, _) = capability::walk_extended(config);
    let serials: Vec<usize> =
        list.iter().filter(|c| c.id == DEVICE_SERIAL_NUMBER).map(|c| usize::from(c.offset)).collect();
    for at in serials {
        if let Some(serial) = config.get_mut(at + SERIAL.start..at + SERIAL.end) {
            serial.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Check, Remedy};
    use super::super::tests::{facts, user};
    use super::*;

    #[test]
    fn serial_numbers_are_blanked() {
        let mut config = vec![0; 4096];
        // An extended capability of another kind at 0x100, then the serial number at 0x140.
        config[0x100..0x104].copy_from_slice(&0x1401_0001u32.to_le_bytes());
        config[0x140..0x14c].copy_from_slice(&[3, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        blank_serial(&mut config);
        assert_eq!(&config[0x140..0x14c], &[3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(hex(&config[..17]).lines().nth(1), Some("10: 00"));
    }

    #[test]
    fn only_known_words_keep_their_values() {
        let text = "BOOT_IMAGE=/vmlinuz quiet ip=10.0.0.1 pci=realloc vfio-pci.ids=8086:1 vfio_iommu_type1.x=1 password=x \
                    memx=1 -- --token=y";
        let expected =
            "BOOT_IMAGE=… quiet ip=… pci=realloc vfio-pci.ids=8086:1 vfio_iommu_type1.x=1 password=… memx=…";
        assert_eq!(command_line(text), expected);
        for (text, expected) in [
            ("x=\"a secret\" quiet", "x=… quiet"),
            ("\"x=a secret\" \"pci=a b\" quiet", "x=… \"pci=a b\" quiet"),
            ("\"a secret\" x=\"a -- secret\" ro", "… x=… ro"),
            ("quiet x=\"never ends --", "quiet x=…"),
            ("x=a\"b c\"d e", "x=… e"),
            ("", ""),
        ] {
            assert_eq!(command_line(text), expected, "{text}");
        }
    }

    #[test]
    fn the_users_name_is_left_out() {
        let facts = Facts { process: user(), ..facts() };
        for (text, expected) in [
            ("ann may; chown ann /x\n", "USER may; chown USER /x\n"),
            ("limits.d/slotpass-ann.conf", "limits.d/slotpass-USER.conf"),
            ("anna joann xann x", "anna joann xann x"),
            ("ann", "USER"),
        ] {
            assert_eq!(hide(&facts, text), expected);
        }
    }

    #[test]
    fn names_of_files_are_left_out() {
        let files = ["/home/ann/vm", "/home/ann/vm/initrd", "k"].map(str::to_owned);
        let finding = Check::Kernel
            .problem(
                Subject::Function("/home/ann/vm".to_owned()),
                "kernel k: no; initrd /home/ann/vm/initrd: no",
            )
            .because("of /home/ann/vm")
            .mended(Remedy::commands("look at k", ["cat k".to_owned()]))
            .naming(files);
        let found = without_files(&finding);
        assert_eq!(found.found, "kernel FILE: no; initrd FILE: no");
        assert_eq!(found.subject, Subject::Function("FILE".to_owned()));
        let report = of(&Diagnosis::new(vec![finding], facts()));
        assert!(!report.contains("/home") && report.contains("        cat FILE\n"), "{report}");
    }
}
