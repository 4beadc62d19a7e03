//! A slot map in bhyve's words.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;

use passthru::pci::{HostAddress, Slot};

use super::device::{MSIX_PAGE, PptName};
use super::error::node;
use crate::memory::RamSize;
use crate::slot_map::msix_page::MsixPage;
use crate::slot_map::{Assignment, DeviceName};

/// What bhyve cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A function that only slotpass has.
    #[error("slot {slot}: {device} is a simulated function of slotpass, which bhyve does not have")]
    Simulated {
        /// The slot.
        slot: Slot,
        /// The function.
        device: DeviceName,
    },
    /// A function by a file that is open.
    #[error("slot {slot}: {device} is an open file, which bhyve cannot take; give the function's address")]
    OpenFile {
        /// The slot.
        slot: Slot,
        /// The function.
        device: DeviceName,
    },
    /// A name that says nothing to bhyve.
    #[error("slot {slot}: {device} is neither a PCI address, such as 0000:01:00.0, nor /dev/pptN")]
    NoName {
        /// The slot.
        slot: Slot,
        /// The function.
        device: DeviceName,
    },
    /// bhyve has bus, slot and function only.
    #[error("slot {slot}: {address} is in PCI domain {:04x}; bhyve passes through functions of domain 0 only", .address.segment())]
    Domain {
        /// The slot.
        slot: Slot,
        /// The function.
        address: HostAddress,
    },
    /// bhyve has no root ports.
    #[error(
        "slot {slot}: behind a root port (port); bhyve has none, so give the function a slot without one"
    )]
    BehindPort {
        /// The slot.
        slot: Slot,
    },
    /// bhyve has no root ports, and no hot plug.
    #[error("bus {bus}: an empty root port; bhyve has none, and no hot plug")]
    EmptyPort {
        /// The bus.
        bus: u8,
    },
    /// A file's name that a line or an option cannot have.
    #[error("slot {slot}: rom={rom:?} has {what} in it, which {where_to} cannot have")]
    Rom {
        /// The slot.
        slot: Slot,
        /// The file.
        rom: String,
        /// What stands in the way.
        what: &'static str,
        /// In which of bhyve's ways.
        where_to: &'static str,
    },
}

/// What is to be said in bhyve's words.
#[derive(Clone, Copy, Debug)]
pub struct Exported<'a> {
    /// Functions and slots.
    pub assignments: &'a [Assignment],
    /// Buses with an empty root port.
    pub empty_ports: &'a [u8],
    /// Guest memory, if it is said.
    pub memory: Option<RamSize>,
    /// Processors, if it is said.
    pub cpus: Option<u32>,
}

/// How bhyve is told of a function of the host.
enum Function {
    /// illumos' file.
    Path(String),
    /// FreeBSD's name.
    Pptdev(String),
    /// FreeBSD's place.
    Address(Slot),
}

/// A function, its slot, and its ROM.
struct Line {
    slot: Slot,
    function: Function,
    rom: Option<String>,
    msix_page: MsixPage,
}

