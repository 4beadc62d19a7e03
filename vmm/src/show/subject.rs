//! What there is to be shown: a function as sysfs has it, or a simulated one. Nothing is opened through VFIO and nothing
//! changed.

use std::fs;
use std::path::Path;

use passthru::host::simulated::{self, SimulatedError};
use passthru::host::vfio::sysfs;
use passthru::host::{Delivery, Description, DmaReach, Region, Report, ResetMethod};
use passthru::pci::HostAddress;
use passthru::pci::capability::{self, Capability, read_u16};
use passthru::pci::registers::{CONVENTIONAL_SIZE, EXPRESS_SIZE, STATUS, STATUS_CAPABILITIES, capability_id};

use super::ShowError;
use crate::host::physical_path;
use crate::slot_map::DeviceName;

/// BARs and the expansion ROM, which is the last.
pub const RESOURCES: usize = 7;
const ROM: usize = 6;
/// The granularity of mappings on this architecture.
const PAGE: u64 = 4096;
/// `linux/ioport.h`
const IORESOURCE_IO: u64 = 0x100;

/// A function and all that is known of it without opening it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// `0000:01:00.0`, or `sim:NAME`.
    pub name: String,
    /// The physical configuration space, as far as it can be read.
    pub physical: Vec<u8>,
    /// What the guest's view is made from.
    pub description: Description,
    /// What the host can do, as far as it can be told from outside.
    pub report: Report,
    /// Host addresses of the BARs and the ROM.
    pub addresses: [Option<u64>; RESOURCES],
    /// The driver that holds it.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub group: Option<Group>,
    /// The kernel's words for the ways in which it can be reset, the one that is used first.
    pub reset_methods: Vec<String>,
    /// What is assumed or missing.
    pub notes: Vec<String>,
}

/// An IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Group {
    /// Its number.
    pub number: u32,
    /// All that is in it.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Member {
    /// Where it is in the host.
    pub address: String,
    /// The driver that holds it.
    pub driver: Option<String>,
}

impl Subject {
    /// The function that a user means.
    pub fn find(device: &DeviceName) -> Result<Subject, ShowError> {
        match device {
            DeviceName::Simulated(name) => Ok(Subject::simulated(name)?),
            DeviceName::Host(name) | DeviceName::Ppt(name) => {
                let function = sysfs::find(&physical_path::resolve(name)?)?;
                let name = function.address.to_string();
                Subject::host(&name, &Path::new(sysfs::DEVICES).join(&name))
            }
        }
    }

    fn simulated(name: &str) -> Result<Subject, SimulatedError> {
        let (description, report) = simulated::describe(name)?;
        Ok(Subject {
            name: format!("sim:{name}"),
            physical: description.config.clone(),
            description,
            report,
            addresses: Default::default(),
            driver: None,
            group: None,
            reset_methods: Vec::new(),
            notes: vec!["a simulated function: it exists only in slotpass".to_owned()],
        })
    }

