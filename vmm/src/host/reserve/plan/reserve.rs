//! What `slotpass reserve` does.

use std::fs;

use passthru::host::vfio::sysfs;

use super::{Other, Plan};
use crate::host::reserve::change::{Change, Edit, LinesChange, Switch};
use crate::host::reserve::inventory::{Function, Inventory};
use crate::host::reserve::meaning::AliasFile;
use crate::host::reserve::refusal::Refusal;
use crate::host::reserve::uses::Uses;
use crate::host::reserve::{Host, devices, initramfs};

/// What a user asks for.
#[derive(Clone, Debug, Default)]
pub struct Reserve {
    /// Names of functions.
    pub names: Vec<String>,
    /// Not at later boots.
    pub only_now: bool,
    /// Not before the next boot.
    pub only_boot: bool,
    /// All functions with the ids of those named, by their ids.
    pub by_id: bool,
    /// Also those of their groups that stand in the way.
    pub group: bool,
    /// Also what the host needs.
    pub force: bool,
    /// Also in the initramfs.
    pub initramfs: bool,
}

/// Decides. `agree` is asked whether these others are to be taken as well, unless that was said before. All that stands in
/// the way is found, not only the first.
pub fn reserve(
    host: &Host,
    request: &Reserve,
    agree: &mut dyn FnMut(&[Other]) -> bool,
) -> Result<Plan, Vec<Refusal>> {
    let inventory = Inventory::read(host).map_err(|error| vec![Refusal::Devices(error)])?;
    let uses = Uses::read(host);
    let mut functions = devices::find(host, &inventory, &request.names).map_err(|refusal| vec![refusal])?;
    if request.by_id {
        let aliases: Vec<String> = functions.iter().map(|function| function.identity.id_alias()).collect();
        let is_meant = |function: &&Function| function.names().iter().any(|name| aliases.contains(name));
        functions = inventory.iter().filter(is_meant).collect();
    }
    let asked = functions.len();
    let others = others(host, &inventory, &functions);
    // What would be refused is refused before anybody is asked.
    let by_path = others.iter().filter_map(|other| inventory.get(other.address)).map(|other| (other, false));
    let mut refusals: Vec<Refusal> = functions
        .iter()
        .map(|function| (*function, request.by_id))
        .chain(by_path)
        .flat_map(|(function, by_id)| refusals(host, request.force, by_id, &uses, function))
        .collect();
    if refusals.is_empty() && !others.is_empty() {
        if request.group || agree(&others) {
            functions.extend(others.iter().filter_map(|other| inventory.get(other.address)));
        } else {
            refusals.extend(in_the_way(&functions, &others));
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    plan(host, request, &inventory, &uses, &functions, asked).map_err(|refusal| vec![refusal])
}

fn others(host: &Host, inventory: &Inventory, functions: &[&Function]) -> Vec<Other> {
    let mut others: Vec<Other> = Vec::new();
    for function in functions {
        for member in sysfs::offenders_in(&host.functions(), function.address()) {
            let is_new = functions.iter().all(|function| function.address() != member.address)
                && others.iter().all(|other| other.address != member.address);
            // Bridges stay: VFIO does not mind them.
            if is_new && inventory.get(member.address).is_some_and(|member| !member.is_bridge()) {
                let driver = member.driver.unwrap_or_default();
                others.push(Other { address: member.address, driver, with: function.address() });
            }
        }
    }
    others
}

fn in_the_way(functions: &[&Function], others: &[Other]) -> Vec<Refusal> {
    let of = |function: &Function| {
        let others = others.iter().filter(|other| other.with == function.address());
        others.map(|other| (other.address, other.driver.clone())).collect::<Vec<_>>()
    };
    let each = functions.iter().map(|function| (function.address(), of(function)));
    each.filter(|(_, others)| !others.is_empty())
        .map(|(address, others)| Refusal::Group { address, others })
        .collect()
}

fn refusals(host: &Host, force: bool, by_id: bool, uses: &Uses, function: &Function) -> Vec<Refusal> {
    let address = function.address();
    if function.is_bridge() {
        return vec![Refusal::Bridge { address }];
    }
    let mut refusals = Vec::new();
    if !force {
        if function.is_platform() {
            refusals.push(Refusal::Platform { address, class: function.identity.class });
        }
        let uses = uses.of(host, function).into_iter();
        refusals.extend(uses.map(|found| Refusal::Used { address, found }));
    }
    if function.sysfs.group.is_none() && !is_without_iommu(host) {
        refusals.push(Refusal::NoGroup { address });
    }
    if function.path.is_none() && !by_id {
        refusals.push(Refusal::NoPhysicalPath { address });
    }
    refusals
}

/// VFIO was told to do without an IOMMU, and makes groups when it gets functions.
fn is_without_iommu(host: &Host) -> bool {
    let parameter = host.sysfs.join("module/vfio/parameters/enable_unsafe_noiommu_mode");
    fs::read_to_string(parameter).is_ok_and(|text| text.trim() == "Y")
}

fn plan(
    host: &Host,
    request: &Reserve,
    inventory: &Inventory,
    uses: &Uses,
    functions: &[&Function],
    asked: usize,
) -> Result<Plan, Refusal> {
    let mut plan =
        Plan { functions: functions.iter().map(|function| function.address()).collect(), ..Plan::default() };
    let mut edits: Vec<Edit> = Vec::new();
    for (number, function) in functions.iter().enumerate() {
        let alias = match &function.path {
            // The ids of what a group has beside are those of functions that nobody asked for.
            Some(path) if !request.by_id || number >= asked => path.clone(),
            _ => function.identity.id_alias(),
        };
        let edit = Edit::AddAlias(alias.into_bytes());
        if !edits.contains(&edit) {
            edits.push(edit);
        }
    }
    // The alias first: from it, whatever happens later is finished.
    let path = if request.only_now { &host.until_off } else { &host.at_boot };
    plan.notes.extend(AliasFile::read(path)?.remarks());
    plan.changes.push(Change::Lines(LinesChange { path: path.clone(), edits }));
    if request.initramfs {
        let (changes, notes) = initramfs::add(host, inventory, uses, functions)?;
        plan.changes.extend(changes);
        plan.notes.extend(notes);
    }
    if !request.only_boot {
        let switches =
            functions.iter().map(|function| Switch::of(function)).filter(|switch| !switch.is_reserved());
        let switches: Vec<Change> = switches.map(Change::ToVfio).collect();
        if !switches.is_empty() && !host.sysfs.join("bus/pci/drivers").join(sysfs::DRIVER).is_dir() {
            plan.changes.push(Change::LoadDriver);
        }
        plan.changes.extend(switches);
    }
    Ok(plan)
}
