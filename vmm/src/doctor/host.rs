//! The host in general: KVM, IOMMU, interrupt remapping, VFIO.

mod iommu;
mod kvm;

use super::facts::Facts;
use super::facts::access::Access;
use super::facts::host::{Host, Module};
use super::facts::process::Process;
use super::finding::{Check, Finding, Level, Remedy, Subject};

/// All of it. What only functions of the host need is looked at only `with_functions`.
pub fn check(facts: &Facts, with_functions: bool) -> Vec<Finding> {
    let (host, process) = (&facts.host, &facts.process);
    let mut findings = vec![kvm::check(host, process)];
    if with_functions {
        findings.push(iommu::iommu(host, process));
        if host.groups > 0 {
            findings.push(iommu::interrupt_remapping(host, process, facts.by_device_file()));
        }
        findings.extend(vfio(host, process, facts.by_device_file(), &facts.vfio_drivers()));
    }
    findings
}

/// What functions are opened through. `drivers` are those that hold the functions that were asked about, if all of them are held by
/// VFIO drivers: some kinds of devices have one of their own, and vfio-pci is not needed then.
fn vfio(host: &Host, process: &Process, by_device_file: bool, drivers: &[&str]) -> Vec<Finding> {
    let mut findings = vec![match host.vfio_pci {
        Module::Loaded => Check::Vfio.ok(Subject::Host, "vfio-pci is loaded"),
        _ if !drivers.is_empty() => {
            Check::Vfio.ok(Subject::Host, format!("{} is loaded", drivers.join(" and ")))
        }
        Module::Available => Check::Vfio
            .problem(Subject::Host, "vfio-pci is not loaded")
            .mended(Remedy::commands("load the module", [process.as_root("modprobe vfio-pci")])),
        Module::Missing => Check::Vfio
            .problem(Subject::Host, format!("kernel {} has no module vfio-pci", host.kernel))
            .because("it needs CONFIG_VFIO_PCI; kernels that are made for virtual machines often lack it")
            .mended(Remedy::by_hand("install the distribution's usual kernel and boot it")),
    }];
    let (path, access) = match by_device_file {
        true => ("/dev/iommu", host.iommufd),
        false => ("/dev/vfio/vfio", host.container),
    };
    findings.extend(match access {
        Access::Granted => Some(Check::Vfio.ok(Subject::Host, format!("{path} can be opened"))),
        // It comes with the module.
        Access::Absent if findings.iter().any(|finding| finding.level == Level::Problem) => None,
        Access::Absent => {
            let found = Check::Vfio.problem(Subject::Host, format!("{path} is not there"));
            Some(if by_device_file {
                without_iommufd(host, process, found)
            } else {
                without_container(process, found)
            })
        }
        Access::Denied => {
            Some(Check::Vfio.problem(Subject::Host, format!("{} may not open {path}", process.user)).mended(
                Remedy::commands(
                    "let everybody open it, which alone gives nobody a function",
                    [process.as_root(&format!("chmod 666 {path}"))],
                ),
            ))
        }
    });
    findings
}

fn without_container(process: &Process, found: Finding) -> Finding {
    found.because("the module behind it is not loaded, or its file was removed").mended(Remedy::commands(
        "load the module again, when no guest uses it",
        [process.as_root("modprobe -r vfio_iommu_type1 vfio-pci"), process.as_root("modprobe vfio-pci")],
    ))
}

fn without_iommufd(host: &Host, process: &Process, found: Finding) -> Finding {
    let load = process.as_root("modprobe iommufd");
    let found = match host.iommufd_module {
        Module::Available => {
            found.because("its module is not loaded").mended(Remedy::commands("load the module", [load]))
        }
        Module::Loaded => found.because("its file was removed").mended(Remedy::commands(
            "load the module again, when no guest uses it",
            [
                process.as_root("modprobe -r vfio_iommu_type1 vfio-pci iommufd"),
                load,
                process.as_root("modprobe vfio-pci"),
            ],
        )),
        Module::Missing => found.because(format!("kernel {} has no iommufd (CONFIG_IOMMUFD)", host.kernel)),
    };
    found.mended(by_group())
}

/// Groups and containers are there in all kernels but those that have iommufd and leave them out.
pub(super) fn by_group() -> Remedy {
    Remedy::arguments("open functions by group and container", "--iommufd off")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, drive, facts, host, user, words};
    use super::*;

    #[test]
    fn vfio_needs_its_module_and_its_file() {
        for (vfio_pci, container, by_device_file, level, part) in [
            (Module::Loaded, Access::Granted, false, Level::Ok, "/dev/vfio/vfio can be opened"),
            (Module::Loaded, Access::Denied, true, Level::Ok, "/dev/iommu can be opened"),
            (Module::Loaded, Access::Denied, false, Level::Problem, "sudo chmod 666 /dev/vfio/vfio"),
            (Module::Loaded, Access::Absent, false, Level::Problem, "sudo modprobe vfio-pci"),
            (Module::Available, Access::Absent, false, Level::Problem, "sudo modprobe vfio-pci"),
            (Module::Available, Access::Denied, false, Level::Problem, "sudo chmod 666 /dev/vfio/vfio"),
            (Module::Missing, Access::Absent, false, Level::Problem, "CONFIG_VFIO_PCI"),
        ] {
            let found = vfio(&Host { vfio_pci, container, ..host() }, &user(), by_device_file, &[]);
            let last = found.last().unwrap();
            assert_eq!(last.level, level);
            assert!(words(last).contains(part), "{part} in {}", words(last));
        }
    }

    #[test]
    fn functions_of_other_vfio_drivers_need_the_files_and_not_vfio_pci() {
        let drivers = ["mlx5_vfio_pci"];
        for (container, levels, part) in [
            (Access::Granted, [Level::Ok, Level::Ok], "mlx5_vfio_pci is loaded"),
            (Access::Absent, [Level::Ok, Level::Problem], "/dev/vfio/vfio is not there"),
        ] {
            let host = Host { vfio_pci: Module::Available, container, ..host() };
            let found = vfio(&host, &user(), false, &drivers);
            assert_eq!(found.iter().map(|finding| finding.level).collect::<Vec<_>>(), levels);
            assert!(found.iter().any(|finding| words(finding).contains(part)), "{part} in {found:?}");
        }
        let mut facts = facts();
        assert_eq!(facts.vfio_drivers(), ["vfio-pci"]);
        let mut unbound = drive();
        unbound.sysfs.driver = None;
        facts.asked.push(asked(unbound));
        assert!(facts.vfio_drivers().is_empty(), "one of them is yet to be bound");
        facts.asked.clear();
        assert!(facts.vfio_drivers().is_empty());
    }

    #[test]
    fn iommufd_is_loaded_or_done_without() {
        for (iommufd_module, parts) in [
            (Module::Available, ["sudo modprobe iommufd", "--iommufd off"]),
            (Module::Loaded, ["modprobe -r vfio_iommu_type1 vfio-pci iommufd", "--iommufd off"]),
            (Module::Missing, ["CONFIG_IOMMUFD", "--iommufd off"]),
        ] {
            let host = Host { iommufd: Access::Absent, iommufd_module, ..host() };
            let found = vfio(&host, &user(), true, &["vfio-pci"]);
            let last = found.last().unwrap();
            assert_eq!(last.level, Level::Problem);
            assert!(parts.iter().all(|part| words(last).contains(part)), "{parts:?} in {}", words(last));
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
