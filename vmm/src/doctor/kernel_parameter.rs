//! Remedies that are words on the host kernel's command line, with the commands that put them there.

use super::facts::host::{Boot, Host};
use super::facts::process::Process;
use super::finding::Remedy;

/// Puts `word` on the command line.
pub fn add(host: &Host, process: &Process, word: &str) -> Remedy {
    let commands: Vec<String> = match host.boot {
        Boot::UpdateGrub => vec![
            format!("sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{word} /' /etc/default/grub"),
            "update-grub".to_owned(),
        ],
        Boot::Grubby => vec![format!("grubby --update-kernel=ALL --args={word}")],
        Boot::Proxmox => vec![edit_first_line(word), "proxmox-boot-tool refresh".to_owned()],
        Boot::KernelInstall => vec![edit_first_line(word), "kernel-install add-all".to_owned()],
        Boot::Unknown => Vec::new(),
    };
    remedy(format!("boot the host with kernel parameter {word}"), word, process, commands)
}

/// Takes `word` off the command line.
pub fn remove(host: &Host, process: &Process, word: &str) -> Remedy {
    let pattern = word.replace('.', "\\.");
    let commands: Vec<String> = match host.boot {
        Boot::UpdateGrub => vec![
            format!("sed -i '/^GRUB_CMDLINE_LINUX/s/\\b{pattern}\\b *//' /etc/default/grub"),
            "update-grub".to_owned(),
        ],
        Boot::Grubby => vec![format!("grubby --update-kernel=ALL --remove-args={word}")],
        Boot::Proxmox => vec![erase_from_first_line(&pattern), "proxmox-boot-tool refresh".to_owned()],
        Boot::KernelInstall => vec![erase_from_first_line(&pattern), "kernel-install add-all".to_owned()],
        Boot::Unknown => Vec::new(),
    };
    let commands = commands.iter().map(|command| process.as_root(command));
    Remedy::commands(format!("boot the host without kernel parameter {word}"), commands)
}

fn edit_first_line(word: &str) -> String {
    format!("sed -i '1s/$/ {word}/' /etc/kernel/cmdline")
}

fn erase_from_first_line(pattern: &str) -> String {
    format!("sed -i '1s/\\b{pattern}\\b *//' /etc/kernel/cmdline")
}

fn remedy(what: String, word: &str, process: &Process, commands: Vec<String>) -> Remedy {
    let commands = commands.iter().map(|command| process.as_root(command));
    Remedy { kernel_parameter: Some(word.to_owned()), ..Remedy::commands(what, commands) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{host, user};
    use super::*;

    #[test]
    fn each_boot_loader_has_its_commands() {
        let (mut host, process) = (host(), user());
        for (boot, first) in [
            (Boot::UpdateGrub, "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&intel_iommu=on /' /etc/default/grub"),
            (Boot::Grubby, "sudo grubby --update-kernel=ALL --args=intel_iommu=on"),
            (Boot::Proxmox, "sudo sed -i '1s/$/ intel_iommu=on/' /etc/kernel/cmdline"),
            (Boot::KernelInstall, "sudo sed -i '1s/$/ intel_iommu=on/' /etc/kernel/cmdline"),
        ] {
            host.boot = boot;
            let remedy = add(&host, &process, "intel_iommu=on");
            assert_eq!(remedy.kernel_parameter.as_deref(), Some("intel_iommu=on"));
            assert_eq!(remedy.commands[0], first);
        }
        host.boot = Boot::Unknown;
        assert!(
            add(&host, &process, "x").commands.is_empty() && remove(&host, &process, "x").commands.is_empty()
        );
    }

    /// The commands are tried on files, by the shell that a user would give them to.
    #[test]
    fn the_edits_do_what_they_say() {
        let folder = tempfile::tempdir().unwrap();
        let (mut host, mut process) = (host(), user());
        process.uid = 0;
        for (boot, path, before, after) in [
            (
                Boot::UpdateGrub,
                "/etc/default/grub",
                "A=1\nGRUB_CMDLINE_LINUX=\"quiet\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"splash\"\n",
                "A=1\nGRUB_CMDLINE_LINUX=\"intel_iommu=on quiet\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"splash\"\n",
            ),
            (
                Boot::KernelInstall,
                "/etc/kernel/cmdline",
                "root=/dev/sda1\n",
                "root=/dev/sda1 intel_iommu=on\n",
            ),
        ] {
            host.boot = boot;
            let file = folder.path().join(path.trim_start_matches('/').replace('/', "-"));
            std::fs::write(&file, before).unwrap();
            let run = |remedy: &Remedy| {
                let command = remedy.commands[0].replace(path, file.to_str().unwrap());
                assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
                std::fs::read_to_string(&file).unwrap()
            };
            assert_eq!(run(&add(&host, &process, "intel_iommu=on")), after);
            let removed = run(&remove(&host, &process, "intel_iommu=on"));
            assert_eq!(removed.replace(" \n", "\n"), before);
        }
    }
}
