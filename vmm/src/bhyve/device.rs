//! How a function of the host is named to bhyve's passthru.

use std::path::PathBuf;

use passthru::pci::{HostAddress, Slot};

use super::description::Note;
use super::error::{BhyveError, Fault, Origin, node};
use super::number;
use super::variables::Variables;
use crate::config::PciDevice;

/// The device that is a function of the host.
pub const PASSTHRU: &str = "passthru";

/// The variable that says how the guest reads MSI-X pages.
pub const MSIX_PAGE: &str = "msix-page";

/// A name of a ppt device, by the system that gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PptName {
    /// `/dev/pptN`.
    Illumos,
    /// `pptN`.
    FreeBsd,
}

impl PptName {
    /// Nothing where it is no name of a ppt device.
    pub fn of(name: &str) -> Option<PptName> {
        let (system, number) = match name.strip_prefix("/dev/ppt") {
            Some(number) => (PptName::Illumos, number),
            None => (PptName::FreeBsd, name.strip_prefix("ppt")?),
        };
        number::decimal(number).map(|_| system)
    }
}

/// Sets the variables that the third part of `-s` stands for. illumos has the function's name at any place, FreeBSD at the
/// first.
pub fn set_conf(variables: &mut Variables, node: &str, conf: &str, from: &Origin) -> Result<(), BhyveError> {
    let mut set = |key: &str, value: &str| variables.set(&format!("{node}.{key}"), value, from);
    for part in conf.split(',') {
        match part.split_once('=') {
            Some((_, "")) => return Err(Fault::NoValue(part.into()).at(from)),
            // bhyve has only names without dots there.
            Some((key, _)) if key.contains('.') => return Err(Fault::Key(key.into()).at(from)),
            Some((key, value)) => set(key, value)?,
            None if part.starts_with("/dev/ppt") => set("path", part)?,
            None if part.starts_with("ppt") => set("pptdev", part)?,
            None => {
                let [bus, slot, func] = address(part).map_err(|fault| fault.at(from))?;
                for (key, value) in [("bus", bus), ("slot", slot), ("func", func)] {
                    set(key, value)?;
                }
            }
        }
    }
    Ok(())
}

/// `pciD:B:S:F`, `pciB:S:F` or `B/S/F`. The domain is always 0.
fn address(text: &str) -> Result<[&str; 3], Fault> {
    let parts: Vec<&str> = match text.strip_prefix("pci") {
        Some(selector) => selector.split(':').collect(),
        None => text.split('/').collect(),
    };
    let numbers = parts.iter().all(|part| number::decimal(part).is_some());
    match (numbers, parts.as_slice(), text.starts_with("pci")) {
        (true, [domain, bus, slot, func], true) => match number::decimal(domain) {
            Some(0) => Ok([bus, slot, func]),
            _ => Err(Fault::Domain(text.into())),
        },
        (true, [bus, slot, func], _) => Ok([bus, slot, func]),
        _ => Err(Fault::Conf(text.into())),
    }
}

/// The function that a slot's variables name, and notes of those that say something else. `from` is where the slot's
/// device was set.
pub fn read(
    variables: &Variables,
    slot: Slot,
    from: &Origin,
    notes: &mut Vec<Note>,
) -> Result<PciDevice, BhyveError> {
    let node = node(slot);
    let key = |name: &str| format!("{node}.{name}");
    let address = ["bus", "slot", "func"];
    let named = ["path", "pptdev", "bus", "slot", "func"];
    let mut given: Vec<&'static str> = Vec::new();
    for name in named {
        if variables.get(&key(name))?.is_some() {
            given.push(if address.contains(&name) { "bus, slot and func" } else { name });
        }
    }
    given.dedup();
    let path = match *given.as_slice() {
        ["path"] => ppt(variables, &key("path"), PptName::Illumos)?,
        ["pptdev"] => ppt(variables, &key("pptdev"), PptName::FreeBsd)?,
        // One description for both: illumos looks at the one and everybody else at the other.
        ["path", "bus, slot and func"] => {
            if let (Some(_), Some((_, from))) =
                (ppt(variables, &key("path"), PptName::Illumos)?, variables.get(&key("path"))?)
            {
                notes.push(Note::Variable { from: from.clone(), key: key("path") });
            }
            host_address(variables, slot)?
        }
        [_] => host_address(variables, slot)?,
        [] => None,
        [first, second, ..] => return Err(Fault::TwoFunctions { slot, first, second }.at(from)),
    };
    let path = path.ok_or_else(|| Fault::NoFunction { slot }.at(from))?;
    let rom = variables.get(&key("rom"))?.map(|(rom, _)| PathBuf::from(rom));
    // Not a word of bhyve's, which passes over what it does not know there.
    let msix_page = match variables.get(&key(MSIX_PAGE))? {
        Some((how, from)) => Some(how.parse().map_err(|_| Fault::MsixPage(how.into()).at(from))?),
        None => None,
    };
    for (other, from) in variables.below(&node) {
        let name = other.strip_prefix(&node).and_then(|rest| rest.strip_prefix('.')).unwrap_or(other);
        if !named.contains(&name) && !["device", "rom", MSIX_PAGE].contains(&name) {
            notes.push(Note::Variable { from: from.clone(), key: other.to_owned() });
        }
    }
    Ok(PciDevice { path, pci_slot: slot, port: false, rom, msix_page })
}

/// A name that this system gives.
fn ppt(variables: &Variables, key: &str, system: PptName) -> Result<Option<String>, BhyveError> {
    let Some((name, from)) = variables.get(key)? else { return Ok(None) };
    match PptName::of(&name) {
        Some(its) if its == system => Ok(Some(name)),
        _ if system == PptName::Illumos => Err(Fault::Path(name.into()).at(from)),
        _ => Err(Fault::Pptdev(name.into()).at(from)),
    }
}

/// FreeBSD's three numbers, which Linux writes in hexadecimal; nothing where one is missing.
fn host_address(variables: &Variables, slot: Slot) -> Result<Option<String>, BhyveError> {
    let number = |name, most: u8| -> Result<Option<u8>, BhyveError> {
        let key = format!("{}.{name}", node(slot));
        let number = variables.number(&key, 0..=u64::from(most), number::decimal)?;
        Ok(number.and_then(|(number, _)| u8::try_from(number).ok()))
    };
    let (bus, device, function) = (number("bus", 255)?, number("slot", 31)?, number("func", 7)?);
    let place = bus.zip(device).zip(function);
    let place = place.and_then(|((bus, device), function)| Slot::new(bus, device, function));
    Ok(place.map(|place| HostAddress::new(0, place).to_string()))
}
