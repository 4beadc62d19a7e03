//! `slotpass run`, and `slotpass` alone.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use env_logger::{Builder, Target, WriteStyle};
use log::LevelFilter;

use super::exit;
use crate::bhyve;
use crate::bhyve::description::Described;
use crate::bhyve::error::BhyveError;
use crate::config::{ConfigError, CpusError, IncompleteError, VmFile, check_cpus};
use crate::machine::{
    self, Description, EventPolicy, Image, MachineError, OnError, OnRequest, Outcome, UseIommufd,
};
use crate::memory::{Backing, RamSize};
use crate::port_options::{PortOptions, PortWindow};
use crate::ppt::PptHost;
use crate::progress;
use crate::slot_map::Assignment;
use crate::vcpu_options::{self, DisabledExits, Pin, VcpuOptions};

/// Boots a guest with functions of this host in its slots
///
/// The guest's serial port is stdin and stdout; everything slotpass itself says goes to stderr.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A VM's description in JSON; options given beside it count more, and slots and ports are added
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A VM's description in bhyve's form, bhyve_config(5): its passthru slots, memory.size and cpus; options given beside
    /// it count more, and slots are added
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    bhyve_config: Option<PathBuf>,
    /// Linux bzImage, PVH ELF or multiboot 1 image
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// Guest memory [default: 512M]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<RamSize>,
    /// Processors, 1 to 254 [default: 1]
    #[arg(long, value_name = "N", value_parser = cpus, allow_hyphen_values = true)]
    cpus: Option<u32>,
    /// Runs a vCPU on these CPUs of the host only, as 0=2 or 1=4-5,8; once for each vCPU that is not to run anywhere
    #[arg(long, value_name = "VCPU=CPULIST", allow_hyphen_values = true)]
    cpu_affinity: Vec<Pin>,
    /// Lets KVM look for an interrupt for so many nanoseconds at most before a vCPU that has halted sleeps: more answers sooner
    /// and takes host CPU, 0 sleeps at once [default: as the host's KVM is set up]
    #[arg(long, value_name = "NS", allow_hyphen_values = true)]
    halt_poll: Option<u32>,
    /// Lets the guest execute hlt, pause and mwait without an exit. With hlt or mwait a vCPU that waits keeps a whole host CPU,
    /// which shows as busy all the time and runs nothing else: for vCPUs with CPUs of their own (--cpu-affinity)
    #[arg(long, value_name = "hlt,pause,mwait")]
    disable_exits: Option<DisabledExits>,
    /// Puts a function into a slot; DEVICE is an address (0000:01:00.0), a path in sysfs, a physical path as illumos has it
    /// (/pci@0,0/pci8086,151@1/display@0), fd:N (an open file of /dev/vfio/devices), or sim:NAME. With `port`, bus B (1 to 15, D is 0) is behind a root port at 0:(15+B):0;
    /// otherwise it is a root bus. With `rom`, the guest finds FILE as the function's expansion ROM instead of its own.
    /// With `msix-page=trap`, its reads of the pages that hold the MSI-X table and pending bits exit, for a function that has
    /// registers of its own in them
    #[arg(long = "slot", value_name = "B:D:F=DEVICE[,port][,rom=FILE][,msix-page=trap]")]
    slots: Vec<Assignment>,
    /// Gives the guest an empty root port for bus B, 1 to 15, for hot plug
    #[arg(long = "port", value_name = "B")]
    ports: Vec<u8>,
    /// Room of each root port: memory below 4 GiB, and prefetchable memory; more where functions need it [default: 64M,1G]
    #[arg(long, value_name = "SIZE,SIZE", allow_hyphen_values = true)]
    port_window: Option<PortWindow>,
    /// Writes what slotpass says to a file, notes included; errors that end it go to stderr as well
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Says at the end what made the guest exit, on stderr or as JSON to a file
    #[arg(long, value_name = "json:FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    stats: Option<StatsTarget>,
    /// A reset by the guest ends it
    #[arg(long)]
    no_reboot: bool,
    /// Refuses functions that cannot be reset
    #[arg(long)]
    require_reset: bool,
    /// Opens functions by device file and iommufd, not by group: auto (where the kernel has it), on, off, or fd:N, an
    /// open /dev/iommu [default: auto]
    #[arg(long, value_name = "WHICH")]
    iommufd: Option<UseIommufd>,
    /// Lets `slotpass ctl` list, add and remove functions while the guest runs, by a Unix socket of this name
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// When a function reports an uncorrectable error: stop the guest, log it, or pass it on to the guest by the root
    /// port before it [default: stop]
    #[arg(long, value_name = "WHAT")]
    on_error: Option<OnError>,
    /// When the host wants a function back: ask[:SECONDS] the guest, if a root port is before it, and take it after that
    /// time; take it at once; or stop the guest [default: ask:10]
    #[arg(long, value_name = "WHAT")]
    on_request: Option<OnRequest>,
    /// Backs guest memory with reserved huge pages
    #[arg(long)]
    hugepages: bool,
}

