use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `guest-tests/run` prepared before it started the scenarios.
#[derive(Clone, Debug)]
pub struct Provisioned {
    /// Kernels and initramfs images, as `guest-tests/provision` left them.
    images: PathBuf,
    /// The release build of the VMM under test.
    slotpass: PathBuf,
    nested_paging: bool,
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
    /// Reads `SLOTPASS_TEST_MACHINE` (the directory that `guest-tests/provision` prints) and `SLOTPASS_BIN`.
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
        let version =
            Command::new("qemu-system-x86_64").arg("--version").output().map_err(|_| Missing::Qemu)?;
        let nested_paging = has_nested_paging(&String::from_utf8_lossy(&version.stdout));
        Ok(Self { images, slotpass, nested_paging })
    }

    pub fn slotpass(&self) -> &Path {
        &self.slotpass
    }

    /// QEMU's name for the machine's processor.
    pub(crate) fn processor(&self) -> &'static str {
        if self.nested_paging { "EPYC,+svm,+npt" } else { "EPYC,+svm,-npt" }
    }

    /// By how much guests are given more time than they need with nested paging.
    pub(crate) fn patience(&self) -> u32 {
        if self.nested_paging { 1 } else { 4 }
    }

    /// The distribution's kernel as it is packaged.
    pub fn bzimage(&self) -> PathBuf {
        self.images.join("vmlinuz")
    }

    /// The same kernel unpacked: starts through its PVH entry, without inflating itself first.
    pub fn vmlinux(&self) -> PathBuf {
        self.images.join("vmlinux")
    }

    pub fn machine_initramfs(&self) -> PathBuf {
        self.images.join("l1.cpio")
    }

    pub fn guest_initramfs(&self) -> PathBuf {
        self.images.join("l2.cpio")
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