impl Exported<'_> {
    /// Lines of bhyve_config(5), by slot.
    pub fn variables(&self) -> Result<String, Vec<ExportError>> {
        let mut variables: Vec<(String, String)> = Vec::new();
        let mut set = |key: String, value: &str| variables.push((key, value.to_owned()));
        let lines = self.lines("a line", &[('\n', "a line break"), ('\0', "a NUL")])?;
        if let Some(cpus) = self.cpus {
            set("cpus".to_owned(), &cpus.to_string());
        }
        if let Some(memory) = self.memory {
            set("memory.size".to_owned(), &size(memory));
        }
        if !lines.is_empty() {
            set("memory.wired".to_owned(), "true");
        }
        if needs_acpi(&lines) {
            set("acpi_tables".to_owned(), "true");
            set("x86.mptable".to_owned(), "false");
        }
        for Line { slot, function, rom, msix_page } in &lines {
            let mut set = |key: &str, value: &str| set(format!("{}.{key}", node(*slot)), value);
            set("device", super::device::PASSTHRU);
            match function {
                Function::Path(path) => set("path", path),
                Function::Pptdev(name) => set("pptdev", name),
                Function::Address(place) => {
                    set("bus", &place.bus().to_string());
                    set("slot", &place.device().to_string());
                    set("func", &place.function().to_string());
                }
            }
            if let Some(rom) = rom {
                set("rom", &escaped(rom));
            }
            if *msix_page != MsixPage::default() {
                set(MSIX_PAGE, &msix_page.to_string());
            }
        }
        Ok(variables.into_iter().map(|(key, value)| format!("{key}={value}\n")).collect())
    }

    /// Options of bhyve(8), by slot, as a shell reads them.
    pub fn arguments(&self) -> Result<String, Vec<ExportError>> {
        let mut words: Vec<String> = Vec::new();
        let lines = self.lines("-s", &[(',', "a comma"), ('\n', "a line break"), ('\0', "a NUL")])?;
        if let Some(cpus) = self.cpus {
            words.extend(["-c".to_owned(), cpus.to_string()]);
        }
        if let Some(memory) = self.memory {
            words.extend(["-m".to_owned(), size(memory)]);
        }
        if !lines.is_empty() {
            words.push("-S".to_owned());
        }
        if needs_acpi(&lines) {
            words.extend(["-A".to_owned(), "-Y".to_owned()]);
        }
        for Line { slot, function, rom, msix_page } in &lines {
            let function = match function {
                Function::Path(name) | Function::Pptdev(name) => name.clone(),
                Function::Address(place) => {
                    format!("{}/{}/{}", place.bus(), place.device(), place.function())
                }
            };
            let rom = rom.as_ref().map(|rom| format!(",rom={}", escaped(rom))).unwrap_or_default();
            let page = match msix_page {
                MsixPage::ReadOnly => String::new(),
                how => format!(",{MSIX_PAGE}={how}"),
            };
            let device = format!("{slot},{},{function}{rom}{page}", super::device::PASSTHRU);
            words.extend(["-s".to_owned(), device]);
        }
        let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        Ok(if line.is_empty() { line } else { line + "\n" })
    }

    /// By slot, or all that cannot be said. Some characters cannot stand in a file's name there.
    fn lines(
        &self,
        where_to: &'static str,
        without: &[(char, &'static str)],
    ) -> Result<Vec<Line>, Vec<ExportError>> {
        let mut errors: Vec<ExportError> =
            self.empty_ports.iter().map(|bus| ExportError::EmptyPort { bus: *bus }).collect();
        let mut lines = Vec::new();
        for Assignment { slot, device, port, rom, msix_page } in self.assignments {
            let (slot, msix_page) = (*slot, *msix_page);
            if *port {
                errors.push(ExportError::BehindPort { slot });
            }
            let rom = rom.as_ref().map(|rom| rom.to_string_lossy().into_owned());
            let wrong = rom.iter().flat_map(|rom| without.iter().filter(|(char, _)| rom.contains(*char)));
            errors.extend(wrong.map(|(_, what)| {
                let rom = rom.clone().unwrap_or_default();
                ExportError::Rom { slot, rom, what, where_to }
            }));
            match function(slot, device) {
                Ok(function) => lines.push(Line { slot, function, rom, msix_page }),
                Err(error) => errors.push(error),
            }
        }
        lines.sort_by_key(|line| line.slot);
        if errors.is_empty() { Ok(lines) } else { Err(errors) }
    }
}

fn function(slot: Slot, device: &DeviceName) -> Result<Function, ExportError> {
    let name = match device {
        DeviceName::Host(name) | DeviceName::Ppt(name) => name,
        DeviceName::Simulated(_) => return Err(ExportError::Simulated { slot, device: device.clone() }),
    };
    match PptName::of(name) {
        Some(PptName::Illumos) => return Ok(Function::Path(name.clone())),
        Some(PptName::FreeBsd) => return Ok(Function::Pptdev(name.clone())),
        None if name.starts_with("fd:") => {
            return Err(ExportError::OpenFile { slot, device: device.clone() });
        }
        None => {}
    }
    // A path in sysfs ends with the address.
    let address = Path::new(name).file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
    let address: HostAddress = address.ok_or_else(|| ExportError::NoName { slot, device: device.clone() })?;
    match address.segment() {
        0 => Ok(Function::Address(address.slot())),
        _ => Err(ExportError::Domain { slot, address }),
    }
}

/// bhyve's MP table has bus 0 only, and a guest finds other buses by ACPI.
fn needs_acpi(lines: &[Line]) -> bool {
    lines.iter().any(|line| line.slot.bus() != 0)
}

fn size(memory: RamSize) -> String {
    format!("{}M", memory.bytes() >> 20)
}

/// As a shell reads it. Most words need no quotes, and are easier to read without.
fn quoted(word: &str) -> Cow<'_, str> {
    if word.chars().all(|char| char.is_ascii_alphanumeric() || "-:,/._=+@".contains(char)) {
        return Cow::Borrowed(word);
    }
    // Only a NUL cannot be quoted, and there is none.
    shlex::try_quote(word).unwrap_or_default()
}

/// bhyve looks for references, and for backslashes, only in values with a `%`.
fn escaped(value: &str) -> String {
    if value.contains('%') { value.replace('\\', r"\\").replace('%', r"\%") } else { value.to_owned() }
}
