//! The host in general: KVM, IOMMU, interrupt remapping, VFIO.

use super::facts::Facts;
use super::facts::access::Access;
use super::facts::host::{Host, Kvms, Module, Table, Virtualization};
use super::facts::process::Process;
use super::finding::{Check, Finding, Remedy, Subject};
use super::kernel_parameter;

/// All of it. What only functions of the host need is looked at only `with_functions`.
pub fn check(facts: &Facts, with_functions: bool) -> Vec<Finding> {
    let (host, process) = (&facts.host, &facts.process);
    let mut findings = vec![kvm(host, process)];
    if with_functions {
        findings.push(iommu(host, process));
        if host.groups > 0 {
            findings.push(interrupt_remapping(host, process));
        }
        findings.extend(vfio(host, process, facts.by_device_file()));
    }
    findings
}

fn kvm(host: &Host, process: &Process) -> Finding {
    let errno = match &host.kvm {
        Kvms::Opens { .. } => return Check::Kvm.ok(Subject::Host, "/dev/kvm opens"),
        Kvms::Fails(errno) => *errno,
    };
    let error = std::io::Error::from_raw_os_error(errno);
    let found = Check::Kvm.problem(Subject::Host, format!("/dev/kvm: {error}"));
    match errno {
        libc::EACCES | libc::EPERM => {
            let (what, command) = match &host.kvm_group {
                Some(group) => (
                    "make this user a member of the file's group, and log in again",
                    format!("usermod -aG {group} {}", process.user),
                ),
                None => (
                    "give this user the file, until the module is loaded again",
                    format!("chown {} /dev/kvm", process.user),
                ),
            };
            found
                .because(format!("{} may not open it", process.user))
                .mended(Remedy::commands(what, [process.as_root(&command)]))
        }
        libc::ENOENT | libc::ENODEV | libc::ENXIO => match host.virtualization {
            Virtualization::None if host.is_guest => found
                .because("this host is a virtual machine whose processor has no virtualization")
                .mended(Remedy::by_hand("turn on nested virtualization for it where it runs")),
            Virtualization::None => found
                .because("the processor says that it has no virtualization")
                .mended(Remedy::by_hand("turn on virtualization in the firmware (Intel VT-x, AMD SVM)")),
            virtualization => {
                let module = if virtualization == Virtualization::Vmx { "kvm_intel" } else { "kvm_amd" };
                let (reason, what) = match host.kvm_loaded {
                    true => {
                        ("the module is loaded, but its device file is not there", "load the module again")
                    }
                    false => ("the processor's module is not loaded", "load the module"),
                };
                let again = host.kvm_loaded.then(|| process.as_root(&format!("modprobe -r {module}")));
                let load = process.as_root(&format!("modprobe {module}"));
                found.because(reason).mended(Remedy::commands(
                    format!("{what}; if that fails, turn on virtualization in the firmware"),
                    again.into_iter().chain([load]),
                ))
            }
        },
        _ => found,
    }
}

/// Parameters that turn an IOMMU off if `off` is among their values.
const SWITCHES: [&str; 3] = ["intel_iommu=", "amd_iommu=", "iommu="];

/// The word of the kernel's command line that turns the IOMMU off.
fn off(command_line: &str) -> Option<&str> {
    let is_off = |word: &&str| {
        let values = SWITCHES.iter().find_map(|switch| word.strip_prefix(switch));
        values.is_some_and(|values| values.split(',').any(|value| value == "off"))
    };
    command_line.split_whitespace().find(is_off)
}

fn iommu(host: &Host, process: &Process) -> Finding {
    if host.groups > 0 {
        let names: Vec<&str> = host.units.iter().map(|unit| unit.name.as_str()).collect();
        return Check::Iommu
            .ok(Subject::Host, format!("on: {} groups behind {}", host.groups, shortened(&names)));
    }
    let found = Check::Iommu.problem(Subject::Host, "off: this host has no IOMMU groups");
    match (host.table, off(&host.command_line)) {
        (Table::Dmar | Table::Ivrs, Some(word)) => found
            .because(format!("firmware offers it, and the kernel was booted with {word}"))
            .mended(kernel_parameter::remove(host, process, word)),
        (Table::Dmar, None) => found
            .because(
                "firmware offers Intel VT-d (ACPI table DMAR), and not every kernel uses it unasked",
            )
            .mended(kernel_parameter::add(host, process, "intel_iommu=on")),
        (Table::Ivrs, None) => found
            .because(
                "firmware offers AMD-Vi (ACPI table IVRS), which Linux uses unasked, and the kernel does not: \
                 `dmesg | grep AMD-Vi` says why",
            )
            .mended(Remedy::by_hand("update the firmware, or boot a kernel with CONFIG_AMD_IOMMU")),
        (Table::None, _) if host.is_guest => found
            .because("this host is a virtual machine, and what runs it gives it no IOMMU (no ACPI table DMAR or IVRS)")
            .mended(Remedy::by_hand("give it one where it runs (QEMU: -device intel-iommu,intremap=on,caching-mode=on)")),
        (Table::None, _) => found.because("firmware offers none (no ACPI table DMAR or IVRS)").mended(Remedy::by_hand(
            "turn it on in the firmware: VT-d or Intel Virtualization Technology for Directed I/O; AMD-Vi, IOMMU or SVM",
        )),
    }
}

