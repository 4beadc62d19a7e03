//! Which device goes to which slot, checked as a whole before anything is opened.

pub mod any_host;
pub mod msix_page;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use devices::pci::PortBuses;
use devices::pci::slots::{self, SlotConflict};
use devices::pci::windows::{self, Available, FunctionBars, Plan, PlanError};
use passthru::host::ppt;
use passthru::host::simulated::{self, SimulatedError};
use passthru::host::vfio::sysfs::{self, SysfsFunction};
use passthru::host::vfio::{OpenError, preflight};
use passthru::pci::bar::{self, Bar};
use passthru::pci::rom::RomImage;
use passthru::pci::{Slot, SlotError};

use crate::bhyve::device::PptName;
use crate::host::physical_path::{self, PathError};
use crate::port_options::PortOptions;
use crate::ppt::PptHost;
use crate::rom_file::{self, RomFileError};
use msix_page::{MsixPage, MsixPageError};

/// A device as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// A function of this host: an address, a path in sysfs or a physical path.
    Host(String),
    /// A simulated function, `sim:NAME`.
    Simulated(String),
    /// A function of an illumos host, `/dev/pptN`.
    Ppt(String),
}

impl From<&str> for DeviceName {
    fn from(text: &str) -> DeviceName {
        if text.starts_with("/dev/ppt") {
            return DeviceName::Ppt(text.to_owned());
        }
        match text.strip_prefix("sim:") {
            Some(name) => DeviceName::Simulated(name.to_owned()),
            None => DeviceName::Host(text.to_owned()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Host(name) | DeviceName::Ppt(name) => f.write_str(name),
            DeviceName::Simulated(name) => write!(f, "sim:{name}"),
        }
    }
}

/// `B:D:F=DEVICE`, and behind commas `port`, `rom=FILE` and `msix-page=HOW`. A file's name has no comma then; a physical path
/// has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Where the guest finds it.
    pub slot: Slot,
    /// What it is.
    pub device: DeviceName,
    /// Behind a root port.
    pub port: bool,
    /// What the guest finds as its expansion ROM, instead of its own.
    pub rom: Option<PathBuf>,
    /// How the guest reads the pages with its MSI-X structures.
    pub msix_page: MsixPage,
}

/// A text that assigns nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// No `=`, or nothing behind it.
    #[error("'{0}' is not SLOT=DEVICE, such as 0:8:0=0000:01:00.0")]
    Syntax(String),
    /// No slot before it.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// Something else behind a comma.
    #[error("option '{0}' of a slot is not known; there are: port, rom=FILE, msix-page=trap")]
    Option(String),
    /// Another word behind `msix-page=`.
    #[error("msix-page: {0}")]
    MsixPage(#[from] MsixPageError),
}

impl FromStr for Assignment {
    type Err = AssignmentError;

    fn from_str(text: &str) -> Result<Assignment, AssignmentError> {
        let syntax = || AssignmentError::Syntax(text.to_owned());
        let (slot, rest) = text.split_once('=').ok_or_else(syntax)?;
        let (device, options) = rest.split_at(device_end(rest));
        if device.is_empty() {
            return Err(syntax());
        }
        let (mut port, mut rom, mut msix_page) = (false, None, MsixPage::default());
        for option in options.split(',').skip(1) {
            match option.split_once('=') {
                None if option == "port" => port = true,
                Some(("rom", file)) if !file.is_empty() => rom = Some(PathBuf::from(file)),
                Some(("msix-page", how)) => msix_page = how.parse()?,
                _ => return Err(AssignmentError::Option(option.to_owned())),
            }
        }
        Ok(Assignment { slot: slot.parse()?, device: DeviceName::from(device), port, rom, msix_page })
    }
}

/// Where the device ends in `DEVICE[,OPTION…]`. A comma of a physical path has a hexadecimal number behind it, and then the
/// path's next sign; no option looks like that.
fn device_end(text: &str) -> usize {
    let of_path = |rest: &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        digits > 0
            && rest.get(digits..).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@', ',']))
    };
    let is_path = physical_path::is_physical(text);
    let mut commas = text.match_indices(',').map(|(at, _)| at);
    commas.find(|at| !is_path || !text.get(at + 1..).is_some_and(of_path)).unwrap_or(text.len())
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.slot, self.device)?;
        if self.port {
            f.write_str(",port")?;
        }
        if let Some(rom) = &self.rom {
            write!(f, ",rom={}", rom.display())?;
        }
        match self.msix_page {
            MsixPage::ReadOnly => Ok(()),
            how => write!(f, ",msix-page={how}"),
        }
    }
}

