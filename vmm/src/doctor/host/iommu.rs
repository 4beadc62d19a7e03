//! The host's IOMMU, and whether it remaps interrupts.

use crate::doctor::facts::host::{Host, Table};
use crate::doctor::facts::process::Process;
use crate::doctor::finding::{Check, Finding, Remedy, Subject};
use crate::doctor::kernel_parameter;

/// Parameters that turn an IOMMU off if `off` is among their values.
const SWITCHES: [&str; 3] = ["intel_iommu=", "amd_iommu=", "iommu="];
const INTEL: [&str; 1] = ["intel_iommu="];
/// Where the kernel says what it makes of what firmware offers.
const WHY: &str = "`dmesg | grep -i -e DMAR -e AMD-Vi -e IOMMU` says why";

/// The word of the kernel's command line that says `value` to one of these parameters.
fn word_with<'a>(command_line: &'a str, parameters: &[&str], value: &str) -> Option<&'a str> {
    let has = |word: &&str| {
        let values = parameters.iter().find_map(|parameter| word.strip_prefix(parameter));
        values.is_some_and(|values| values.split(',').any(|found| found == value))
    };
    command_line.split_whitespace().find(has)
}

/// Whether there is one that translates.
pub fn iommu(host: &Host, process: &Process) -> Finding {
    if host.groups > 0 {
        let names: Vec<&str> = host.units.iter().map(|unit| unit.name.as_str()).collect();
        return Check::Iommu
            .ok(Subject::Host, format!("on: {} groups behind {}", host.groups, shortened(&names)));
    }
    let found = Check::Iommu.problem(
        Subject::Host,
        match host.groups_without_iommu {
            0 => "off: this host has no IOMMU groups".to_owned(),
            count => format!(
                "off: this host has no IOMMU groups but {count} that VFIO made without one \
                 (enable_unsafe_noiommu_mode), which have no DMA of a guest's"
            ),
        },
    );
    let is_asked_for = ["on", "sm_on"].iter().any(|on| word_with(&host.command_line, &INTEL, on).is_some());
    match (host.table, word_with(&host.command_line, &SWITCHES, "off")) {
        (Table::Dmar | Table::Ivrs, Some(word)) => found
            .because(format!("firmware offers it, and the kernel was booted with {word}"))
            .mended(kernel_parameter::remove(host, process, word)),
        (Table::Dmar, None) if is_asked_for => found
            .because(format!(
                "firmware offers Intel VT-d (ACPI table DMAR), the kernel was booted with intel_iommu=on, and does not use it: \
                 {WHY}"
            ))
            .mended(Remedy::by_hand("update the firmware, or boot a kernel with CONFIG_INTEL_IOMMU")),
        (Table::Dmar, None) => found
            .because(
                "firmware offers Intel VT-d (ACPI table DMAR), and not every kernel uses it unasked",
            )
            .mended(kernel_parameter::add(host, process, "intel_iommu=on")),
        (Table::Ivrs, None) => found
            .because(
                format!("firmware offers AMD-Vi (ACPI table IVRS), which Linux uses unasked, and the kernel does not: {WHY}"),
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

/// The word of the kernel's command line that keeps interrupts from being remapped: Linux leaves it where it does not set up
/// the I/O APIC (`enable_IR_x2apic`), and where it is told to.
fn without_remapping(command_line: &str) -> Option<&str> {
    let is_so = |word: &&str| matches!(*word, "nointremap" | "noapic");
    word_with(command_line, &["intremap="], "off").or_else(|| command_line.split_whitespace().find(is_so))
}

/// Whether a guest's functions can raise other interrupts than their own. The IOMMU driver of VFIO and iommufd each have a
/// parameter of their own that lets them do without, and look at no other.
pub fn interrupt_remapping(host: &Host, process: &Process, by_device_file: bool) -> Finding {
    let check = Check::InterruptRemapping;
    let (module, is_accepted) = match by_device_file {
        true => ("iommufd", host.unsafe_interrupts.iommufd),
        false => ("vfio_iommu_type1", host.unsafe_interrupts.container),
    };
    match host.remapping {
        Some(true) => check.ok(Subject::Host, "on"),
        Some(false) if is_accepted => check
            .note(
                Subject::Host,
                format!("off, and VFIO was told to do without (allow_unsafe_interrupts of {module})"),
            )
            .because("a guest can raise any interrupt of the host by DMA"),
        Some(false) => {
            let reason =
                "without it a guest could raise any interrupt of the host by DMA, so VFIO refuses functions";
            let found = check.problem(Subject::Host, "off");
            let found = match without_remapping(&host.command_line) {
                Some(word) => found.because(reason).mended(kernel_parameter::remove(host, process, word)),
                None if host.is_guest => found.because(reason).mended(Remedy::by_hand(
                    "this host is a virtual machine: let its IOMMU remap interrupts where it runs (QEMU: -machine \
                     kernel-irqchip=split -device intel-iommu,intremap=on)",
                )),
                None => found
                    .because(format!("{reason}; Linux turns it on unasked where it can: {WHY}"))
                    .mended(Remedy::by_hand(
                        "turn it on in the firmware, update that, or boot a kernel with CONFIG_IRQ_REMAP",
                    )),
            };
            found.mended(Remedy::commands(
                "accept that, where the hardware has none and guests are trusted",
                [process.write("1", &format!("/sys/module/{module}/parameters/allow_unsafe_interrupts"))],
            ))
        }
        None => check
            .unknown(Subject::Host, "not known: /proc/interrupts names no interrupt chip")
            .because("if it is off, VFIO refuses functions with EPERM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::host::UnsafeInterrupts;
    use crate::doctor::finding::Level;
    use crate::doctor::tests::{host, root, user, words};

    #[test]
    fn iommu_that_is_off_and_what_turns_it_on() {
        let off = Host { groups: 0, ..host() };
        for (table, command_line, is_guest, part) in [
            (Table::Dmar, "quiet", false, "kernel parameter intel_iommu=on intel_iommu=on "),
            (Table::Dmar, "intel_iommu=on", false, "dmesg"),
            (Table::Dmar, "intel_iommu=igfx_off,sm_on", false, "CONFIG_INTEL_IOMMU"),
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
        let made_up = iommu(&Host { groups_without_iommu: 2, ..off }, &user());
        assert!(words(&made_up).contains("but 2 that VFIO made without one"), "{}", words(&made_up));
    }

    #[test]
    fn interrupt_remapping_is_on_off_or_unknown() {
        let host = |remapping, command_line: &str, is_guest| Host {
            remapping,
            command_line: command_line.to_owned(),
            is_guest,
            ..host()
        };
        for (remapping, command_line, is_guest, level, part) in [
            (Some(true), "", false, Level::Ok, "on"),
            (Some(false), "intremap=off", false, Level::Problem, "without kernel parameter intremap=off"),
            (
                Some(false),
                "intremap=nosid,off",
                true,
                Level::Problem,
                "without kernel parameter intremap=nosid,off",
            ),
            (Some(false), "quiet noapic", false, Level::Problem, "without kernel parameter noapic"),
            // These turn nothing off.
            (Some(false), "intremap=nosid nox2apic", false, Level::Problem, "in the firmware"),
            (Some(false), "", true, Level::Problem, "intel-iommu,intremap=on"),
            (None, "", false, Level::Unknown, "EPERM"),
        ] {
            let found = interrupt_remapping(&host(remapping, command_line, is_guest), &root(), false);
            assert_eq!(found.level, level, "{command_line}");
            assert!(words(&found).contains(part), "{part} in {}", words(&found));
        }
    }

    #[test]
    fn each_way_to_open_functions_has_its_own_leave_to_do_without_remapping() {
        for (container, iommufd, by_device_file, module) in [
            (true, false, false, None),
            (false, true, true, None),
            (true, false, true, Some("iommufd")),
            (false, true, false, Some("vfio_iommu_type1")),
            (false, false, true, Some("iommufd")),
        ] {
            let unsafe_interrupts = UnsafeInterrupts { container, iommufd };
            let host = Host { remapping: Some(false), unsafe_interrupts, ..host() };
            let found = interrupt_remapping(&host, &root(), by_device_file);
            let words = words(&found);
            match module {
                None => assert_eq!(found.level, Level::Note),
                Some(module) => assert!(
                    words.contains(&format!("tee /sys/module/{module}/parameters/allow_unsafe_interrupts")),
                    "{words}"
                ),
            }
        }
    }
}