#[derive(Clone, Debug)]
enum StatsTarget {
    Stderr,
    Json(PathBuf),
}

impl std::str::FromStr for StatsTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<StatsTarget, String> {
        match text.strip_prefix("json:") {
            Some(file) if !file.is_empty() => Ok(StatsTarget::Json(file.into())),
            None if text.is_empty() => Ok(StatsTarget::Stderr),
            _ => Err("only json:FILE can be given".to_owned()),
        }
    }
}

/// Where the counts go in the end.
enum StatsFile {
    Stderr,
    Json(PathBuf, File),
}

impl StatsFile {
    fn open(target: StatsTarget) -> Result<StatsFile, RunError> {
        match target {
            StatsTarget::Stderr => Ok(StatsFile::Stderr),
            StatsTarget::Json(path) => match File::create(&path) {
                Ok(file) => Ok(StatsFile::Json(path, file)),
                Err(source) => Err(RunError::Write { path, source }),
            },
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CpusTextError {
    #[error("not a number of processors: {0}")]
    Number(#[from] std::num::ParseIntError),
    #[error(transparent)]
    Range(#[from] CpusError),
}

/// A number of processors that a guest can have.
pub(super) fn cpus(text: &str) -> Result<u32, CpusTextError> {
    let cpus = text.parse()?;
    check_cpus(cpus)?;
    Ok(cpus)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Bhyve(#[from] BhyveError),
    #[error("no kernel: give --kernel FILE, or \"kernel\" in the --config file")]
    NoKernel,
    #[error("cpus: {0}")]
    Cpus(CpusError),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl Arguments {
    fn description(self) -> Result<Description, RunError> {
        let file = match (&self.config, &self.bhyve_config) {
            (Some(path), _) => VmFile::read(path)?,
            (_, Some(path)) => bhyve_config(path)?,
            _ => VmFile::default(),
        };
        let mut assignments: Vec<Assignment> = file.assignments().collect();
        assignments.extend(self.slots);
        let mut ports = file.ports;
        ports.extend(self.ports);
        let merged = VmFile {
            kernel: self.kernel.or(file.kernel),
            initrd: self.initrd.or(file.initrd),
            cmdline: self.cmdline.or(file.cmdline),
            memory: self.memory.or(file.memory),
            hugepages: self.hugepages || file.hugepages,
            cpus: self.cpus.or(file.cpus),
            cpu_affinity: vcpu_options::merge(file.cpu_affinity, self.cpu_affinity),
            halt_poll: self.halt_poll.or(file.halt_poll),
            disable_exits: self.disable_exits.or(file.disable_exits),
            control: self.control.or(file.control),
            no_reboot: self.no_reboot || file.no_reboot,
            require_reset: self.require_reset || file.require_reset,
            iommufd: self.iommufd.or(file.iommufd),
            on_error: self.on_error.or(file.on_error),
            on_request: self.on_request.or(file.on_request),
            pci_devices: Vec::new(),
            ports,
            port_window: self.port_window.or(file.port_window),
        };
        let description = merged.description().map_err(|error| match error {
            IncompleteError::NoKernel => RunError::NoKernel,
            IncompleteError::Cpus(error) => RunError::Cpus(error),
        })?;
        Ok(Description { assignments, page_times: self.stats.is_some(), ..description })
    }
}

/// What bhyve's file says, and to the log what is left out of it.
fn bhyve_config(path: &Path) -> Result<VmFile, BhyveError> {
    let Described { file, notes } = bhyve::config::read(path)?;
    for note in &notes {
        let level = if note.is_warning() { log::Level::Warn } else { log::Level::Info };
        log::log!(level, "{note}");
    }
    Ok(file)
}

/// Runs a guest as the arguments say.
pub fn run(arguments: Arguments, verbose: u8, ppt: Option<Arc<dyn PptHost>>) -> ExitCode {
    let stats = arguments.stats.clone();
    let log = arguments.log.clone();
    if let Err(error) = start_log(log.as_ref(), verbose) {
        return failed(&error);
    }
    let outcome = arguments.description().and_then(|description| {
        // Before the guest runs, whose counts would be lost for a name that is wrong.
        let stats = stats.map(StatsFile::open).transpose()?;
        Ok((machine::run(&Description { ppt, ..description })?, stats))
    });
    match outcome {
        Ok((outcome, stats)) => finish(&outcome, stats),
        Err(error) => {
            if log.is_some() {
                log::error!("{error}");
            }
            failed(&error)
        }
    }
}

/// Runs the guest that is part of this program.
pub fn demo(verbose: u8) -> ExitCode {
    if let Err(error) = start_log(None, verbose) {
        return failed(&error);
    }
    let description = Description {
        image: Image::Embedded { name: "demo", bytes: guest::DEMO },
        command_line: "slot=0:8:0".to_owned(),
        memory: RamSize::default(),
        backing: Backing::Transparent,
        cpus: 1,
        vcpu_options: VcpuOptions::default(),
        assignments: "0:8:0=sim:demo".parse().into_iter().collect(),
        ports: PortOptions::default(),
        events: EventPolicy::default(),
        control: None,
        require_reset: true,
        iommufd: UseIommufd::Auto,
        ppt: None,
        no_reboot: true,
        page_times: false,
        console: None,
        records: None,
        running: None,
    };
    match machine::run(&description) {
        Ok(outcome) => finish(&outcome, None),
        Err(error) => failed(&error.into()),
    }
}

fn failed(error: &RunError) -> ExitCode {
    for line in error.to_string().lines() {
        say(&format!("slotpass: {line}"));
    }
    exit::FAILED
}

fn finish(outcome: &Outcome, stats: Option<StatsFile>) -> ExitCode {
    if let Some(message) = exit::message(&outcome.stop) {
        say(&format!("slotpass: {message}"));
    }
    match stats {
        None => {}
        Some(StatsFile::Stderr) => say(&outcome.stats.to_string()),
        Some(StatsFile::Json(path, mut file)) => {
            let json = serde_json::to_vec_pretty(&outcome.stats).map_err(io::Error::from);
            if let Err(source) = json.and_then(|json| file.write_all(&json)) {
                return failed(&RunError::Write { path, source });
            }
        }
    }
    exit::code(&outcome.stop)
}

/// To stderr. When nobody can read it, that changes nothing, least of all the exit code.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A file gets notes as well; stderr, where the guest's output may be too, only warnings unless more is asked for.
pub(super) fn start_log(file: Option<&PathBuf>, verbose: u8) -> Result<(), RunError> {
    let level = match verbose.saturating_add(u8::from(file.is_some())) {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    let mut builder = Builder::new();
    builder.filter_level(level).write_style(WriteStyle::Never);
    match file {
        Some(path) => {
            let file = File::create(path).map_err(|source| RunError::Write { path: path.clone(), source })?;
            builder.target(Target::Pipe(Box::new(file)));
        }
        None => {
            builder.target(Target::Stderr);
            // For who waits at a terminal.
            if io::stderr().is_terminal() {
                builder.filter_module(progress::TARGET, level.max(LevelFilter::Info));
            }
        }
    }
    builder.format(|out, record| {
        let level = record.level().as_str().to_lowercase();
        writeln!(out, "slotpass: {level}: {}", record.args())
    });
    builder.init();
    Ok(())
}

#[cfg(test)]
mod tests;