/// Something that keeps a slot map from being used.
#[derive(Debug, thiserror::Error)]
pub enum SlotMapError {
    /// The slots do not go together.
    #[error(transparent)]
    Slot(#[from] SlotConflict),
    /// A device cannot be opened.
    #[error("slot {slot}: {source}")]
    Host {
        /// The slot.
        slot: Slot,
        /// Why.
        source: OpenError,
    },
    /// Nothing at a physical path.
    #[error("slot {slot}: {source}")]
    Path {
        /// The slot.
        slot: Slot,
        /// Why.
        source: PathError,
    },
    /// No such simulated function.
    #[error("slot {slot}: {source}")]
    Simulated {
        /// The slot.
        slot: Slot,
        /// Why.
        source: SimulatedError,
    },
    /// This host has no functions of that name.
    #[error(
        "slot {slot}: {path}: that is a function of an illumos host, and this one is Linux; name a function by its address \
         here, as `lspci -D` shows it (0000:01:00.0)"
    )]
    NoPpt {
        /// The slot.
        slot: Slot,
        /// As given.
        path: String,
    },
    /// A name that only FreeBSD gives.
    #[error(
        "slot {slot}: {name}: FreeBSD names functions so, and this host is Linux; name it by its address here, as \
         `lspci -D` shows it (0000:01:00.0), in bhyve's words by bus, slot and func"
    )]
    FreeBsdPpt {
        /// The slot.
        slot: Slot,
        /// As given.
        name: String,
    },
    /// A function of an illumos host.
    #[error("slot {slot}: {source}")]
    Ppt {
        /// The slot.
        slot: Slot,
        /// Why.
        source: ppt::OpenError,
    },
    /// One function in two slots.
    #[error("{device} is assigned to slot {first} and to slot {second}; a function can be in one slot only")]
    Twice {
        /// The function.
        device: String,
        /// One slot.
        first: Slot,
        /// The other.
        second: Slot,
    },
    /// No expansion ROM.
    #[error("slot {slot}: {source}")]
    Rom {
        /// The slot.
        slot: Slot,
        /// Why.
        source: RomFileError,
    },
    /// The BARs do not fit.
    #[error(transparent)]
    Windows(#[from] PlanError),
}

/// A device that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// In sysfs.
    Host(SysfsFunction),
    /// By its name.
    Simulated(String),
    /// By its path.
    Ppt(String),
}

/// A slot map that was checked.
#[derive(Debug)]
pub struct SlotMap {
    /// Slots and devices, by slot.
    pub functions: Vec<(Slot, Found)>,
    /// What the guest finds as expansion ROMs, where that is not the functions' own.
    pub roms: BTreeMap<Slot, RomImage>,
    /// Those in which the guest's reads of MSI-X pages exit.
    pub msix_trapped: BTreeSet<Slot>,
    /// The buses behind root ports.
    pub ports: PortBuses,
    /// Windows of the buses and addresses of the BARs.
    pub plan: Plan,
}

impl SlotMap {
    /// Checks everything that can be known without opening a device, and gives every reason against it.
    pub fn check(
        assignments: &[Assignment],
        options: &PortOptions,
        available: &Available,
        ppt: Option<&dyn PptHost>,
    ) -> Result<SlotMap, Vec<SlotMapError>> {
        let mut errors: Vec<SlotMapError> = Vec::new();
        let wanted: Vec<(Slot, bool)> = assignments.iter().map(|a| (a.slot, a.port)).collect();
        let ports = slots::port_buses(&wanted, &options.empty).unwrap_or_else(|conflicts| {
            errors.extend(conflicts.into_iter().map(SlotMapError::from));
            PortBuses::default()
        });
        let slots: Vec<Slot> = assignments.iter().map(|a| a.slot).collect();
        // Without the ports these would be further conflicts of the same slots.
        if errors.is_empty()
            && let Err(conflicts) = slots::check(&slots, ports)
        {
            errors.extend(conflicts.into_iter().map(SlotMapError::from));
        }
        let mut functions: Vec<(Slot, Found)> = Vec::new();
        let (mut bars, mut roms) = (Vec::new(), BTreeMap::new());
        for Assignment { slot, device, rom, .. } in assignments {
            let image = rom.as_deref().map(rom_file::read).transpose().unwrap_or_else(|source| {
                errors.push(SlotMapError::Rom { slot: *slot, source });
                None
            });
            match find(*slot, device, ppt) {
                Ok((found, mut its)) => {
                    if let Some(image) = image {
                        its.retain(|bar| bar.index != bar::ROM);
                        its.extend(bar::rom(image.bar_size()).ok().flatten());
                        roms.insert(*slot, image);
                    }
                    if let Some(device) = found.only_one()
                        && let Some((first, _)) =
                            functions.iter().find(|(_, old)| old.only_one().as_ref() == Some(&device))
                    {
                        let (first, second) = (*first, *slot);
                        errors.push(SlotMapError::Twice { device, first, second });
                    }
                    functions.push((*slot, found));
                    bars.push(FunctionBars { slot: *slot, bars: its });
                }
                Err(error) => errors.push(error),
            }
        }
        functions.sort_by_key(|(slot, _)| *slot);
        match windows::plan(&bars, &options.window.rooms(ports), available) {
            Ok(plan) if errors.is_empty() => {
                let trapped = assignments.iter().filter(|a| a.msix_page == MsixPage::Trap);
                let msix_trapped = trapped.map(|assignment| assignment.slot).collect();
                Ok(SlotMap { functions, roms, msix_trapped, ports, plan })
            }
            Ok(_) => Err(errors),
            Err(error) => {
                errors.push(error.into());
                Err(errors)
            }
        }
    }

