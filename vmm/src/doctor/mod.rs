//! Whether a guest with these functions would start on this host, and what mends it if not (`vmm/DOCTOR.md`).
//!
//! [`facts`] are read first, and only read: nothing is changed, no function is opened. What is made of them is decided by small
//! functions that do no I/O.

pub mod facts;
pub mod finding;
mod function;
mod guest;
mod host;
mod kernel_parameter;
mod named_vm;
pub mod report;
mod text;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use passthru::host::vfio::sysfs;
use ppt_files::file_text::ReadError;
use ppt_files::ppt_matches::{self, PptMatches};
use serde::Serialize;

use crate::boot::{Error, Kernel};
use crate::config::{IncompleteError, VmFile};
use crate::host::reserve;
use crate::host::reserve::inventory::{Function, Inventory};
use crate::host::reserve::meaning::AliasFile;
use crate::machine::{UseIommufd, address_ranges};
use crate::memory::RamSize;
use crate::port_options::PortOptions;
use crate::slot_map::msix_page::MsixPage;
use crate::slot_map::{Assignment, DeviceName, SlotMap, SlotMapError};
use facts::Facts;
use facts::access::Access;
use facts::function::{Asked, Found};
use facts::host::{Host, Kvms};
use facts::process::Process;
use finding::{Check, Finding, Remedy, Subject, Verdict};
use guest::Guest;
pub use named_vm::NamedVm;
pub use text::Style;

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;

/// What is asked: whether a guest that is run so would start.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its functions. Their slots count only with `slots`.
    pub assignments: Vec<Assignment>,
    /// The slots are those of a VM, not made up for a list of devices.
    pub slots: bool,
    /// Root ports.
    pub ports: PortOptions,
    /// Its memory.
    pub memory: RamSize,
    /// Its processors.
    pub cpus: u32,
    /// Reserved huge pages back its memory.
    pub huge_pages: bool,
    /// Functions that cannot be reset are refused.
    pub require_reset: bool,
    /// How functions are opened.
    pub iommufd: UseIommufd,
    /// What it boots.
    pub boot: Boot,
    /// It is a VM by name, to be started by `slotpass start`.
    pub vm: Option<NamedVm>,
}

/// What the guest boots, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Boot {
    /// That is not asked.
    #[default]
    Anything,
    /// Its description does not say it.
    Nothing,
    /// These.
    Files {
        /// Kernel.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        command_line: String,
    },
}

impl Default for Question {
    fn default() -> Question {
        Question {
            assignments: Vec::new(),
            slots: false,
            ports: PortOptions::default(),
            memory: RamSize::default(),
            cpus: 1,
            huge_pages: false,
            require_reset: false,
            iommufd: UseIommufd::default(),
            boot: Boot::Anything,
            vm: None,
        }
    }
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    schema: u32,
    version: &'static str,
    /// Whether the guest would start.
    pub verdict: Verdict,
    /// All that was looked at.
    pub findings: Vec<Finding>,
    #[serde(skip)]
    facts: Facts,
}

impl Question {
    /// A guest with these functions, wherever.
    pub fn about(devices: impl IntoIterator<Item = DeviceName>) -> Question {
        let mut question = Question::default();
        for device in devices {
            // Slots are not looked at; any will do.
            let Ok(slot) = "0:8:0".parse() else { continue };
            question.assignments.push(Assignment {
                slot,
                device,
                port: false,
                rom: None,
                msix_page: MsixPage::default(),
            });
        }
        question
    }

    /// The VM of a description, whether or not `run` would take it.
    pub fn of_vm(file: VmFile) -> Question {
        let assignments = file.assignments().collect();
        let boot = match file.kernel {
            None => Boot::Nothing,
            Some(kernel) => {
                let command_line = file.cmdline.unwrap_or_default();
                Boot::Files { kernel, initrd: file.initrd, command_line }
            }
        };
        Question {
            assignments,
            slots: true,
            ports: PortOptions { empty: file.ports, window: file.port_window.unwrap_or_default() },
            memory: file.memory.unwrap_or_default(),
            cpus: file.cpus.unwrap_or(1),
            huge_pages: file.hugepages,
            require_reset: file.require_reset,
            iommufd: file.iommufd.unwrap_or_default(),
            boot,
            vm: None,
        }
    }

    /// Reads what there is to be known, and judges it.
    pub fn answer(&self) -> Diagnosis {
        let mut host = Host::read();
        if matches!(self.iommufd, UseIommufd::File(_)) {
            // Whoever opened it had the right to.
            host.iommufd = Access::Granted;
        }
        let facts =
            Facts { host, process: Process::read(), asked: Asked::find(&self.assignments, self.iommufd) };
        let mut findings = self.judge(&facts);
        if let Some(vm) = &self.vm {
            findings.extend(vm.check(&facts, &vm.read(&facts), &findings));
        }
        findings.extend(self.slots(&facts));
        findings.extend(self.kernel());
        Diagnosis::new(findings, facts)
    }

