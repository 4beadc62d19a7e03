//! `slotpass reserve`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::changes;
use crate::host::reserve::plan::{self, Other};
use crate::host::reserve::{Host, smartos};

/// Takes functions from their drivers for guests, now and at every boot
///
/// A function is named by its address (0000:01:00.0), its directory in sysfs, or its physical path. It is bound to vfio-pci, and
/// /etc/ppt_aliases gets its physical path, which `slotpass apply` reads at boot. The others of its IOMMU group that are in the
/// way are named and asked for. All is done, or nothing.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The functions
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Only until the host is switched off
    #[arg(long, conflicts_with = "boot")]
    now: bool,
    /// Only from the next boot on
    #[arg(long)]
    boot: bool,
    /// By their ids: all functions of this host that have the same vendor and device id
    #[arg(long)]
    by_id: bool,
    /// Without asking, also the others of their IOMMU groups that are in the way
    #[arg(long)]
    group: bool,
    /// Also what the host needs: the drive that it runs from, its way to the network, its display
    #[arg(long)]
    force: bool,
    /// Also in the initramfs, so that drivers there do not get them first; that goes by ids, so it is true of all such devices
    #[arg(long, conflicts_with = "now")]
    initramfs: bool,
    /// On the SmartOS boot key that is mounted at DIR, not in this host; devices are physical paths or ids (pciex8086,37d2)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["now", "boot", "by_id", "group", "force", "initramfs"])]
    smartos: Option<PathBuf>,
    /// Prints each change, as shell commands, and makes none
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
pub fn reserve(arguments: Arguments) -> ExitCode {
    let host = Host::default();
    let Arguments { devices, now, boot, by_id, group, force, initramfs, smartos, dry_run } = arguments;
    if let Some(directory) = smartos {
        return match smartos::reserve(&directory, &devices) {
            Ok(plan) => changes::make(&host, plan, dry_run),
            Err(error) => changes::refuse(&[error]),
        };
    }
    let request =
        plan::Reserve { names: devices, only_now: now, only_boot: boot, by_id, group, force, initramfs };
    // Nobody waits for a person: what is asked for is decided before others are kept from changing drivers.
    let mut agreed = Vec::new();
    match plan::reserve(&host, &request, &mut |others| {
        agreed = others.to_vec();
        agree(others)
    }) {
        Err(refusals) => return changes::refuse(&refusals),
        Ok(plan) if dry_run => return changes::make(&host, plan, dry_run),
        Ok(_) => {}
    }
    let _lock = match changes::lock("reserve") {
        Ok(lock) => lock,
        Err(code) => return code,
    };
    // Others may be in the way by now: nobody agreed to those.
    match plan::reserve(&host, &request, &mut |others| Other::are_agreed(&agreed, others)) {
        Ok(plan) => changes::make(&host, plan, dry_run),
        Err(refusals) => changes::refuse(&refusals),
    }
}

/// Asks, if there is somebody to ask.
fn agree(others: &[Other]) -> bool {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return false;
    }
    for other in others {
        let Other { address, driver, with } = other;
        let _ =
            writeln!(stderr, "slotpass: {address} is in the same IOMMU group as {with}, and with {driver}");
    }
    let _ = write!(stderr, "Reserve {} as well? [y/N] ", if others.len() == 1 { "it" } else { "them" });
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}
