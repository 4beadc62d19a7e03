use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Emulator, Failure, Kernel};

/// What `guest-tests/run` prepared before it started the scenarios.
#[derive(Clone, Debug)]
pub struct Provisioned {
    /// Kernels and initramfs images, as `guest-tests/provision` left them.
    images: PathBuf,
    /// The release build of the VMM under test.
    slotpass: PathBuf,
    /// The VMM under test with functions of an illumos host.
    slotpass_over_ppt: Option<PathBuf>,
    installed_qemu: Qemu,
    qemu_with_igb: Option<Qemu>,
    /// As `images`, with another kernel for the machine.
    kernel_6_1: Option<PathBuf>,
    kernel_iommufd: Option<PathBuf>,
    /// A Debian, and slotpass' package for it.
    debian: Option<PathBuf>,
    package: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Qemu {
    program: OsString,
    nested_paging: bool,
}

impl Qemu {
    fn at(program: OsString) -> Option<Self> {
        let version = Command::new(&program).arg("--version").output().ok()?;
        let nested_paging = has_nested_paging(&String::from_utf8_lossy(&version.stdout));
        Some(Self { program, nested_paging })
    }
}

/// What is missing for the scenarios to run.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("SLOTPASS_TEST_MACHINE is not set: the test machine is not provisioned")]
    Machine,
    #[error("SLOTPASS_TEST_MACHINE={path} holds no provisioned test machine", path = .0.display())]
    Images(PathBuf),
    #[error("qemu-system-x86_64 cannot be started")]
    Qemu,
    #[error("SLOTPASS_BIN is not set: there is no VMM to test")]
    Binary,
    #[error("SLOTPASS_BIN={path} does not exist; cargo build --release", path = .0.display())]
    BinaryFile(PathBuf),
}

impl Provisioned {
    /// Reads `SLOTPASS_TEST_MACHINE` (the directory that `guest-tests/provision` prints) and `SLOTPASS_BIN`; and, if they
    /// are set, `SLOTPASS_OVER_PPT_BIN` (the program of `guest-tests/ppt`), `SLOTPASS_TEST_KERNEL_6_1`, `SLOTPASS_TEST_KERNEL_IOMMUFD`,
    /// `SLOTPASS_TEST_QEMU` and `SLOTPASS_TEST_DEBIAN`, the directories that `provision --kernel 6.1`, `--kernel iommufd`,
    /// `--qemu` and `--debian` print, and `SLOTPASS_PACKAGE`, what `vmm/dist/package` built.
    ///
    /// Only `guest-tests/run` sets them, so that a plain `cargo test --workspace` never boots machines.
    pub fn from_environment() -> Result<Self, Missing> {
        let images = PathBuf::from(env::var_os("SLOTPASS_TEST_MACHINE").ok_or(Missing::Machine)?);
        let slotpass = PathBuf::from(env::var_os("SLOTPASS_BIN").ok_or(Missing::Binary)?);
        if !images.join("complete").exists() {
            return Err(Missing::Images(images));
        }
        if !slotpass.exists() {
            return Err(Missing::BinaryFile(slotpass));
        }
        let installed_qemu = Qemu::at("qemu-system-x86_64".into()).ok_or(Missing::Qemu)?;
        let qemu_with_igb = env::var_os("SLOTPASS_TEST_QEMU")
            .and_then(|directory| Qemu::at(Path::new(&directory).join("qemu-system-x86_64").into()));
        Ok(Self {
            images,
            slotpass,
            slotpass_over_ppt: env::var_os("SLOTPASS_OVER_PPT_BIN").map(PathBuf::from),
            installed_qemu,
            qemu_with_igb,
            kernel_6_1: env::var_os("SLOTPASS_TEST_KERNEL_6_1").map(PathBuf::from),
            kernel_iommufd: env::var_os("SLOTPASS_TEST_KERNEL_IOMMUFD").map(PathBuf::from),
            debian: env::var_os("SLOTPASS_TEST_DEBIAN").map(PathBuf::from),
            package: env::var_os("SLOTPASS_PACKAGE").map(PathBuf::from),
        })
    }

