//! `slotpass release`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::changes;
use crate::host::reserve::plan;
use crate::host::reserve::{Host, smartos};

/// Gives reserved functions back to their drivers, now and at every boot
///
/// The undoing of `slotpass reserve`. A function that is not in this host now is named as in /etc/ppt_aliases; its line is removed.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The functions
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Also the others that a line of /etc/ppt_aliases means, where one of these is meant by its ids
    #[arg(long)]
    by_id: bool,
    /// Also the others of their IOMMU groups that are reserved
    #[arg(long)]
    group: bool,
    /// Also from the initramfs
    #[arg(long)]
    initramfs: bool,
    /// On the SmartOS boot key that is mounted at DIR, not in this host
    #[arg(long, value_name = "DIR", conflicts_with_all = ["by_id", "group", "initramfs"])]
    smartos: Option<PathBuf>,
    /// Prints each change, as shell commands, and makes none
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
pub fn release(arguments: Arguments) -> ExitCode {
    let host = Host::default();
    let Arguments { devices, by_id, group, initramfs, smartos, dry_run } = arguments;
    if let Some(directory) = smartos {
        return match smartos::release(&directory, &devices) {
            Ok(plan) => changes::make(&host, plan, dry_run),
            Err(error) => changes::refuse(&[error]),
        };
    }
    let request = plan::Release { names: devices, by_id, group, initramfs };
    let _lock = match dry_run {
        true => None,
        false => match changes::lock("release") {
            Ok(lock) => Some(lock),
            Err(code) => return code,
        },
    };
    match plan::release(&host, &request) {
        Ok(plan) => changes::make(&host, plan, dry_run),
        Err(refusals) => changes::refuse(&refusals),
    }
}
