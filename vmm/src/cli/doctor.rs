//! `slotpass doctor`.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::exit;
use super::vms::Places;
use crate::config::{ConfigError, VmFile};
use crate::doctor::finding::Verdict;
use crate::doctor::{self, Diagnosis, MeantError, NamedVm, Question, Style, report};
use crate::machine::UseIommufd;
use crate::memory::RamSize;
use crate::slot_map::DeviceName;
use crate::vms::Folders;
use crate::vms::store::{Store, StoreError};

/// It cannot be told whether the guest would start.
const UNKNOWN: u8 = 2;

const HELP: &str = "Exit codes:
  0  a guest with these functions would start
  1  it would not; or an error of slotpass, its arguments, or what they name
  2  it cannot be told";

/// Says whether a guest with these functions would start, and what mends it if not
///
/// Only reads. Run it as the user who runs the guest: what that user may do is part of the answer. Commands that it prints are
/// to be run as they are. Without a DEVICE it is about the host, and every function that a VFIO driver holds or that
/// /etc/ppt_matches or /etc/ppt_aliases names.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// An address (0000:01:00.0), a path in sysfs, a physical path (/pci@0,0/pci8086,151@1/display@0), or sim:NAME; or one VM,
    /// by its uuid or alias
    #[arg(value_name = "DEVICE|VM", conflicts_with = "config")]
    devices: Vec<String>,
    /// A VM's description in JSON, as run takes it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Guest memory, as with run [default: 512M]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<RamSize>,
    /// Processors, as with run [default: 1]
    #[arg(long, value_name = "N", value_parser = super::run::cpus, allow_hyphen_values = true)]
    cpus: Option<u32>,
    /// Reserved huge pages back the guest's memory, as with run
    #[arg(long)]
    hugepages: bool,
    /// Functions that cannot be reset are refused, as with run
    #[arg(long)]
    require_reset: bool,
    /// How functions are opened, as with run [default: auto]
    #[arg(long, value_name = "WHICH")]
    iommufd: Option<UseIommufd>,
    /// As JSON (vmm/DOCTOR.md)
    #[arg(long)]
    json: bool,
    /// Writes a text file to send with a bug: the host, its functions and their configuration space, and what was found;
    /// without names, MAC addresses and serial numbers
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, thiserror::Error)]
enum DoctorError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Meant(#[from] MeantError),
    #[error("{0}; a device is named by its address (0000:01:00.0) or path")]
    Vm(#[from] StoreError),
    #[error("{}: {source}", .path.display())]
    Report { path: PathBuf, source: io::Error },
    #[error("stdout: {0}")]
    Output(io::Error),
}

/// Shows the answer on stdout.
pub fn doctor(arguments: Arguments) -> ExitCode {
    match answered(arguments) {
        Ok(Verdict::Starts) => ExitCode::SUCCESS,
        Ok(Verdict::Refused) => exit::FAILED,
        Ok(Verdict::Unknown) => ExitCode::from(UNKNOWN),
        Err(error) => {
            let _ = writeln!(io::stderr(), "slotpass: {error}");
            exit::FAILED
        }
    }
}

fn answered(arguments: Arguments) -> Result<Verdict, DoctorError> {
    let (json, report) = (arguments.json, arguments.report.clone());
    let diagnosis = arguments.question()?.answer();
    if let Some(path) = report {
        write_report(&path, &diagnosis)?;
    }
    let text = match json {
        true => {
            serde_json::to_string_pretty(&diagnosis).map_err(|error| DoctorError::Output(error.into()))?
                + "\n"
        }
        false => diagnosis.text(style()),
    };
    super::slots::print(&text).map_err(DoctorError::Output)?;
    Ok(diagnosis.verdict)
}

/// Colours on a terminal only, and not for those who want none (no-color.org).
fn style() -> Style {
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stdout().is_terminal() { Style::Colours } else { Style::Plain }
}

fn write_report(path: &Path, diagnosis: &Diagnosis) -> Result<(), DoctorError> {
    std::fs::write(path, report::of(diagnosis))
        .map_err(|source| DoctorError::Report { path: path.to_owned(), source })
}

impl Arguments {
    fn question(self) -> Result<Question, DoctorError> {
        let question = match (&self.config, self.vm()) {
            (Some(path), _) => Question::of_vm(VmFile::read(path)?),
            (None, Some(name)) => of_named(name, &self.places)?,
            _ if self.devices.is_empty() => Question::about(doctor::meant_for_guests()?),
            _ => Question::about(self.devices.iter().map(|name| DeviceName::from(name.as_str()))),
        };
        Ok(Question {
            memory: self.memory.unwrap_or(question.memory),
            cpus: self.cpus.unwrap_or(question.cpus),
            huge_pages: self.hugepages || question.huge_pages,
            require_reset: self.require_reset || question.require_reset,
            iommufd: self.iommufd.unwrap_or(question.iommufd),
            ..question
        })
    }

    /// What is one word without what all names of devices have in them is a VM's name.
    fn vm(&self) -> Option<&str> {
        match self.devices.as_slice() {
            [name] if !name.contains([':', '/']) => Some(name),
            _ => None,
        }
    }
}

/// Whether `slotpass start` would start this VM.
fn of_named(name: &str, places: &Places) -> Result<Question, StoreError> {
    let (state_dir, run_dir) = places.given();
    let vm = Store::new(Folders::choose(state_dir.clone(), run_dir.clone())).find(name)?;
    let named = NamedVm { name: name.to_owned(), uuid: vm.uuid, state_dir, run_dir };
    Ok(Question { vm: Some(named), ..Question::of_vm(vm.file) })
}