    pub fn slotpass(&self) -> &Path {
        &self.slotpass
    }

    pub(crate) fn slotpass_over_ppt(&self) -> Result<&Path, Failure> {
        self.slotpass_over_ppt.as_deref().ok_or(Failure::NotProvisioned {
            what: "slotpass-over-ppt (SLOTPASS_OVER_PPT_BIN)",
            command: "run",
        })
    }

    fn emulator(&self, emulator: Emulator) -> Result<&Qemu, Failure> {
        match emulator {
            Emulator::Installed => Ok(&self.installed_qemu),
            Emulator::Newer => self
                .qemu_with_igb
                .as_ref()
                .ok_or(Failure::NotProvisioned { what: "a QEMU that has igb", command: "provision --qemu" }),
        }
    }

    /// The program that is the machine.
    pub(crate) fn qemu(&self, emulator: Emulator) -> Result<&OsString, Failure> {
        Ok(&self.emulator(emulator)?.program)
    }

    /// QEMU's name for the machine's processor.
    pub(crate) fn processor(&self, emulator: Emulator) -> Result<&'static str, Failure> {
        Ok(if self.emulator(emulator)?.nested_paging { "EPYC,+svm,+npt" } else { "EPYC,+svm,-npt" })
    }

    /// By how much guests are given more time than they need with nested paging.
    pub fn patience(&self) -> u32 {
        if self.installed_qemu.nested_paging { 1 } else { 4 }
    }

    /// The directory with the machine's kernel and initramfs.
    pub(crate) fn machine_images(&self, kernel: Kernel) -> Result<&Path, Failure> {
        match kernel {
            Kernel::Usual => Ok(&self.images),
            Kernel::V6_1 => self.kernel_6_1.as_deref().ok_or(Failure::NotProvisioned {
                what: "Debian's kernel 6.1",
                command: "provision --kernel 6.1",
            }),
            Kernel::Iommufd => self.kernel_iommufd.as_deref().ok_or(Failure::NotProvisioned {
                what: "a kernel with iommufd",
                command: "provision --kernel iommufd",
            }),
            Kernel::Debian => self
                .debian
                .as_deref()
                .ok_or(Failure::NotProvisioned { what: "a Debian", command: "provision --debian" }),
        }
    }

    /// The Debian package of the VMM under test.
    pub fn package(&self) -> Result<&Path, Failure> {
        self.package.as_deref().ok_or(Failure::NotProvisioned {
            what: "slotpass' package (SLOTPASS_PACKAGE)",
            command: "provision --cargo-deb, vmm/dist/package",
        })
    }

    /// The distribution's kernel as it is packaged.
    pub fn bzimage(&self) -> PathBuf {
        self.images.join("vmlinuz")
    }

    /// The same kernel unpacked: starts through its PVH entry, without inflating itself first.
    pub fn vmlinux(&self) -> PathBuf {
        self.images.join("vmlinux")
    }

    pub fn guest_initramfs(&self) -> PathBuf {
        self.images.join("l2.cpio")
    }

    /// The same with the drivers of more devices.
    pub fn guest_initramfs_with_more_drivers(&self) -> PathBuf {
        self.images.join("l2-more.cpio")
    }
}

/// QEMU 8 gets nested paging wrong: a guest in the machine that starts in 32-bit mode never comes to its first
/// instruction. There the machine's KVM has to use shadow paging, which is several times slower.
fn has_nested_paging(version: &str) -> bool {
    let major = version.split_once("version ").and_then(|(_, number)| number.split('.').next());
    major != Some("8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_8_gets_no_nested_paging() {
        for (version, nested_paging) in [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", true),
            ("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)\nCopyright (c)", false),
            ("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", true),
            ("something else", true),
        ] {
            assert_eq!(has_nested_paging(version), nested_paging, "{version}");
        }
    }
}
