//! KVM, which every guest needs.

use std::io;

use crate::doctor::facts::host::{Host, Kvms, Virtualization};
use crate::doctor::facts::kvm::KvmFailure;
use crate::doctor::facts::process::Process;
use crate::doctor::finding::{Check, Finding, Remedy, Subject};

pub fn check(host: &Host, process: &Process) -> Finding {
    match &host.kvm {
        Kvms::Opens { .. } => Check::Kvm.ok(Subject::Host, "/dev/kvm opens, and makes VMs"),
        Kvms::Fails(KvmFailure::Open(errno)) => not_open(host, process, *errno),
        Kvms::Fails(KvmFailure::Call(call, errno)) => makes_none(call, *errno),
        Kvms::Fails(KvmFailure::Other(text)) => Check::Kvm.problem(Subject::Host, text.clone()),
    }
}

fn not_open(host: &Host, process: &Process, errno: i32) -> Finding {
    let error = io::Error::from_raw_os_error(errno);
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

fn makes_none(call: &str, errno: i32) -> Finding {
    let error = io::Error::from_raw_os_error(errno);
    let found = Check::Kvm.problem(Subject::Host, format!("/dev/kvm opens, but {call} fails: {error}"));
    match (call, errno) {
        // Whose VMX or SVM is on already, which KVM turns on with the first VM (`vmx_hardware_enable`,
        // `svm_hardware_enable`).
        ("KVM_CREATE_VM", libc::EBUSY) => found
            .because("another hypervisor has the processor's virtualization")
            .mended(Remedy::by_hand("end its guests, and unload its modules (VirtualBox, VMware)")),
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use crate::doctor::tests::{host, user, words};

    #[test]
    fn it_does_not_open_and_why() {
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
            let kvm = Kvms::Fails(KvmFailure::Open(errno));
            let host = Host { kvm, virtualization, is_guest, kvm_loaded: is_loaded, ..host() };
            let found = check(&host, &user());
            assert_eq!(found.level, Level::Problem);
            assert!(words(&found).contains(part), "{part} in {}", words(&found));
        }
        assert_eq!(check(&host(), &user()).level, Level::Ok);
        let kvm = Kvms::Fails(KvmFailure::Open(libc::EACCES));
        let alone = Host { kvm, kvm_group: None, ..host() };
        assert!(words(&check(&alone, &user())).contains("sudo chown ann /dev/kvm"));
    }

    #[test]
    fn it_opens_and_makes_no_vm() {
        for (call, errno, parts) in [
            ("KVM_CREATE_VM", libc::EBUSY, ["KVM_CREATE_VM fails", "another hypervisor"]),
            ("KVM_CREATE_VM", libc::ENOMEM, ["KVM_CREATE_VM fails", "Cannot allocate memory"]),
            ("KVM_CREATE_IRQCHIP", libc::EBUSY, ["KVM_CREATE_IRQCHIP fails", "resource busy"]),
        ] {
            let found = check(&Host { kvm: Kvms::Fails(KvmFailure::Call(call, errno)), ..host() }, &user());
            assert_eq!(found.level, Level::Problem);
            let words = words(&found);
            assert!(parts.iter().all(|part| words.contains(part)), "{parts:?} in {words}");
            assert_eq!(words.contains("another hypervisor"), parts.contains(&"another hypervisor"));
        }
    }
}
