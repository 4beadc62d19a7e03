//! What accesses and interrupts cost: a guest of slotpass' own measures them (`guest::BENCH`), under slotpass, and under
//! others to compare with.
//!
//! | file | what |
//! |---|---|
//! | `rows.rs` | what is measured, and what of the floor stands beside it |
//! | `own.rs`, `floor.rs`, `qemu.rs` | who runs the guest |
//! | `by_host.rs`, `start.rs`, `dma.rs` | what the host measures by itself |
//! | `child.rs` | programs that are run for all that |
//! | `printed.rs`, `samples.rs` | what the guest prints |
//! | `report.rs`, `environment.rs` | all that was found out, as a file |
//! | `compare.rs` | which differences from an earlier file are real |
//! | `table.rs`, `html.rs` | for people |

mod by_host;
mod child;
pub mod compare;
mod dma;
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
pub mod start;
pub mod table;

use std::fs::File;
use std::ops::RangeInclusive;

pub use error::BenchError;
use printed::Printed;
pub use report::{Report, Run, Under};
use rows::{ByHost, Chosen, ROWS};
use start::Kernel;

use crate::machine::UseIommufd;
use crate::slot_map::{Assignment, DeviceName};

/// Samples of each measurement that the guest can take.
pub const ITERATIONS: RangeInclusive<u32> = 1..=65536;
/// How often the guest is started at most.
const ROUNDS: u32 = 5;
/// Samples of what takes long, at most.
const REPEATS: u32 = 10;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Bench {
    /// Functions; the first is measured.
    pub assignments: Vec<Assignment>,
    /// How they are opened.
    pub iommufd: UseIommufd,
    /// Samples of each, of [`ITERATIONS`].
    pub iterations: u32,
    /// All of [`ROWS`] if empty, and what the host measures by itself.
    pub only: Vec<Chosen>,
    /// Started as well, if it is among the measurements.
    pub kernel: Option<Kernel>,
    /// The bare loop as well.
    pub floor: bool,
    /// QEMU as well.
    pub qemu: bool,
}

/// What is printed in each round, by who ran the guest.
#[derive(Default)]
struct Rounds {
    own: Vec<Printed>,
    floor: Vec<Printed>,
    qemu: Vec<Printed>,
}

impl Bench {
    fn words(&self, slot: &str, iterations: u64, repeats: u64) -> String {
        let chosen = self.chosen();
        let mut names: Vec<String> =
            chosen.iter().filter(|chosen| chosen.by_host().is_none()).map(ToString::to_string).collect();
        if names.is_empty() {
            // For the rate of the time stamp counter, which the guest tells; without a name it makes all.
            names.extend(ROWS.first().map(|row| row.name.to_owned()));
        }
        format!("slot={slot} iterations={iterations} repeats={repeats} {}", names.join(" "))
    }

    /// What is measured, in the order in which it is told, named as it was asked for: 64 vectors are something else than 256.
    fn chosen(&self) -> Vec<Chosen> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let kernel = self.kernel.as_ref().map(|_| ByHost::StartKernel);
        let by_host = [Some(ByHost::Start), kernel, Some(ByHost::DmaMap)];
        ROWS.iter().map(Chosen::from).chain(by_host.into_iter().flatten().map(Chosen::from)).collect()
    }

    /// What is wrong with what was asked for, before anything takes time.
    fn check(&self) -> Result<(), BenchError> {
        self.check_kernel()?;
        // A descriptor that was handed over is taken by the first guest, and there are more.
        let files = self.assignments.iter().filter(|assignment| match &assignment.device {
            DeviceName::Host(name) => name.starts_with("fd:"),
            DeviceName::Simulated(_) | DeviceName::Ppt(_) => false,
        });
        let file = files.map(|assignment| format!("--slot {assignment}")).next();
        let iommufd = match self.iommufd {
            UseIommufd::File(fd) => Some(format!("--iommufd fd:{fd}")),
            UseIommufd::Auto | UseIommufd::On | UseIommufd::Off => None,
        };
        file.or(iommufd).map_or(Ok(()), |option| Err(BenchError::HandedOver(option)))
    }

    fn check_kernel(&self) -> Result<(), BenchError> {
        let is_chosen = self.chosen().iter().any(|chosen| chosen.by_host() == Some(ByHost::StartKernel));
        match &self.kernel {
            None if is_chosen => Err(BenchError::NoKernel),
            Some(_) if !is_chosen => Err(BenchError::KernelLeftOut),
            None => Ok(()),
            Some(Kernel { kernel, initrd, .. }) => {
                let mut files = [kernel].into_iter().chain(initrd);
                files.try_for_each(|path| match File::open(path) {
                    Ok(_) => Ok(()),
                    Err(source) => Err(BenchError::KernelFile { path: path.clone(), source }),
                })
            }
        }
    }

    /// Measures in rounds, in each under all of them in turn, so that what the host does meanwhile meets all alike.
    /// `slotpass` is this program's version.
    pub fn run(&self, slotpass: &str) -> Result<Report, BenchError> {
        self.check()?;
        let first = self.assignments.first();
        let slot = first.map_or_else(|| qemu::SLOT.to_owned(), |assignment| assignment.slot.to_string());
        let mut rounds = Rounds::default();
        let count = ROUNDS.min(self.iterations);
        for round in 0..count {
            let iterations = share(self.iterations, round, count);
            let repeats = share(REPEATS.min(self.iterations), round, count);
            if self.floor {
                rounds.floor.push(read(Under::Floor, &floor::run(iterations)?)?);
            }
            if self.qemu {
                let words = self.words(qemu::SLOT, iterations, repeats);
                let printed = read(Under::Qemu, &qemu::run(&words, first)?)?;
                rounds.qemu.push(self.completed(Under::Qemu, printed, repeats, &rounds.qemu)?);
            }
            let words = self.words(&slot, iterations, repeats);
            let text = own::run(words, self.assignments.clone(), self.iommufd)?;
            let printed = read(Under::Slotpass, &text)?;
            rounds.own.push(self.completed(Under::Slotpass, printed, repeats, &rounds.own)?);
        }
        let function = first.map(|Assignment { slot, device, .. }| format!("{device} in slot {slot}"));
        let of = |under: Under, function, rounds: &[Printed]| {
            let run = Run::of(under, function, rounds);
            run.map_err(|source| BenchError::Guest { under: under.name(), source })
        };
        let mut runs = vec![of(Under::Slotpass, function, &rounds.own)?];
        if self.floor {
            runs.push(of(Under::Floor, None, &rounds.floor)?);
        }
        if self.qemu {
            runs.push(of(Under::Qemu, Some(qemu::function(first)), &rounds.qemu)?);
        }
        Ok(Report::new(slotpass, runs))
    }
}

/// A round's part of all, as equal as can be. There are as many at least as rounds.
fn share(all: u32, round: u32, rounds: u32) -> u64 {
    let until = |round: u32| u64::from(all) * u64::from(round) / u64::from(rounds.max(1));
    until(round + 1) - until(round)
}

fn read(under: Under, text: &str) -> Result<Printed, BenchError> {
    Printed::read(text).map_err(|source| BenchError::Guest { under: under.name(), source })
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn the_rounds_together_take_all_samples_and_each_takes_one_at_least() {
        for (all, rounds) in [(1, 1), (3, 3), (7, 5), (1000, 5), (65536, 5)] {
            let shares: Vec<u64> = (0..rounds).map(|round| share(all, round, rounds)).collect();
            assert_eq!(shares.iter().sum::<u64>(), u64::from(all), "{shares:?}");
            assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
        }
    }
}
