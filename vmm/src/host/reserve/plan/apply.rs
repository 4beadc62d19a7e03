//! What `slotpass apply` does.

use std::collections::BTreeSet;

use passthru::host::vfio::sysfs;
use ppt_files::file_text::quoted;

use crate::host::reserve::Host;
use crate::host::reserve::change::{Change, Switch};
use crate::host::reserve::inventory::Inventory;
use crate::host::reserve::meaning::AliasFile;
use crate::host::reserve::refusal::Refusal;
use crate::host::reserve::uses::Uses;

/// What is to be done.
#[derive(Debug, Default)]
pub struct Applied {
    /// Each of its own: one that fails keeps none of the others from being done, but for the loading of vfio-pci.
    pub changes: Vec<Change>,
    /// What cannot be done, and what is in the files without effect.
    pub warnings: Vec<String>,
}

/// Decides. Files that do not exist have no lines.
pub fn apply(host: &Host) -> Result<Applied, Refusal> {
    let inventory = Inventory::read(host).map_err(Refusal::Devices)?;
    let mut applied = Applied::default();
    let mut reserved = BTreeSet::new();
    for path in [&host.at_boot, &host.until_off] {
        let file = AliasFile::read(path)?;
        let shown = path.display();
        applied.warnings.extend(file.remarks());
        let absent = file.absent(&inventory).into_iter();
        // What has a finding is named by it.
        let absent =
            absent.filter(|place| !file.aliases.findings().iter().any(|finding| finding.line == place.line));
        applied.warnings.extend(absent.map(|place| {
            format!("{shown}: line {}: this host has no function {} now", place.line, quoted(&place.alias))
        }));
        reserved.extend(file.reserved(&inventory));
    }
    let switches = reserved.iter().filter_map(|address| inventory.get(*address));
    let switches: Vec<_> = switches.filter(|function| !Switch::of(function).is_reserved()).collect();
    if switches.is_empty() {
        return Ok(applied);
    }
    let uses = Uses::read(host);
    for function in switches {
        let address = function.address();
        if function.is_bridge() {
            applied.warnings.push(format!("{address}: left alone, though it is reserved: it is a bridge"));
            continue;
        }
        if function.is_platform() {
            applied.warnings.push(format!(
                "{address}: left to the host, though it is reserved: its class ({:06x}) is that of a part of the host",
                function.identity.class
            ));
            continue;
        }
        // Whoever reserved a display, which takes --force, wants the host to start without it.
        let mut in_use = uses.of(host, function);
        in_use.retain(|found| !found.is_display());
        if in_use.is_empty() {
            applied.changes.push(Change::ToVfio(Switch::of(function)));
        }
        let left =
            in_use.iter().map(|found| format!("{address}: left to the host, though it is reserved: {found}"));
        applied.warnings.extend(left);
    }
    if !applied.changes.is_empty() && !host.sysfs.join("bus/pci/drivers").join(sysfs::DRIVER).is_dir() {
        applied.changes.insert(0, Change::LoadDriver);
    }
    Ok(applied)
}
