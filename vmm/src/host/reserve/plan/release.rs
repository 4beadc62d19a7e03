//! What `slotpass release` does.

use std::path::PathBuf;

use passthru::pci::HostAddress;

use super::Plan;
use crate::host::holders;
use crate::host::physical_path;
use crate::host::reserve::change::{Change, Edit, LinesChange, Switch};
use crate::host::reserve::inventory::{Function, Inventory};
use crate::host::reserve::meaning::{AliasFile, Place};
use crate::host::reserve::refusal::Refusal;
use crate::host::reserve::{Host, devices, initramfs};

/// What a user asks for.
#[derive(Clone, Debug, Default)]
pub struct Release {
    /// Names of functions, or aliases as they are in a file.
    pub names: Vec<String>,
    /// All functions that a line means which means one of those named.
    pub by_id: bool,
    /// Also those of their groups that are reserved.
    pub group: bool,
    /// Also from the initramfs.
    pub initramfs: bool,
}

/// Decides.
pub fn release(host: &Host, request: &Release) -> Result<Plan, Vec<Refusal>> {
    let one = |refusal: Refusal| vec![refusal];
    let inventory = Inventory::read(host).map_err(|error| vec![Refusal::Devices(error)])?;
    let read = |path| AliasFile::read(path).map_err(|error| vec![Refusal::Read(error)]);
    let files = [read(&host.at_boot)?, read(&host.until_off)?];
    let mut plan = Plan::default();
    plan.notes.extend(files.iter().flat_map(AliasFile::remarks));
    let mut functions: Vec<&Function> = Vec::new();
    let mut absent: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let mut absent_names: Vec<String> = Vec::new();
    for name in &request.names {
        match devices::one(host, &inventory, name) {
            Ok(function) => {
                add(&mut functions, function);
                // Another spelling of its path, which is no name of it.
                absent.extend(places_of_alias(&files, name.as_bytes()));
            }
            // What is in a file and not in the host is taken out of the file.
            Err(refusal) => {
                // What is written otherwise than illumos does it is taken out as it is.
                let verbatim = places_of_alias(&files, name.as_bytes());
                let name = match verbatim.is_empty() {
                    true => physical_path::without_devices(name),
                    false => name,
                };
                let alias = name.as_bytes();
                let found = places_of_alias(&files, alias);
                let in_initramfs = initramfs::has(host, name).map_err(one)?;
                if found.is_empty() && !(request.initramfs && in_initramfs) {
                    return Err(vec![refusal]);
                }
                let meant = inventory
                    .iter()
                    .filter(|function| function.names().iter().any(|n| n.as_bytes() == alias));
                let meant: Vec<&Function> = meant.collect();
                if meant.is_empty() {
                    plan.notes.push(format!("{name}: this host has no such function now"));
                }
                meant.into_iter().for_each(|function| add(&mut functions, function));
                absent.extend(found);
                absent_names.push(name.to_owned());
            }
        }
    }
    let asked = functions.len();
    spread(request, &files, &inventory, &mut functions, &absent)?;
    if request.group {
        for function in functions.clone() {
            inventory.reserved_beside(function).into_iter().for_each(|other| add(&mut functions, other));
        }
        spread(request, &files, &inventory, &mut functions, &absent)?;
    }
    let held = functions.iter().flat_map(|function| {
        // A group's file is open for another of its functions, perhaps; but none of them can be taken out then.
        let holders = if function.is_vfio() { holders::of(&function.sysfs).seen } else { Vec::new() };
        holders.into_iter().map(|holder| Refusal::Held { address: function.address(), holder })
    });
    let held: Vec<Refusal> = held.collect();
    if !held.is_empty() {
        return Err(held);
    }
    plan.notes.extend(beside(&inventory, &functions, asked));
    plan.functions = functions.iter().map(|function| function.address()).collect();
    if request.initramfs {
        let (changes, notes) = initramfs::remove(host, &functions, &absent_names).map_err(one)?;
        plan.changes.extend(changes);
        plan.notes.extend(notes);
    } else {
        plan.notes.extend(initramfs::staying(host, &functions, &absent_names).map_err(one)?);
    }
    let switches =
        functions.iter().map(|function| Switch::of(function)).filter(|switch| !switch.is_released());
    plan.changes.extend(switches.map(Change::ToHost));
    // The alias last: as long as it is there, what was begun can be finished.
    for file in &files {
        let mut edits: Vec<Edit> = Vec::new();
        let of_functions =
            functions.iter().flat_map(|function| file.places_of(function)).map(|place| place.alias);
        let of_absent = absent.iter().filter(|(path, _)| *path == file.path).map(|(_, alias)| alias.clone());
        for edit in of_functions.chain(of_absent).map(Edit::RemoveAlias) {
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        }
        if !edits.is_empty() {
            plan.changes.push(Change::Lines(LinesChange { path: file.path.clone(), edits }));
        }
    }
    Ok(plan)
}

fn add<'a>(functions: &mut Vec<&'a Function>, function: &'a Function) {
    if !functions.iter().any(|other| other.address() == function.address()) {
        functions.push(function);
    }
}

fn places_of_alias(files: &[AliasFile], alias: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    let of = |file: &AliasFile| file.places().any(|place| place.alias == alias);
    files.iter().filter(|file| of(file)).map(|file| (file.path.clone(), alias.to_owned())).collect()
}

/// An alias of a function may mean others too: those are released as well, or it is refused.
fn spread<'a>(
    request: &Release,
    files: &[AliasFile],
    inventory: &'a Inventory,
    functions: &mut Vec<&'a Function>,
    named: &[(PathBuf, Vec<u8>)],
) -> Result<(), Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut next = 0;
    while let Some(function) = functions.get(next).copied() {
        next += 1;
        for (file, place) in
            files.iter().flat_map(|file| file.places_of(function).into_iter().map(move |p| (file, p)))
        {
            let others = others(inventory, functions, &place);
            // Whoever names the alias itself means all that it does.
            if request.by_id || named.iter().any(|(_, alias)| *alias == place.alias) {
                others.into_iter().for_each(|other| add(functions, other));
            } else if !others.is_empty() {
                let others: Vec<HostAddress> = others.iter().map(|other| other.address()).collect();
                let (address, file) = (function.address(), file.path.clone());
                refusals.push(Refusal::Shared { address, file, place, others });
            }
        }
    }
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

fn others<'a>(inventory: &'a Inventory, functions: &[&Function], place: &Place) -> Vec<&'a Function> {
    let is_other = |function: &&Function| functions.iter().all(|other| other.address() != function.address());
    let is_meant = |function: &&Function| function.names().iter().any(|name| name.as_bytes() == place.alias);
    inventory.iter().filter(is_other).filter(is_meant).collect()
}

/// What of the groups stays reserved.
fn beside(inventory: &Inventory, functions: &[&Function], asked: usize) -> Vec<String> {
    let mut staying: Vec<&Function> = Vec::new();
    for function in functions.iter().take(asked) {
        inventory.reserved_beside(function).into_iter().for_each(|other| add(&mut staying, other));
    }
    staying.retain(|other| functions.iter().all(|function| function.address() != other.address()));
    let note = |other: &&Function| {
        let group = other.sysfs.group.unwrap_or_default();
        format!("{} of the same IOMMU group {group} stays reserved; --group releases it too", other.address())
    };
    staying.iter().map(note).collect()
}
