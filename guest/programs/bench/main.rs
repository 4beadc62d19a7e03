//! Measures single accesses by the time stamp counter, and prints every sample. See the package's docs for the words.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod config;
mod device;
mod given;
mod interrupts;
mod runs;
mod samples;
mod table;
mod unclaimed;

use runtime::function::Function;
use runtime::slot::Slot;
use runtime::{Boot, Check, Outcome, Text, println, time};

use samples::Samples;

runtime::program!(main);

/// Where the function is unless the command line says otherwise.
const SLOT: Slot = Slot::new(0, 8, 0);

/// Why there are no samples.
enum Why {
    /// What would be measured is not there.
    Absent(Text),
    /// It is there and does not work.
    Failed(Text),
}

impl From<Text> for Why {
    fn from(why: Text) -> Self {
        Self::Failed(why)
    }
}

/// Leaves the function with [`Why::Absent`].
macro_rules! absent {
    ($($text:tt)*) => { return Err($crate::Why::Absent(runtime::Text::new(format_args!($($text)*)))) };
}
use absent;

type Measured = Result<(), Why>;

struct Bench<'a> {
    boot: &'a Boot<'a>,
    slot: Slot,
    function: Check<Function>,
    samples: Samples,
}

struct Measurement {
    name: &'static str,
    /// `value` is what the command line has behind the name and `=`, or empty.
    run: fn(bench: &mut Bench, name: &str, value: &str) -> Measured,
}

/// Those that need no value, in the order in which they are made unless the command line names some.
const MEASUREMENTS: [Measurement; 25] = [
    Measurement { name: "empty", run: unclaimed::empty },
    Measurement { name: "empty-port", run: unclaimed::empty_port },
    Measurement { name: "pio-read", run: unclaimed::pio_read },
    Measurement { name: "pio-write", run: unclaimed::pio_write },
    Measurement { name: "mmio-read", run: unclaimed::mmio_read },
    Measurement { name: "mmio-write", run: unclaimed::mmio_write },
    Measurement { name: "cf8-write-address", run: config::cf8_write_address },
    Measurement { name: "cf8-read", run: config::cf8_read },
    Measurement { name: "cf8-read-absent", run: config::cf8_read_absent },
    Measurement { name: "cf8-write", run: config::cf8_write },
    Measurement { name: "ecam-read", run: config::ecam_read },
    Measurement { name: "ecam-read-absent", run: config::ecam_read_absent },
    Measurement { name: "ecam-read-live", run: config::ecam_read_live },
    Measurement { name: "ecam-write", run: config::ecam_write },
    Measurement { name: "bar-read", run: device::bar_read },
    Measurement { name: "trapped-read", run: device::trapped_read },
    Measurement { name: "trapped-write", run: device::trapped_write },
    Measurement { name: "msix-read", run: table::read },
    Measurement { name: "pba-read", run: table::read_pending },
    Measurement { name: "msix-write-same", run: table::write_same },
    Measurement { name: "msix-mask-unmask", run: table::mask_unmask },
    Measurement { name: "doorbell", run: interrupts::doorbell },
    Measurement { name: "interrupt", run: interrupts::interrupt },
    Measurement { name: "enable-at-once", run: table::enable_at_once },
    Measurement { name: "enable-one-by-one", run: table::enable_one_by_one },
];

/// Those whose address the command line gives.
const GIVEN: [Measurement; 5] = [
    Measurement { name: "ro-read", run: given::read },
    Measurement { name: "ro-write", run: given::write },
    Measurement { name: "coalesced-write", run: given::write_port },
    Measurement { name: "ioeventfd-write", run: given::write },
    Measurement { name: "irqfd", run: given::interrupt },
];

const OTHER_WORDS: [&str; 4] = ["slot", "iterations", "repeats", "vector"];

fn all() -> impl Iterator<Item = &'static Measurement> {
    MEASUREMENTS.iter().chain(&GIVEN)
}

fn main(boot: &Boot) -> Outcome {
    let mut words = [""; MEASUREMENTS.len() + GIVEN.len() + OTHER_WORDS.len()];
    let names = all().map(|measurement| measurement.name).chain(OTHER_WORDS);
    for (word, name) in words.iter_mut().zip(names) {
        *word = name;
    }
    Outcome::of(boot, "bench", &words, run)
}

fn run(boot: &Boot) -> Check {
    let line = boot.command_line;
    let slot = line.slot("slot").unwrap_or(SLOT);
    let mut bench =
        Bench { boot, slot, function: Function::find(slot, boot.acpi.as_ref()), samples: Samples::new(line) };
    if let Ok(function) = &bench.function {
        function.enable();
    }
    println!("bench-rate {}", time::cycles_per_microsecond());
    let chosen = || line.words().filter_map(|(word, value)| Some((all().find(|m| m.name == word)?, value)));
    for (measurement, value) in chosen() {
        bench.run(measurement, value)?;
    }
    if chosen().next().is_none() {
        for measurement in &MEASUREMENTS {
            bench.run(measurement, "")?;
        }
    }
    Ok(())
}

impl Bench<'_> {
    fn run(&mut self, measurement: &Measurement, value: &str) -> Check {
        let name = measurement.name;
        match (measurement.run)(self, name, value) {
            Ok(()) => Ok(()),
            Err(Why::Absent(why)) => {
                println!("bench {name} absent {why}");
                Ok(())
            }
            Err(Why::Failed(why)) => Err(Text::new(format_args!("{name}: {why}"))),
        }
    }

    fn function(&self) -> Result<&Function, Why> {
        match &self.function {
            Ok(function) => Ok(function),
            Err(why) => absent!("{why}"),
        }
    }
}