    /// From the files of a function's directory in sysfs.
    pub fn host(name: &str, directory: &Path) -> Result<Subject, ShowError> {
        let path = directory.join("config");
        let physical = fs::read(&path).map_err(|source| ShowError::Read { path: path.clone(), source })?;
        let size = fs::metadata(&path).map_or(0, |file| file.len());
        let mut notes = Vec::new();
        let mut config = physical.clone();
        if config.len() < CONVENTIONAL_SIZE {
            notes.push(format!(
                "only {} of {size} bytes of its configuration space can be read without root: capabilities, vectors and \
                 what they make of the BARs are not known",
                config.len()
            ));
            // Without it the walk would take the bytes that are missing for capabilities.
            if let Some(status) = config.get_mut(usize::from(STATUS)) {
                *status &= !(STATUS_CAPABILITIES as u8);
            }
        }
        config.truncate(EXPRESS_SIZE);
        let resources = resources(&fs::read_to_string(directory.join("resource")).unwrap_or_default());
        let mut description = Description { config, ..Description::default() };
        for (region, resource) in description.bars.iter_mut().zip(&resources) {
            *region = resource.map_or_else(Region::default, |resource| resource.region(&resources));
        }
        description.rom = match resources.get(ROM) {
            Some(Some(rom)) => Region { size: rom.size, mappable: Vec::new(), accessible: true },
            _ => Region::default(),
        };
        let others = sharing_bus(directory);
        let reset_methods = alone(reset_methods(directory), !others.is_empty());
        let mut report = report(&description, &reset_methods);
        if report.reset.is_none() && !others.is_empty() {
            notes.push("a reset of its bus takes a guest that has all the functions there".to_owned());
            report.reset =
                Some(ResetMethod::BusWith(others.iter().map(|name| name.as_str().into()).collect()));
        }
        let subject = Subject {
            name: name.to_owned(),
            physical,
            description,
            report,
            addresses: resources.map(|resource| resource.map(|r| r.start)),
            driver: sysfs::link_name(&directory.join("driver")),
            group: group(directory),
            reset_methods,
            notes,
        };
        Ok(subject.with_notes(directory))
    }

    fn with_notes(mut self, directory: &Path) -> Subject {
        let notes = &mut self.notes;
        match self.driver.as_deref() {
            Some(driver) if driver.starts_with("vfio") => {}
            Some(driver) => {
                notes.push(format!("the registers are as driver {driver} of the host has them now"))
            }
            None => notes
                .push("no driver has it; registers are as firmware or the last driver left them".to_owned()),
        }
        if self.group.is_none() {
            notes.push(
                "no IOMMU group: the host's IOMMU is off, and without it nothing can be passed through"
                    .to_owned(),
            );
        }
        let state = fs::read_to_string(directory.join("power_state")).unwrap_or_default();
        if matches!(state.trim(), "D3hot" | "D3cold") {
            notes.push(format!("it is in {}", state.trim()));
        }
        notes.push(
            "not opened: mappings are those that vfio-pci allows for BARs of this kind; a vendor's own VFIO driver may \
             allow others"
                .to_owned(),
        );
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resource {
    start: u64,
    size: u64,
    flags: u64,
}

impl Resource {
    /// What vfio-pci makes of it (`vfio_pci_probe_mmaps`): memory of a page and more is mappable, less with the rest of its
    /// page when it starts one that nothing else is in. Of other functions' BARs in that page nothing is known here.
    fn region(&self, all: &[Option<Resource>; RESOURCES]) -> Region {
        let is_memory = self.flags & IORESOURCE_IO == 0;
        let page = self.start..self.start.saturating_add(PAGE);
        let shares =
            || all.iter().flatten().any(|other| other.start != self.start && page.contains(&other.start));
        let mappable = match self.size {
            size if is_memory && size >= PAGE => vec![0..size],
            _ if is_memory && self.start.is_multiple_of(PAGE) && !shares() => vec![0..PAGE],
            _ => Vec::new(),
        };
        Region { size: self.size, mappable, accessible: true }
    }
}

/// Lines of `resource` are start, end and flags in hexadecimal: six BARs, then the expansion ROM.
fn resources(text: &str) -> [Option<Resource>; RESOURCES] {
    let mut found = [None; RESOURCES];
    for (resource, line) in found.iter_mut().zip(text.lines()) {
        let mut words = line.split_whitespace().map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16));
        let (Some(Ok(start)), Some(Ok(end)), Some(Ok(flags))) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if flags != 0 && end >= start {
            *resource = Some(Resource { start, size: (end - start).saturating_add(1), flags });
        }
    }
    found
}

