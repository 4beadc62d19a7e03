//! Where `slotpass check` and `slotpass export` find the slot map that they are about.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::bhyve::description::Described;
use crate::bhyve::error::BhyveError;
use crate::bhyve::{args, config};
use crate::config::{ConfigError, VmFile};
use crate::memory::RamSize;
use crate::port_options::PortOptions;
use crate::slot_map::{Assignment, SlotMapError, any_host};

/// One description of a VM, and slots beside it.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Sources {
    /// Puts a function into a slot, as with run
    #[arg(long = "slot", value_name = "B:D:F=DEVICE[,port][,rom=FILE][,msix-page=trap]")]
    slots: Vec<Assignment>,
    /// An empty root port for bus B, as with run
    #[arg(long = "port", value_name = "B")]
    ports: Vec<u8>,
    /// A VM's description in JSON, as with run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bhyve_config", "bhyve_args"])]
    config: Option<PathBuf>,
    /// A VM's description in bhyve's form, bhyve_config(5)
    #[arg(long, value_name = "FILE", conflicts_with = "bhyve_args")]
    bhyve_config: Option<PathBuf>,
    /// A command line of bhyve(8) as one text, with or without the program's name
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    bhyve_args: Option<String>,
}

/// A slot map that was checked as far as that needs no host.
#[derive(Debug)]
pub struct Slots {
    /// By slot.
    pub assignments: Vec<Assignment>,
    /// Buses with an empty root port.
    pub empty_ports: Vec<u8>,
    /// Guest memory, if the description says it.
    pub memory: Option<RamSize>,
    /// Processors, if the description says it.
    pub cpus: Option<u32>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// A `--config` file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something of bhyve's.
    #[error(transparent)]
    Bhyve(#[from] BhyveError),
    /// All that speaks against it, a line each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Slots(Vec<SlotMapError>),
}

impl Sources {
    /// Reads what was named, and checks it. What is left out is said to stderr, before what is wrong, which may come of it.
    pub fn read(self) -> Result<Slots, SlotsError> {
        let nothing = |file| Described { file, notes: Vec::new() };
        let Described { file, notes } = match (&self.config, &self.bhyve_config, &self.bhyve_args) {
            (Some(path), ..) => nothing(VmFile::read(path)?),
            (_, Some(path), _) => config::read(path)?,
            (.., Some(text)) => args::parse(text)?,
            _ => nothing(VmFile::default()),
        };
        for note in &notes {
            let level = if note.is_warning() { "warn" } else { "info" };
            let _ = writeln!(io::stderr(), "slotpass: {level}: {note}");
        }
        let mut assignments: Vec<Assignment> = file.assignments().collect();
        assignments.extend(self.slots);
        assignments.sort_by_key(|assignment| assignment.slot);
        let mut empty_ports = file.ports;
        empty_ports.extend(self.ports);
        let options = PortOptions { empty: empty_ports.clone(), ..PortOptions::default() };
        any_host::check(&assignments, &options).map_err(SlotsError::Slots)?;
        Ok(Slots { assignments, empty_ports, memory: file.memory, cpus: file.cpus })
    }
}

/// Says an error to stderr, each of its lines.
pub fn say_error(error: &dyn std::error::Error) {
    for line in error.to_string().lines() {
        let _ = writeln!(io::stderr(), "slotpass: {line}");
    }
}

/// Writes to stdout. Nothing is wrong when whoever read it has seen enough.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
