//! Taking functions from their drivers for guests, and giving them back: `slotpass reserve`, `release` and `apply`.
//!
//! What is to be changed is decided first ([`plan`]), as a list of [`change::Change`]s that can be printed as shell commands
//! or carried out. The file `/etc/ppt_aliases` says which functions are reserved; one that is reserved until the host is
//! switched off is in a file of the same form in [`RUN`]. Nothing else is kept:
//!
//! * `reserve` writes the alias first, and changes the driver then;
//! * `release` changes the driver first, and removes the alias last.
//!
//! So whatever interrupts them, a function is with its old driver, or with its new one, or its alias is in a file, from
//! which `apply`, or the same command again, does the rest.

pub mod carry_out;
pub mod change;
pub mod devices;
pub mod initramfs;
pub mod inventory;
pub mod meaning;
pub mod plan;
pub mod refusal;
pub mod smartos;
#[cfg(test)]
mod test_host;
pub mod uses;

use std::path::{Path, PathBuf};

use ppt_files::ppt_aliases;

/// Where this program keeps what is forgotten when the host is switched off.
pub const RUN: &str = "/run/slotpass";

/// Where a host shows itself, and where its files are.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/sys`
    pub sysfs: PathBuf,
    /// `/proc`
    pub processes: PathBuf,
    /// `/dev`
    pub nodes: PathBuf,
    /// What is reserved at every boot.
    pub at_boot: PathBuf,
    /// What is reserved until the host is switched off.
    pub until_off: PathBuf,
    /// `/etc`, for an initramfs.
    pub etc: PathBuf,
}

impl Default for Host {
    /// This one.
    fn default() -> Host {
        Host {
            sysfs: "/sys".into(),
            processes: "/proc".into(),
            nodes: "/dev".into(),
            at_boot: ppt_aliases::PATH.into(),
            until_off: Path::new(RUN).join("ppt_aliases"),
            etc: "/etc".into(),
        }
    }
}

impl Host {
    /// Its functions in sysfs.
    pub fn functions(&self) -> PathBuf {
        self.sysfs.join("bus/pci/devices")
    }
}