fn shortened(names: &[&str]) -> String {
    match names {
        [] => "an IOMMU that sysfs does not name".to_owned(),
        [one] => (*one).to_owned(),
        [first, .., last] => format!("{first} to {last}"),
    }
}

fn interrupt_remapping(host: &Host, process: &Process) -> Finding {
    let check = Check::InterruptRemapping;
    match host.remapping {
        Some(true) => check.ok(Subject::Host, "on"),
        Some(false) if host.unsafe_interrupts => check
            .note(Subject::Host, "off, and VFIO was told to do without (allow_unsafe_interrupts)")
            .because("a guest can raise any interrupt of the host by DMA"),
        Some(false) => {
            let found = check.problem(Subject::Host, "off").because(
                "without it a guest could raise any interrupt of the host by DMA, so VFIO refuses functions",
            );
            let word = host.command_line.split_whitespace().find(|word| {
                matches!(*word, "intremap=off" | "intremap=nosid" | "nointremap" | "noapic" | "nox2apic")
            });
            let on = match word {
                Some(word) => kernel_parameter::remove(host, process, word),
                None => kernel_parameter::add(host, process, "intremap=on"),
            };
            found.mended(on).mended(Remedy::commands(
                "accept that, where the hardware has none and guests are trusted",
                [process.write("1", "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")],
            ))
        }
        None => check
            .unknown(Subject::Host, "not known: /proc/interrupts names no interrupt chip")
            .because("if it is off, VFIO refuses functions with EPERM"),
    }
}

