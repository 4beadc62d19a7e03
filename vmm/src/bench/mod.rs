//! What accesses and interrupts cost: a guest of slotpass' own measures them (`guest::BENCH`), under slotpass, and under
//! others to compare with.
//!
//! | file | what |
//! |---|---|
//! | `rows.rs` | what is measured, and what of the floor stands beside it |
//! | `own.rs`, `floor.rs`, `qemu.rs` | who runs the guest |
//! | `printed.rs`, `samples.rs` | what the guest prints |
//! | `report.rs`, `environment.rs` | all that was found out, as a file |
//! | `compare.rs` | which differences from an earlier file are real |
//! | `table.rs`, `html.rs` | for people |

pub mod compare;
pub mod environment;
pub mod error;
pub mod floor;
mod guest_text;
pub mod html;
mod own;
pub mod printed;
pub mod qemu;
pub mod report;
pub mod rows;
pub mod samples;
pub mod table;

use std::ops::RangeInclusive;

pub use error::BenchError;
use printed::Printed;
pub use report::{Report, Run, Under};
use rows::{Chosen, ROWS};

use crate::machine::UseIommufd;
use crate::slot_map::Assignment;

/// Samples of each measurement that the guest can take.
pub const ITERATIONS: RangeInclusive<u32> = 1..=65536;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Bench {
    /// Functions; the first is measured.
    pub assignments: Vec<Assignment>,
    /// How they are opened.
    pub iommufd: UseIommufd,
    /// Of [`ITERATIONS`].
    pub iterations: u32,
    /// All of [`ROWS`] if empty.
    pub only: Vec<Chosen>,
    /// The bare loop as well.
    pub floor: bool,
    /// QEMU as well.
    pub qemu: bool,
}

impl Bench {
    fn words(&self, slot: &str) -> String {
        let names: Vec<String> = match self.only.as_slice() {
            [] => ROWS.iter().map(|row| row.name.to_owned()).collect(),
            only => only.iter().map(ToString::to_string).collect(),
        };
        format!("slot={slot} iterations={} {}", self.iterations, names.join(" "))
    }

    /// Measures, under one after the other; `slotpass` is this program's version.
    pub fn run(&self, slotpass: &str) -> Result<Report, BenchError> {
        let first = self.assignments.first();
        let slot = first.map_or_else(|| qemu::SLOT.to_owned(), |assignment| assignment.slot.to_string());
        let read = |under: Under, text: String| {
            let printed = Printed::read(&text);
            let printed = printed.map_err(|source| BenchError::Guest { under: under.name(), source })?;
            Ok::<Run, BenchError>(Run::of(under, printed))
        };
        // The floor first: the machine takes over this process' signals.
        let floor = match self.floor {
            true => Some(read(Under::Floor, floor::run(self.iterations)?)?),
            false => None,
        };
        let qemu = match self.qemu {
            true => Some(read(Under::Qemu, qemu::run(&self.words(qemu::SLOT), first)?)?),
            false => None,
        };
        let own = own::run(self.words(&slot), self.assignments.clone(), self.iommufd)?;
        let mut runs = vec![read(Under::Slotpass, own)?];
        runs.extend(floor);
        runs.extend(qemu);
        let function = match first {
            Some(Assignment { slot, device, .. }) => format!("{device} in slot {slot}"),
            None => "no function".to_owned(),
        };
        Ok(Report::new(slotpass, function, runs))
    }
}
