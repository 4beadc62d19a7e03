use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::super::tests::{host, user};
use super::*;

/// Programs of the boot loaders. update-grub does what counts of the real one; others note how they were called.
const PROGRAMS: [(&str, &str); 5] = [
    ("sudo", "exec \"$@\""),
    (
        "update-grub",
        "export GRUB_CMDLINE_LINUX\n\
         . ROOT/etc/default/grub\n\
         for part in ROOT/etc/default/grub.d/*.cfg; do if [ -e \"$part\" ]; then . \"$part\"; fi; done\n\
         echo \"linux /vmlinuz root=/dev/sda1 $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT\" >ROOT/boot/grub/grub.cfg",
    ),
    ("grubby", "echo grubby \"$@\" >>ROOT/called"),
    ("proxmox-boot-tool", "echo proxmox-boot-tool \"$@\" >>ROOT/called"),
    ("kernel-install", "echo kernel-install \"$@\" >>ROOT/called; [ -f \"$3\" ]"),
];

/// A host's files, in a folder that stands for its root.
struct Files {
    root: TempDir,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Files {
        let files_of = Files { root: tempfile::tempdir().unwrap() };
        for (path, content) in files.iter().copied().chain([("boot/grub/grub.cfg", "")]) {
            files_of.write(path, content);
        }
        for (name, script) in PROGRAMS {
            let script = script.replace("ROOT", files_of.root.path().to_str().unwrap());
            let program = files_of.write(&format!("programs/{name}"), &format!("#!/bin/sh\n{script}\n"));
            fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        files_of
    }

    fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Without the blanks that are left where a word was.
    fn read(&self, path: &str) -> String {
        let text = fs::read_to_string(self.root.path().join(path)).unwrap_or_default();
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    /// What the commands said, if one of them failed. They are run as they are printed, but for where the files are.
    fn run(&self, remedy: &Remedy) -> Result<(), String> {
        let root = self.root.path().to_str().unwrap();
        let path = format!("{root}/programs:{}", std::env::var("PATH").unwrap());
        let mut said = String::new();
        let mut failed = false;
        for command in &remedy.commands {
            let mut command = command.clone();
            for folder in ["/etc/", "/boot/", "/lib/modules/"] {
                command = command.replace(&format!(" {folder}"), &format!(" {root}{folder}"));
            }
            let ran = Command::new("sh").args(["-c", &command]).env("PATH", &path).output().unwrap();
            said += &String::from_utf8(ran.stderr).unwrap();
            failed |= !ran.status.success();
        }
        assert_eq!(failed, !said.is_empty(), "{said} {remedy:?}");
        if failed { Err(said) } else { Ok(()) }
    }
}

fn at(boot: Boot) -> Host {
    Host { boot, ..host() }
}

#[test]
fn what_nobody_knows_has_no_commands() {
    let (host, process) = (at(Boot::Unknown), user());
    let added = add(&host, &process, "x");
    assert_eq!((added.kernel_parameter.as_deref(), added.commands.len()), (Some("x"), 0));
    assert!(remove(&host, &process, "x").commands.is_empty());
}

#[test]
fn grubs_of_debian_and_ubuntu() {
    let host = at(Boot::UpdateGrub);
    for quiet in ["\"quiet\"", "'quiet'", "quiet", "\"\"", "''", ""] {
        let line = format!("GRUB_CMDLINE_LINUX={quiet}\n");
        // With or without the line that is usually there, and whatever comes behind.
        for (main, part) in [(line.as_str(), ""), ("A=1\n", line.as_str()), (line.as_str(), line.as_str())] {
            let files = Files::new(&[("etc/default/grub", main)]);
            if !part.is_empty() {
                files.write("etc/default/grub.d/50-cloudimg-settings.cfg", part);
            }
            // The second time it changes nothing.
            for _ in 0..2 {
                files.run(&add(&host, &user(), "intel_iommu=on")).unwrap();
                let made = files.read("boot/grub/grub.cfg");
                let kept = if quiet.contains("quiet") { "quiet " } else { "" };
                assert_eq!(
                    made,
                    format!("linux /vmlinuz root=/dev/sda1 {kept}intel_iommu=on"),
                    "{main}{part}"
                );
            }
            assert_eq!(files.read("etc/default/grub"), main.trim());
        }
    }
    let two = Files::new(&[("etc/default/grub", "")]);
    two.run(&add(&host, &user(), "pci=realloc")).unwrap();
    two.run(&add(&host, &user(), "pci=resource_alignment=12@0000:01:00.0")).unwrap();
    let made = two.read("boot/grub/grub.cfg");
    assert!(made.ends_with(" pci=realloc pci=resource_alignment=12@0000:01:00.0"), "{made}");
}

#[test]
fn words_that_leave_the_grubs_of_debian_and_ubuntu() {
    let host = at(Boot::UpdateGrub);
    let file = "etc/default/grub";
    let part = "etc/default/grub.d/kvm.cfg";
    for (before, word, after) in [
        ("\"intel_iommu=off\"", "intel_iommu=off", "\"\""),
        ("'quiet intel_iommu=off splash'", "intel_iommu=off", "'quiet splash'"),
        ("\"iommu=off intel_iommu=off\"", "iommu=off", "\" intel_iommu=off\""),
        ("\"intel_iommu=off intel_iommu=off x\"", "intel_iommu=off", "\" x\""),
        ("\"a intel_iommu=sm_on,off\"", "intel_iommu=sm_on,off", "\"a \""),
        ("\"vfio.x=1 vfio-x=1\"", "vfio.x=1", "\" vfio-x=1\""),
    ] {
        let text = |words: &str| format!("# GRUB\nGRUB_CMDLINE_LINUX_DEFAULT={words}\n");
        for path in [file, part] {
            let files = Files::new(&[(file, "A=1\n")]);
            files.write(path, &text(before));
            files.run(&remove(&host, &user(), word)).unwrap();
            assert_eq!(files.read(path), text(after).trim(), "{word} of {before}");
            assert!(!files.read("boot/grub/grub.cfg").split(' ').any(|there| there == word));
        }
    }
    for (name, files) in [
        ("written elsewhere", vec![(file, "GRUB_CMDLINE_LINUX=\"$(echo intel_iommu=''off)\"\n")]),
        ("of another variable", vec![(file, "X=\"intel_iommu=off\"\nGRUB_CMDLINE_LINUX=\"$X\"\n")]),
        ("without quotes", vec![(file, "GRUB_CMDLINE_LINUX=intel_iommu=off\n")]),
    ] {
        let said = Files::new(&files).run(&remove(&host, &user(), "intel_iommu=off")).unwrap_err();
        assert!(said.contains("intel_iommu=off is still in"), "{name}: {said}");
    }
    let none = Files::new(&[(file, "A=1\n")]).run(&remove(&host, &user(), "noapic")).unwrap_err();
    assert!(none.contains("no input files"), "{none}");
}

/// update-grub of others reads no parts.
#[test]
fn a_grub_that_does_not_listen() {
    let files = Files::new(&[("etc/default/grub", "")]);
    let program = files.write("programs/update-grub", "#!/bin/sh\n");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    let said = files.run(&add(&at(Boot::UpdateGrub), &user(), "intel_iommu=on")).unwrap_err();
    assert!(said.contains("intel_iommu=on is not in"), "{said}");
}

#[test]
fn grubby_is_told() {
    let (host, files) = (at(Boot::Grubby), Files::new(&[]));
    files.run(&add(&host, &user(), "intel_iommu=on")).unwrap();
    files.run(&remove(&host, &user(), "iommu=$(x)'off")).unwrap();
    assert_eq!(
        files.read("called"),
        "grubby --update-kernel=ALL --args=intel_iommu=on\n\
         grubby --update-kernel=ALL --remove-args=iommu=$(x)'off"
    );
}

#[test]
fn one_line_of_systemds_and_of_proxmox() {
    let file = "etc/kernel/cmdline";
    for (boot, called) in [
        (Boot::Proxmox, "proxmox-boot-tool refresh"),
        (Boot::KernelInstall, "kernel-install add RELEASE IMAGE"),
    ] {
        let release = String::from_utf8(Command::new("uname").arg("-r").output().unwrap().stdout).unwrap();
        let release = release.trim();
        for (image, before, word, with, without) in [
            (
                "boot/vmlinuz-RELEASE",
                "root=/dev/sda1\n",
                "intel_iommu=on",
                "root=/dev/sda1 intel_iommu=on",
                "root=/dev/sda1",
            ),
            (
                "lib/modules/RELEASE/vmlinuz",
                "# made by hand\n\nroot=x",
                "a.b=1/2",
                "# made by hand\n\nroot=x a.b=1/2",
                "# made by hand\n\nroot=x",
            ),
            ("boot/vmlinuz-RELEASE", "x intel_iommu=on y\n", "intel_iommu=on", "x intel_iommu=on y", "x y"),
            ("boot/vmlinuz-RELEASE", "aXb=1 iommu=pt\n", "a.b=1", "aXb=1 iommu=pt a.b=1", "aXb=1 iommu=pt"),
        ] {
            let image = image.replace("RELEASE", release);
            let files = Files::new(&[(file, before), (&image, "")]);
            let host = at(boot);
            for _ in 0..2 {
                files.run(&add(&host, &user(), word)).unwrap();
                assert_eq!(files.read(file), with);
            }
            files.run(&remove(&host, &user(), word)).unwrap();
            assert_eq!(files.read(file), without);
            let image = files.root.path().join(&image);
            let call = called.replace("RELEASE", release).replace("IMAGE", image.to_str().unwrap());
            assert_eq!(files.read("called"), [call.as_str(); 3].join("\n"));
        }
        let empty = Files::new(&[(file, "# nothing\n"), (&format!("boot/vmlinuz-{release}"), "")]);
        let said = empty.run(&add(&at(boot), &user(), "intel_iommu=on")).unwrap_err();
        assert!(said.contains("intel_iommu=on is not in"), "{said}");
    }
}