    /// From the facts alone.
    fn judge(&self, facts: &Facts) -> Vec<Finding> {
        let is_simulated = |asked: &Asked| matches!(asked.name, DeviceName::Simulated(_));
        // Of a VM it is known that it has none; without any name it is about the host.
        let needs_no_host = facts.asked.iter().all(is_simulated) && (self.slots || !facts.asked.is_empty());
        let mut findings = host::check(facts, !needs_no_host);
        for asked in &facts.asked {
            let found = function::check(facts, asked, self.require_reset);
            findings.extend(found.into_iter().map(|finding| finding.naming(file_name(asked))));
        }
        let guest = Guest { memory: self.memory, cpus: self.cpus, huge_pages: self.huge_pages };
        findings.extend(guest::check(facts, guest));
        findings
    }

    /// Whether the slots go together and the BARs fit, as `run` decides it. What it says of functions is said of them already.
    fn slots(&self, facts: &Facts) -> Vec<Finding> {
        let Kvms::Opens { address_bits, .. } = facts.host.kvm else { return Vec::new() };
        if !self.slots {
            return Vec::new();
        }
        let available = address_ranges::available(address_ranges::ram_end(self.memory), address_bits);
        match SlotMap::check(&self.assignments, &self.ports, &available, None) {
            Ok(_) => vec![Check::Slots.ok(Subject::Guest, "they go together, and all BARs fit")],
            Err(errors) => {
                let own = errors
                    .iter()
                    .filter(|error| !matches!(error, SlotMapError::Host { .. } | SlotMapError::Path { .. }));
                let roms = || {
                    let roms = self.assignments.iter().filter_map(|assignment| assignment.rom.as_ref());
                    roms.map(|rom| rom.display().to_string())
                };
                own.map(|error| Check::Slots.problem(Subject::Guest, error.to_string()).naming(roms()))
                    .collect()
            }
        }
    }

    /// As `run` checks them, with its words.
    fn kernel(&self) -> Option<Finding> {
        let (check, subject) = (Check::Kernel, Subject::Guest);
        let (kernel, initrd, line) = match &self.boot {
            Boot::Anything => return None,
            Boot::Nothing => {
                return Some(
                    check
                        .problem(subject, IncompleteError::NoKernel.to_string())
                        .mended(Remedy::by_hand("name one in the description (\"kernel\")")),
                );
            }
            Boot::Files { kernel, initrd, command_line } => (kernel, initrd.as_deref(), command_line),
        };
        let opened = Kernel::open(kernel, initrd, line);
        let checked = opened.and_then(|kernel| kernel.check_room(self.memory));
        let finding = match checked {
            Ok(()) => check.ok(subject, kernel.display().to_string()),
            Err(error) => {
                let what = match &error {
                    Error::DoesNotFit { .. } | Error::InitrdTooLarge { .. } => "give the guest more memory",
                    Error::CommandLineTooLong { .. } | Error::CommandLineZero { .. } => {
                        "give it another command line"
                    }
                    _ => "name another file",
                };
                check.problem(subject, error.to_string()).mended(Remedy::by_hand(what))
            }
        };
        let files = [Some(kernel.as_path()), initrd].into_iter().flatten();
        Some(finding.naming(files.map(|file| file.display().to_string())))
    }
}

/// Where names of functions begin.
const NAMES: [&str; 4] = ["/sys/", "/pci@", "/devices/", "/dev/"];

/// What a user took for a function's name, and is a file's.
fn file_name(asked: &Asked) -> Option<String> {
    let name = asked.name.to_string();
    let is_file = name.starts_with('/') && !NAMES.iter().any(|names| name.starts_with(names));
    (is_file && matches!(asked.found, Found::Nothing(_))).then_some(name)
}

impl Diagnosis {
    fn new(findings: Vec<Finding>, facts: Facts) -> Diagnosis {
        let verdict = Verdict::of(&findings);
        Diagnosis { schema: SCHEMA, version: env!("CARGO_PKG_VERSION"), verdict, findings, facts }
    }

    /// For a person.
    pub fn text(&self, style: Style) -> String {
        text::of(self, style)
    }
}

/// Why it is not known which functions are meant for guests.
#[derive(Debug, thiserror::Error)]
pub enum MeantError {
    /// One of the files that say it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The host's functions.
    #[error("{}: {source}", sysfs::DEVICES)]
    Functions {
        /// errno.
        source: io::Error,
    },
}

/// The functions that are meant for guests: those that VFIO drivers hold, those that are reserved, and those that
/// `/etc/ppt_matches` matches.
pub fn meant_for_guests() -> Result<Vec<DeviceName>, MeantError> {
    let host = reserve::Host::default();
    let inventory = Inventory::read(&host).map_err(|source| MeantError::Functions { source })?;
    let matches = PptMatches::find(&ppt_matches::LOOKUP)?.map(|(_, matches)| matches);
    let mut reserved = AliasFile::read(&host.at_boot)?.reserved(&inventory);
    reserved.extend(AliasFile::read(&host.until_off)?.reserved(&inventory));
    let is_matched = |function: &Function| {
        let Function { sysfs, path, .. } = function;
        let (vendor, device) = (sysfs.ids as u16, (sysfs.ids >> 16) as u16);
        matches.as_ref().is_some_and(|matches| matches.matches(path.as_deref(), vendor, device))
    };
    let meant = inventory.iter().filter(|function| {
        function.is_vfio() || reserved.contains(&function.address()) || is_matched(function)
    });
    Ok(meant.map(|function| DeviceName::Host(function.address().to_string())).collect())
}