fn vfio(host: &Host, process: &Process, by_device_file: bool) -> Vec<Finding> {
    let load = || Remedy::commands("load the module", [process.as_root("modprobe vfio-pci")]);
    let mut findings = vec![match host.vfio_pci {
        Module::Loaded => Check::Vfio.ok(Subject::Host, "vfio-pci is loaded"),
        Module::Available => Check::Vfio.problem(Subject::Host, "vfio-pci is not loaded").mended(load()),
        Module::Missing => Check::Vfio
            .problem(Subject::Host, format!("kernel {} has no module vfio-pci", host.kernel))
            .because("it needs CONFIG_VFIO_PCI; kernels that are made for virtual machines often lack it")
            .mended(Remedy::by_hand("install the distribution's usual kernel and boot it")),
    }];
    if host.vfio_pci != Module::Loaded {
        return findings;
    }
    let (path, access) = match by_device_file {
        true => ("/dev/iommu", host.iommufd),
        false => ("/dev/vfio/vfio", host.container),
    };
    findings.push(match access {
        Access::Granted => Check::Vfio.ok(Subject::Host, format!("{path} can be opened")),
        Access::Absent => Check::Vfio
            .problem(Subject::Host, format!("{path} is not there"))
            .because("the module behind it is not loaded, or its file was removed")
            .mended(Remedy::commands(
                "load the module again, when no guest uses it",
                [
                    process.as_root("modprobe -r vfio_iommu_type1 vfio-pci"),
                    process.as_root("modprobe vfio-pci"),
                ],
            )),
        Access::Denied => Check::Vfio
            .problem(Subject::Host, format!("{} may not open {path}", process.user))
            .mended(Remedy::commands(
                "let everybody open it, which alone gives nobody a function",
                [process.as_root(&format!("chmod 666 {path}"))],
            )),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::tests::{facts, host, root, user};
    use super::*;

    fn words(finding: &Finding) -> String {
        let remedies: Vec<String> = finding
            .remedies
            .iter()
            .map(|r| {
                format!(
                    "{} {} {}",
                    r.what,
                    r.kernel_parameter.clone().unwrap_or_default(),
                    r.commands.join("; ")
                )
            })
            .collect();
        format!("{} {} {}", finding.found, finding.reason.clone().unwrap_or_default(), remedies.join(" | "))
    }

    #[test]
    fn kvm_that_does_not_open_and_why() {
        for (errno, virtualization, is_guest, is_loaded, part) in [
            (libc::EACCES, Virtualization::Svm, false, true, "sudo usermod -aG kvm ann"),
            (libc::ENOENT, Virtualization::Vmx, false, false, "sudo modprobe kvm_intel"),
            (
                libc::ENOENT,
                Virtualization::Svm,
                false,
                true,
                "sudo modprobe -r kvm_amd; sudo modprobe kvm_amd",
            ),
            (libc::ENOENT, Virtualization::None, false, false, "in the firmware"),
            (libc::ENOENT, Virtualization::None, true, false, "nested virtualization"),
            (libc::EIO, Virtualization::Vmx, false, true, "Input/output error"),
        ] {
            let host =
                Host { kvm: Kvms::Fails(errno), virtualization, is_guest, kvm_loaded: is_loaded, ..host() };
            let found = kvm(&host, &user());
            assert_eq!(found.level, Level::Problem);
            assert!(words(&found).contains(part), "{part} in {}", words(&found));
        }
        assert_eq!(kvm(&host(), &user()).level, Level::Ok);
        let alone = Host { kvm: Kvms::Fails(libc::EACCES), kvm_group: None, ..host() };
        assert!(words(&kvm(&alone, &user())).contains("sudo chown ann /dev/kvm"));
    }

    #[test]
    fn iommu_that_is_off_and_what_turns_it_on() {
        let off = Host { groups: 0, ..host() };
        for (table, command_line, is_guest, part) in [
            (Table::Dmar, "quiet", false, "kernel parameter intel_iommu=on intel_iommu=on sudo sed"),
            (Table::Dmar, "intel_iommu=sm_on,off", false, "without kernel parameter intel_iommu=sm_on,off"),
            (Table::Dmar, "quiet intel_iommu=off", false, "without kernel parameter intel_iommu=off"),
            (Table::Ivrs, "amd_iommu=off", false, "without kernel parameter amd_iommu=off"),
            (Table::Ivrs, "", false, "CONFIG_AMD_IOMMU"),
            (Table::None, "", false, "in the firmware: VT-d"),
            (Table::None, "intel_iommu=on", true, "-device intel-iommu"),
        ] {
            let host = Host { table, command_line: command_line.to_owned(), is_guest, ..off.clone() };
            let found = iommu(&host, &user());
            assert_eq!(found.level, Level::Problem);
            assert!(words(&found).contains(part), "{part} in {}", words(&found));
        }
        assert_eq!(iommu(&host(), &user()).level, Level::Ok);
    }

    #[test]
    fn interrupt_remapping_is_on_off_or_unknown() {
        for (remapping, unsafe_interrupts, command_line, level, part) in [
            (Some(true), false, "", Level::Ok, "on"),
            (Some(false), true, "", Level::Note, "allow_unsafe_interrupts"),
            (Some(false), false, "", Level::Problem, "intremap=on"),
            (Some(false), false, "intremap=off", Level::Problem, "without kernel parameter intremap=off"),
            (None, false, "", Level::Unknown, "EPERM"),
        ] {
            let command_line = command_line.to_owned();
            let found =
                interrupt_remapping(&Host { remapping, unsafe_interrupts, command_line, ..host() }, &root());
            assert_eq!(found.level, level);
            assert!(words(&found).contains(part), "{part} in {}", words(&found));
        }
    }

    #[test]
    fn vfio_needs_its_module_and_its_file() {
        for (vfio_pci, container, by_device_file, level, part) in [
            (Module::Loaded, Access::Granted, false, Level::Ok, "/dev/vfio/vfio can be opened"),
            (Module::Loaded, Access::Denied, true, Level::Ok, "/dev/iommu can be opened"),
            (Module::Loaded, Access::Denied, false, Level::Problem, "sudo chmod 666 /dev/vfio/vfio"),
            (Module::Loaded, Access::Absent, false, Level::Problem, "sudo modprobe vfio-pci"),
            (Module::Available, Access::Absent, false, Level::Problem, "sudo modprobe vfio-pci"),
            (Module::Missing, Access::Absent, false, Level::Problem, "CONFIG_VFIO_PCI"),
        ] {
            let found = vfio(&Host { vfio_pci, container, ..host() }, &user(), by_device_file);
            let last = found.last().unwrap();
            assert_eq!(last.level, level);
            assert!(words(last).contains(part), "{part} in {}", words(last));
        }
    }

    #[test]
    fn without_functions_of_the_host_kvm_is_all() {
        let mut facts = facts();
        facts.host.groups = 0;
        assert_eq!(check(&facts, false).len(), 1);
        assert_eq!(check(&facts, true).len(), 4, "no word on interrupt remapping without an IOMMU");
    }
}