    /// The slots in use.
    pub fn slots(&self) -> Vec<Slot> {
        self.functions.iter().map(|(slot, _)| *slot).collect()
    }
}

impl Found {
    /// The name of what there is once only.
    pub fn only_one(&self) -> Option<String> {
        match self {
            Found::Host(function) => Some(function.address.to_string()),
            Found::Ppt(path) => Some(path.clone()),
            Found::Simulated(_) => None,
        }
    }
}

fn find(
    slot: Slot,
    device: &DeviceName,
    ppt: Option<&dyn PptHost>,
) -> Result<(Found, Vec<Bar>), SlotMapError> {
    match device {
        DeviceName::Host(name) if PptName::of(name) == Some(PptName::FreeBsd) => {
            Err(SlotMapError::FreeBsdPpt { slot, name: name.clone() })
        }
        DeviceName::Host(name) => {
            let host = |source| SlotMapError::Host { slot, source };
            let name = physical_path::resolve(name).map_err(|source| SlotMapError::Path { slot, source })?;
            let function = sysfs::find(&name).map_err(host)?;
            preflight(&function).map_err(host)?;
            let bars = function.bars();
            Ok((Found::Host(function), bars))
        }
        DeviceName::Simulated(name) => {
            let bars = simulated::bars(name).map_err(|source| SlotMapError::Simulated { slot, source })?;
            Ok((Found::Simulated(name.clone()), bars))
        }
        DeviceName::Ppt(path) => {
            let host = ppt.ok_or_else(|| SlotMapError::NoPpt { slot, path: path.clone() })?;
            let bars = host.bars(path).map_err(|source| SlotMapError::Ppt { slot, source })?;
            Ok((Found::Ppt(path.clone()), bars))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn available() -> Available {
        Available {
            memory32: 0xc000_0000..0xe000_0000,
            memory64: 1 << 32..1 << 36,
            io: 0x1000..0x1_0000,
            excluded: vec![],
        }
    }

    fn check(texts: &[&str]) -> Result<SlotMap, Vec<String>> {
        let assignments: Vec<Assignment> = texts.iter().map(|t| t.parse().unwrap()).collect();
        SlotMap::check(&assignments, &PortOptions::default(), &available(), None)
            .map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn assignments_are_a_slot_and_a_device() {
        let parsed: Assignment = "0:8:1=0000:01:00.0".parse().unwrap();
        assert_eq!(parsed.device, DeviceName::Host("0000:01:00.0".to_owned()));
        let parsed: Assignment = "3:5:0=sim:demo".parse().unwrap();
        assert_eq!((parsed.slot.bus(), parsed.device.to_string()), (3, "sim:demo".to_owned()));
        assert!(!parsed.port);
        let parsed: Assignment = "1:0:0=sim:demo,port".parse().unwrap();
        assert_eq!((parsed.port, parsed.device.to_string()), (true, "sim:demo".to_owned()));
        let parsed: Assignment = "1:0:0=sim:demo,rom=/a=b,port".parse().unwrap();
        assert_eq!(parsed.to_string(), "1:0:0=sim:demo,port,rom=/a=b");
        assert_eq!((parsed.port, parsed.rom), (true, Some(PathBuf::from("/a=b"))));
        let text = "1:0:0=sim:demo,port,rom=/a,msix-page=trap";
        let parsed: Assignment = text.parse().unwrap();
        assert_eq!((parsed.to_string().as_str(), parsed.msix_page), (text, MsixPage::Trap));
        let parsed: Assignment = "1:0:0=sim:demo,msix-page=read-only".parse().unwrap();
        assert_eq!((parsed.to_string().as_str(), parsed.msix_page), ("1:0:0=sim:demo", MsixPage::ReadOnly));
        for (device, options) in [
            ("/pci@0,0/pci8086,151@1/display@0", ""),
            ("/devices/pci@0,0/pci8086,f@1/pci15d9,1528@0,1", ",port"),
            ("/pci@0,0/isa@1f,3", ",rom=/pci@0/a"),
            ("/pci@0,0", ",port"),
        ] {
            let text = format!("1:0:0={device}{options}");
            let parsed: Assignment = text.parse().unwrap();
            assert_eq!(parsed.device, DeviceName::Host(device.to_owned()));
            assert_eq!((parsed.port, parsed.rom.is_some()), (options == ",port", options.contains("rom")));
            assert_eq!(parsed.to_string(), text);
        }
        for text in [
            "1:0:0=/pci@0,0/isa@1f,ports",
            "1:0:0=/pci@0,0/isa@1f,",
            "",
            "0:8:0",
            "0:8:0=",
            "=x",
            "0:8:0=,port",
            "1:0:0=x,",
            "1:0:0=x,ports",
            "1:0:0=x,port=1",
            "1:0:0=x,rom",
            "1:0:0=x,rom=",
            "1:0:0=x,msix-page",
            "1:0:0=x,msix-page=",
            "1:0:0=x,msix-page=traps",
        ] {
            assert!(text.parse::<Assignment>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_good_map_has_every_function_and_a_place_for_every_bar() {
        let map = check(&["0:8:1=sim:demo,msix-page=trap", "0:8:0=sim:demo", "3:0:0=sim:demo"]).unwrap();
        assert_eq!(map.msix_trapped.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0:8:1"]);
        assert_eq!(
            map.slots().iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["0:8:0", "0:8:1", "3:0:0"]
        );
        assert_eq!(map.plan.bars().len(), 12);
        assert_eq!(map.plan.buses().iter().map(|b| b.bus).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn functions_behind_ports_and_ports_behind_which_nothing_is() {
        let assignments = ["1:0:0=sim:demo,port", "0:8:0=sim:demo"].map(|text| text.parse().unwrap());
        let options = PortOptions { empty: vec![3], ..PortOptions::default() };
        let map = SlotMap::check(&assignments, &options, &available(), None).unwrap();
        assert_eq!(map.ports, PortBuses::from_iter([1, 3]));
        assert_eq!(map.plan.ports().iter().map(|(bus, _)| *bus).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(map.plan.buses().len(), 1);

        let reasons = check(&["1:0:0=sim:demo,port", "1:0:1=sim:demo"]).unwrap_err();
        assert!(matches!(&reasons[..], [only] if only.contains("slot 1:0:1")), "{reasons:?}");
        let reasons = check(&["0:8:0=sim:demo,port"]).unwrap_err();
        assert!(reasons.join("").contains("bus 0 cannot be behind a root port"), "{reasons:?}");
    }

    #[test]
    fn a_rom_that_is_given_has_a_bar_of_its_size() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap();
        let text = format!("0:8:0=sim:demo,rom={}", file.as_path().display());
        assert!(check(&[&text]).unwrap_err().join("").contains("slot 0:8:0: rom="), "empty");
        file.as_file().write_all(&[0x55, 0xaa]).unwrap();
        file.as_file().set_len(0x1_1000).unwrap();
        let map = check(&[&text]).unwrap();
        let slot = map.slots()[0];
        let rom = map.plan.bars_of(slot).iter().find(|bar| bar.index == bar::ROM).unwrap();
        assert_eq!((rom.size, rom.address % rom.size, map.roms.len()), (0x2_0000, 0, 1));
    }

    #[test]
    fn every_reason_against_a_map_is_given() {
        let reasons = check(&[
            "0:0:0=sim:demo",
            "0:9:1=sim:demo",
            "0:10:0=sim:none",
            "0:11:0=0000:ff:1f.7",
            "0:12:0=/dev/ppt0",
            "0:13:0=/pci@fe,0/display@1",
        ]);
        let reasons = reasons.unwrap_err().join("\n");
        for part in [
            "0:0:0",
            "0:9:0",
            "sim",
            "there are: demo",
            "0000:ff:1f.7",
            "/dev/ppt0: that is a function of an illumos",
            "slot 0:13:0: /pci@fe,0/display@1: there is no pci@fe,0 in this host",
        ] {
            assert!(reasons.contains(part), "{part} in:\n{reasons}");
        }
        assert!(check(&["0:8:0=sim:demo", "0:8:0=sim:demo"]).unwrap_err().join("").contains("0:8:0"));
    }
}
