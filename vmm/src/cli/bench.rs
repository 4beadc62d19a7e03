//! `slotpass bench`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit;
use super::written_last::{WrittenLast, WrittenLastError};
use crate::bench::report::BaselineError;
use crate::bench::rows::Chosen;
use crate::bench::start::Kernel;
use crate::bench::{Bench, BenchError, ITERATIONS, Report, compare, html, table};
use crate::machine::UseIommufd;
use crate::slot_map::Assignment;

/// Of a kernel that is started, so that it sends something.
const CONSOLE: &str = "console=ttyS0";

/// Whom to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Against {
    /// qemu-system-x86_64 with KVM and the machine q35
    Qemu,
}

/// Measures what a guest's accesses and interrupts cost
///
/// A guest of slotpass' own takes the time stamp counter around each access; starts of guests, and the map of their memory for
/// DMA, are timed from outside. vmm/BENCH.md says what is measured and how.
/// Without --slot it has slotpass' simulated function.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Puts a function into a slot, as with run; the first is measured, others are there beside it. Registers in the BARs of a
    /// function that slotpass does not know are only read
    #[arg(long = "slot", value_name = "B:D:F=DEVICE[,port][,rom=FILE]")]
    slots: Vec<Assignment>,
    /// Measures a bare loop around KVM_RUN as well, the least that KVM allows, and shows the ratios to it
    #[arg(long)]
    floor: bool,
    /// Measures under another VMM as well, with the function of the first --slot if it is one of this host, otherwise with an
    /// edu device, and shows the ratios to it
    #[arg(long, value_name = "VMM")]
    against: Option<Against>,
    /// Samples of each measurement, 1 to 65536
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(i64::from(*ITERATIONS.start())..=i64::from(*ITERATIONS.end())))]
    iterations: u32,
    /// Only these measurements, in this order
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<Chosen>,
    /// Measures as well how long it takes to start this kernel, a Linux bzImage or another that run takes, to the first byte that
    /// it sends by its serial port (start-kernel)
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Its command line [default: console=ttyS0]
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true)]
    append: Option<String>,
    /// To this text instead of to the first byte
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true,
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    until: Option<String>,
    /// As JSON, with every sample and what the figures depend on; what --baseline takes
    #[arg(long)]
    json: bool,
    /// Says which medians differ from those of an earlier bench, by 1 % or more, and more than by chance: a test of the ranks of
    /// all samples, and of how often the guest was started
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Writes a page with a histogram of each measurement
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How functions are opened, as with run [default: auto]
    #[arg(long, value_name = "WHICH")]
    iommufd: Option<UseIommufd>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Log(#[from] super::run::RunError),
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    #[error(transparent)]
    Page(#[from] WrittenLastError),
    #[error("stdout: {0}")]
    Output(io::Error),
}

/// Shows the figures on stdout.
pub fn bench(arguments: Arguments, verbose: u8) -> ExitCode {
    match measured(arguments, verbose) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::slots::say_error(&error);
            exit::FAILED
        }
    }
}

fn measured(arguments: Arguments, verbose: u8) -> Result<(), Error> {
    super::run::start_log(None, verbose)?;
    // What is wrong with the files is said before anything takes time.
    let baseline = arguments.baseline.as_deref().map(Report::read).transpose()?;
    let page = arguments.html.as_deref().map(WrittenLast::new).transpose()?;
    let bench = Bench {
        assignments: match arguments.slots {
            slots if slots.is_empty() => "0:8:0=sim:demo".parse().into_iter().collect(),
            slots => slots,
        },
        iommufd: arguments.iommufd.unwrap_or_default(),
        iterations: arguments.iterations,
        only: arguments.only,
        kernel: arguments.kernel.map(|kernel| Kernel {
            kernel,
            initrd: arguments.initrd,
            command_line: arguments.append.unwrap_or_else(|| CONSOLE.to_owned()),
            until: arguments.until,
        }),
        floor: arguments.floor,
        qemu: arguments.against == Some(Against::Qemu),
    };
    let report = bench.run(super::VERSION)?;
    let compared = baseline.map(|baseline| {
        let compared = compare::with_baseline(&report, &baseline);
        table::compared(&compared, &report.environment, &baseline.environment)
    });
    if arguments.json {
        let json = serde_json::to_string(&report).map_err(|error| Error::Output(error.into()))?;
        super::slots::print(&(json + "\n")).map_err(Error::Output)?;
        // Beside the JSON, which is for programs.
        if let Some(compared) = compared {
            let _ = io::stderr().write_all(compared.as_bytes());
        }
    } else {
        let text = table::text(&report) + &compared.unwrap_or_default();
        super::slots::print(&text).map_err(Error::Output)?;
    }
    // The figures are there even if the page cannot be written.
    page.map_or(Ok(()), |page| Ok(page.write(html::page(&report).as_bytes())?))
}