/// `reset_method` has the ways that are enabled, in the kernel's order. Before Linux 5.15 there is only `reset`, which
/// says that there is one.
fn reset_methods(directory: &Path) -> Vec<String> {
    match fs::read_to_string(directory.join("reset_method")) {
        Ok(text) => text.split_whitespace().map(str::to_owned).collect(),
        Err(_) if directory.join("reset").exists() => vec!["unknown".to_owned()],
        Err(_) => Vec::new(),
    }
}

/// Of the ways to reset a function those that reset it alone. Linux asks for them when it finds the function, and then those
/// that it finds after it are not on the bus yet, of which any keeps the function from being reset by its bus
/// (`pci_parent_bus_reset`).
pub(crate) fn alone(mut methods: Vec<String>, shares_bus: bool) -> Vec<String> {
    methods.retain(|word| !shares_bus || !matches!(word.as_str(), "bus" | "cxl_bus"));
    methods
}

fn reset_method(word: &str) -> ResetMethod {
    match word {
        "flr" => ResetMethod::FunctionLevel,
        "af_flr" => ResetMethod::AdvancedFeatures,
        "pm" => ResetMethod::Power,
        "bus" | "cxl_bus" => ResetMethod::Bus,
        // device_specific, acpi.
        _ => ResetMethod::Own,
    }
}

/// What VFIO would report, as far as the configuration space tells.
fn report(description: &Description, reset_methods: &[String]) -> Report {
    let raw = description.config.as_slice();
    let list = capability::walk(raw).0;
    let control = |id| {
        let capability: Option<&Capability> = list.iter().find(|c| c.id == id);
        capability.map(|c| read_u16(raw, c.offset + 2))
    };
    let has = |id| list.iter().any(|c| c.id == id);
    Report {
        delivery: Delivery::Eventfd,
        intx: raw.get(0x3d).is_some_and(|pin| *pin != 0),
        msi: control(capability_id::MSI).map_or(0, |control| 1 << (control >> 1 & 0x7).min(5)),
        msi_masking: true,
        msix: control(capability_id::MSIX).map_or(0, |control| (control & 0x7ff) + 1),
        dynamic_msix: true,
        keeps_pending: true,
        dma: DmaReach::Mapped,
        mappings: None,
        granularity: PAGE,
        power_states: has(capability_id::POWER),
        reset: reset_methods.first().map(|word| reset_method(word)),
        error_events: has(capability_id::EXPRESS),
        request_events: true,
    }
}

/// The functions that a reset of its bus would take along: what is below the same bridge. On a root bus there is none.
pub(crate) fn sharing_bus(directory: &Path) -> Vec<String> {
    let Ok(own) = fs::canonicalize(directory) else { return Vec::new() };
    let bridge = own.parent().filter(|bridge| address_of(bridge).is_some());
    let mut found = Vec::new();
    if let Some(bridge) = bridge {
        below(bridge, 0, &mut found);
    }
    found.retain(|name| Some(name) != address_of(&own).as_ref());
    found.sort();
    found
}

fn below(bridge: &Path, depth: u8, found: &mut Vec<String>) {
    // Bridges are at most as many levels deep as there are buses; no host has a tenth of that.
    if depth > 16 {
        return;
    }
    for entry in fs::read_dir(bridge).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Some(name) = address_of(&path) {
            found.push(name);
            below(&path, depth + 1, found);
        }
    }
}

/// The name of a function's directory.
fn address_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    name.parse::<HostAddress>().ok().map(|address| address.to_string()).filter(|address| address == name)
}

fn group(directory: &Path) -> Option<Group> {
    let number = sysfs::link_name(&directory.join("iommu_group"))?.parse().ok()?;
    let entries = fs::read_dir(directory.join("iommu_group/devices"));
    let mut members: Vec<Member> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let driver = sysfs::link_name(&entry.path().join("driver"));
            Some(Member { address: entry.file_name().into_string().ok()?, driver })
        })
        .collect();
    members.sort_by(|a, b| a.address.cmp(&b.address));
    Some(Group { number, members })
}
