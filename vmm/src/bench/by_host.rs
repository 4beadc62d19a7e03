//! Measurements that the host makes by itself, beside those of the guest.

use std::time::Duration;

use super::error::BenchError;
use super::printed::{Measured, Printed, PrintedError};
use super::report::Under;
use super::rows::{ByHost, Chosen};
use super::samples::Samples;
use super::start::{self, Started};
use super::{Bench, dma};

impl Bench {
    /// What the guest printed and what the host measures by itself, in the order in which they were asked for. Of the latter
    /// there are so many samples; `before` is what came of earlier rounds.
    pub(super) fn completed(
        &self,
        under: Under,
        printed: Printed,
        repeats: u64,
        before: &[Printed],
    ) -> Result<Printed, BenchError> {
        let failed = |source| BenchError::Guest { under: under.name(), source };
        let Printed { rate, measured } = printed;
        let (mut by_guest, mut all) = (measured.into_iter(), Vec::new());
        for chosen in self.chosen() {
            let measured = match chosen.by_host() {
                None => match by_guest.next() {
                    Some((name, measured)) if chosen.is_row(&name) => measured,
                    other => {
                        let found = other.map(|(name, _)| name);
                        return Err(failed(PrintedError::NotAsAsked { wanted: chosen.to_string(), found }));
                    }
                },
                Some(ByHost::DmaMap) if under == Under::Qemu => continue,
                Some(row) => match absent_before(&chosen, before) {
                    Some(absent) => absent,
                    None => self.by_host(row, under, rate, repeats, before.is_empty())?,
                },
            };
            all.push((chosen.to_string(), measured));
        }
        Ok(Printed { rate, measured: all })
    }

    /// A first one fills the caches of the host, and does not count.
    fn by_host(
        &self,
        row: ByHost,
        under: Under,
        rate: u64,
        repeats: u64,
        is_first_round: bool,
    ) -> Result<Measured, BenchError> {
        let mut cycles = Vec::new();
        for number in 0..repeats + u64::from(is_first_round) {
            let started = match (row, &self.kernel) {
                (ByHost::Start, _) => start::image(self, under)?,
                (ByHost::StartKernel, Some(kernel)) => start::kernel(self, under, kernel)?,
                (ByHost::StartKernel, None) => Started::Never("no kernel was given".to_owned()),
                (ByHost::DmaMap, _) => match dma::map(&self.assignments, self.iommufd) {
                    Ok(time) => Started::After(time),
                    Err(error) => Started::Never(error.to_string().replace('\n', " ")),
                },
            };
            match started {
                Started::After(time) if number > 0 || !is_first_round => cycles.push(in_cycles(time, rate)),
                Started::After(_) => {}
                Started::Never(why) => return Ok(Measured::Absent(why)),
            }
        }
        let samples = Samples::counted(cycles).map(Measured::Samples);
        samples.map_err(|source| {
            let source = PrintedError::Samples { name: row.name().to_owned(), source };
            BenchError::Guest { under: under.name(), source }
        })
    }
}

/// What was absent once would be so again, and may take long to be found so.
fn absent_before(chosen: &Chosen, before: &[Printed]) -> Option<Measured> {
    let name = chosen.to_string();
    let last = before.last()?.measured.iter().find(|(of, _)| *of == name)?;
    matches!(last.1, Measured::Absent(_)).then(|| last.1.clone())
}

/// By the time stamp counter of the guest, which runs as fast as the host's.
fn in_cycles(time: Duration, cycles_per_microsecond: u64) -> u64 {
    let cycles = time.as_nanos() * u128::from(cycles_per_microsecond) / 1000;
    u64::try_from(cycles).unwrap_or(u64::MAX)
}
