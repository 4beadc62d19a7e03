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
    section(&mut text, "findings", &hide(facts, &diagnosis.text(Style::Plain)));
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

/// The user's name is nobody's business either.
fn hide(facts: &Facts, text: &str) -> String {
    let user = &facts.process.user;
    if user == "root" || user.is_empty() {
        return text.to_owned();
    }
    let words = text.split_inclusive(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_'));
    let word = |word: &str| match word.strip_prefix(user.as_str()) {
        Some(rest) if !rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '_')) => {
            format!("USER{rest}")
        }
        _ => word.to_owned(),
    };
    words.map(word).collect()
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
    let one = |word: &str| match word.split_once('=') {
        Some((name, _)) if !WORDS.iter().any(|known| is_of(name, known)) => format!("{name}=…"),
        _ => word.to_owned(),
    };
    text.split_whitespace().take_while(|word| *word != "--").map(one).collect::<Vec<_>>().join(" ")
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
    }

    #[test]
    fn the_users_name_is_left_out() {
        let facts = Facts { process: user(), ..facts() };
        assert_eq!(
            hide(&facts, "ann may; chown ann /x, anna ann-x\n"),
            "USER may; chown USER /x, anna ann-x\n"
        );
    }
}
