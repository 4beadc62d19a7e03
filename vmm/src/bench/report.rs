//! All that a bench found out: what `--json` writes and `--baseline` reads.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::printed::{Measured, Printed, PrintedError};
use super::rows;
use super::samples::{Quantiles, Samples};

/// Of the file; another number is another form.
const FORMAT: u32 = 1;
/// Bytes of a file: far more than any that is written.
const LONGEST: u64 = 256 << 20;

/// Who ran the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Under {
    /// This program.
    Slotpass,
    /// The bare loop.
    Floor,
    /// QEMU.
    Qemu,
}

impl Under {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Under::Slotpass => "slotpass",
            Under::Floor => "the bare KVM loop",
            Under::Qemu => "QEMU",
        }
    }
}

/// All that a bench found out.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Report {
    format: u32,
    /// What `slotpass --version` says.
    pub slotpass: String,
    /// What the figures depend on beside it.
    pub environment: Environment,
    /// What was found under each.
    pub runs: Vec<Run>,
}

/// What was found under one of them, in all rounds.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Who ran the guest.
    pub under: Under,
    /// The function that was measured, if the guest had one.
    #[serde(default)]
    pub function: Option<String>,
    /// Of the time stamp counter.
    pub cycles_per_microsecond: u64,
    /// In the order in which they were made.
    pub measurements: Vec<Measurement>,
}

/// What came of one measurement.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Measurement {
    /// As the guest names it.
    pub name: String,
    /// The machine or the slot has no such thing, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// In cycles.
    #[serde(default, skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub quantiles: Option<Quantiles>,
    /// The same in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub nanoseconds: Option<Quantiles>,
    /// By the floor's.
    #[serde(default, skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub to_floor: Option<Ratio>,
    /// By QEMU's.
    #[serde(default, skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub to_qemu: Option<Ratio>,
    /// The median of each round: the guest was started so often.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub round_medians: Vec<u64>,
    /// Each value in cycles, and how often it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles: Option<Samples>,
}

impl Run {
    /// From what the guest printed in each round, which is of the same measurements in the same order.
    pub fn of(under: Under, function: Option<String>, rounds: &[Printed]) -> Result<Run, PrintedError> {
        let mut rates: Vec<u64> = rounds.iter().map(|printed| printed.rate).collect();
        rates.sort_unstable();
        let rate = rates.get(rates.len() / 2).copied().unwrap_or(1);
        let count = rounds.iter().map(|printed| printed.measured.len()).max().unwrap_or(0);
        let measurements = (0..count).map(|at| {
            let mut names = rounds.iter().map(|printed| printed.measured.get(at).map(|(name, _)| name));
            let first = names.next().flatten();
            if let Some(other) = names.find(|other| *other != first) {
                let said = |name: Option<&String>| name.map_or_else(|| "nothing".to_owned(), String::clone);
                return Err(PrintedError::Unlike { one: said(first), other: said(other) });
            }
            let of_rounds: Vec<&(String, Measured)> =
                rounds.iter().filter_map(|printed| printed.measured.get(at)).collect();
            Measurement::of(&of_rounds, rate)
        });
        let measurements = measurements.collect::<Result<_, _>>()?;
        Ok(Run { under, function, cycles_per_microsecond: rate, measurements })
    }

    /// The samples of a measurement, if it was made; of one that was made more than once, the first's.
    pub fn samples(&self, name: &str) -> Option<&Samples> {
        self.measurements.iter().find(|m| m.name == name)?.cycles.as_ref()
    }

    /// What stands in this run beside the measurement at `at` of another: the same, made as often before.
    pub fn beside(&self, other: &Run, at: usize) -> Option<&Measurement> {
        let name = &other.measurements.get(at)?.name;
        let earlier = other.measurements.iter().take(at).filter(|of| of.name == *name).count();
        self.measurements.iter().filter(|of| of.name == *name).nth(earlier)
    }
}

impl Measurement {
    /// Of the rounds' results: absent if it was so in one of them.
    fn of(rounds: &[&(String, Measured)], rate: u64) -> Result<Measurement, PrintedError> {
        let name = rounds.first().map(|(name, _)| name.clone()).unwrap_or_default();
        let mut measurement = Measurement {
            name: name.clone(),
            absent: None,
            quantiles: None,
            nanoseconds: None,
            to_floor: None,
            to_qemu: None,
            round_medians: Vec::new(),
            cycles: None,
        };
        let mut all = Vec::new();
        for (_, measured) in rounds {
            match measured {
                Measured::Samples(samples) => all.push(samples),
                Measured::Absent(why) => return Ok(Measurement { absent: Some(why.clone()), ..measurement }),
            }
        }
        let medians = all.iter().map(|samples| samples.quantiles().p50).collect();
        let samples = Samples::merged(all).map_err(|source| PrintedError::Samples { name, source })?;
        let quantiles = samples.quantiles();
        measurement.quantiles = Some(quantiles);
        measurement.nanoseconds = Some(quantiles.map(|cycles| nanoseconds(cycles, rate)));
        measurement.round_medians = medians;
        measurement.cycles = Some(samples);
        Ok(measurement)
    }
}

/// Rounded.
pub(super) fn nanoseconds(cycles: u64, cycles_per_microsecond: u64) -> u64 {
    let scaled = u128::from(cycles) * 1000 + u128::from(cycles_per_microsecond) / 2;
    u64::try_from(scaled / u128::from(cycles_per_microsecond.max(1))).unwrap_or(u64::MAX)
}

/// A figure by another one.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Ratio {
    /// Of the least samples.
    pub min: f64,
    /// Of the medians.
    pub p50: f64,
}

impl Ratio {
    fn of(figure: Quantiles, by: (u64, u64)) -> Option<Ratio> {
        let (min, p50) = by;
        let of = |figure: u64, by: u64| figure as f64 / by as f64;
        (min > 0 && p50 > 0).then(|| Ratio { min: of(figure.min, min), p50: of(figure.p50, p50) })
    }
}

impl Report {
    /// Of these runs, of which slotpass' is the first.
    pub fn new(slotpass: &str, runs: Vec<Run>) -> Report {
        let environment = Environment::here();
        let mut report = Report { format: FORMAT, slotpass: slotpass.to_owned(), environment, runs };
        let count = report.run(Under::Slotpass).map_or(0, |run| run.measurements.len());
        let ratios: Vec<_> =
            (0..count).map(|at| (report.ratio_to_floor(at), report.ratio_to_qemu(at))).collect();
        let own = report.runs.iter_mut().find(|run| run.under == Under::Slotpass);
        let measurements = own.into_iter().flat_map(|run| &mut run.measurements);
        for (measurement, (to_floor, to_qemu)) in measurements.zip(ratios) {
            (measurement.to_floor, measurement.to_qemu) = (to_floor, to_qemu);
        }
        report
    }

    /// The run under somebody.
    pub fn run(&self, under: Under) -> Option<&Run> {
        self.runs.iter().find(|run| run.under == under)
    }

    /// How often slotpass' figure has the floor's in it, which is a sum where several things happen.
    fn ratio_to_floor(&self, at: usize) -> Option<Ratio> {
        let (own, floor) = (self.run(Under::Slotpass)?.measurements.get(at)?, self.run(Under::Floor)?);
        let (figure, parts) = (own.cycles.as_ref()?, rows::find(&own.name)?.floor);
        let parts: Vec<Quantiles> =
            parts.iter().map(|part| Some(floor.samples(part)?.quantiles())).collect::<Option<_>>()?;
        let sum = |of: fn(&Quantiles) -> u64| parts.iter().map(of).sum();
        Ratio::of(figure.quantiles(), (sum(|q| q.min), sum(|q| q.p50)))
    }

    /// How often slotpass' figure has QEMU's in it.
    fn ratio_to_qemu(&self, at: usize) -> Option<Ratio> {
        let own = self.run(Under::Slotpass)?;
        let qemu = self.run(Under::Qemu)?.beside(own, at)?.cycles.as_ref()?.quantiles();
        Ratio::of(own.measurements.get(at)?.cycles.as_ref()?.quantiles(), (qemu.min, qemu.p50))
    }

    /// Reads what `--json` wrote.
    pub fn read(path: &Path) -> Result<Report, BaselineError> {
        let failed = |source| BaselineError::Read { path: path.to_owned(), source };
        // To open a pipe for good waits for somebody who writes.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("not a regular file")));
        }
        let mut text = Vec::new();
        let length = file.take(LONGEST + 1).read_to_end(&mut text).map_err(failed)?;
        if length as u64 > LONGEST {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Report::parse(&text).map_err(|(field, source)| BaselineError::Content {
            path: path.to_owned(),
            field,
            source,
        })
    }

    /// The same from a text; otherwise where in it something is wrong, as `field NAME: ` or empty, and what.
    pub fn parse(text: &[u8]) -> Result<Report, (String, serde_json::Error)> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let report: Report = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let field = error.path().to_string();
            let field =
                if matches!(field.as_str(), "." | "?") { String::new() } else { format!("field {field}: ") };
            (field, error.into_inner())
        })?;
        json.end().map_err(|error| (String::new(), error))?;
        let wrong = |what: String| (String::new(), serde::de::Error::custom(what));
        if report.format != FORMAT {
            return Err(wrong(format!("it has form {}, and this slotpass knows {FORMAT}", report.format)));
        }
        if report.run(Under::Slotpass).is_none() {
            return Err(wrong("it has no run under slotpass".to_owned()));
        }
        Ok(report)
    }
}

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The file.
    #[error("baseline {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// What is in it.
    #[error("baseline {}: {field}{source}; a baseline is what slotpass bench --json wrote", .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Where in it, if that can be told.
        field: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(slotpass: &str, floor: &str) -> Report {
        let run = |under, text: &str| Run::of(under, None, &[Printed::read(text).unwrap()]).unwrap();
        Report::new("1.0", vec![run(Under::Slotpass, slotpass), run(Under::Floor, floor)])
    }

    #[test]
    fn ratios_to_the_floor_are_to_the_sum_of_its_parts() {
        let own = "bench-rate 1000\nbench cf8-read cycles 600 900*9\nbench enable-at-once cycles 7\n";
        let floor =
            "bench-rate 1000\nbench coalesced-write cycles 100 200*9\nbench pio-read cycles 200 250*9\n";
        let report = report(own, floor);
        let ratios: Vec<_> =
            report.run(Under::Slotpass).unwrap().measurements.iter().map(|m| m.to_floor).collect();
        // Nothing of the floor is like the second.
        assert_eq!(ratios, [Some(Ratio { min: 2.0, p50: 2.0 }), None]);
        let floor = report.run(Under::Floor).unwrap();
        assert!(floor.measurements.iter().all(|m| m.to_floor.is_none() && m.to_qemu.is_none()));
    }

    #[test]
    fn what_is_written_is_read() {
        let own = "bench-rate 2445\nbench empty cycles 49*17 73\nbench msix-read absent no MSI-X\n";
        let report = report(own, "bench-rate 2445\nbench empty cycles 50\n");
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""nanoseconds":{"min":20,"p50":20,"p99":30,"p99.9":30,"max":30}"#), "{text}");
        let back = Report::parse(text.as_bytes()).unwrap();
        let run = back.run(Under::Slotpass).unwrap();
        assert_eq!(run.samples("empty").unwrap().runs(), [(49, 17), (73, 1)]);
        assert_eq!(run.measurements[1].absent.as_deref(), Some("no MSI-X"));
        assert_eq!(back.environment, report.environment);
    }

    #[test]
    fn rounds_are_put_together() {
        let rounds = [
            "bench-rate 1000\nbench a cycles 10 12*2\nbench b absent no\n",
            "bench-rate 1002\nbench a cycles 20*3\nbench b cycles 7\n",
            "bench-rate 1001\nbench a cycles 10*3\nbench b cycles 7\n",
        ];
        let rounds = rounds.map(|text| Printed::read(text).unwrap());
        let run = Run::of(Under::Slotpass, Some("x".to_owned()), &rounds).unwrap();
        assert_eq!(run.cycles_per_microsecond, 1001);
        let [a, b] = run.measurements.as_slice() else { panic!("{run:?}") };
        assert_eq!(a.cycles.as_ref().unwrap().runs(), [(10, 4), (12, 2), (20, 3)]);
        assert_eq!(a.round_medians, [12, 20, 10]);
        assert_eq!((b.absent.as_deref(), &b.cycles), (Some("no"), &None));
    }

    #[test]
    fn what_was_measured_twice_has_its_own_ratios() {
        let run = |under, text: &str| Run::of(under, None, &[Printed::read(text).unwrap()]).unwrap();
        let text = |one, other| {
            format!(
                "bench-rate 1\nbench pio-read cycles {one}\nbench empty cycles 7\nbench pio-read cycles {other}\n"
            )
        };
        let runs = vec![
            run(Under::Slotpass, &text(100, 300)),
            run(Under::Floor, "bench-rate 1\nbench pio-read cycles 50\n"),
            run(Under::Qemu, &text(400, 600)),
        ];
        let report = Report::new("1.0", runs);
        let p50 = |ratio: Option<Ratio>| ratio.map(|ratio| ratio.p50);
        let ratios = report.run(Under::Slotpass).unwrap().measurements.iter();
        let ratios: Vec<_> = ratios.map(|m| (p50(m.to_floor), p50(m.to_qemu))).collect();
        assert_eq!(ratios, [(Some(2.0), Some(0.25)), (None, Some(1.0)), (Some(6.0), Some(0.5))]);
    }

    #[test]
    fn rounds_of_different_measurements_are_refused() {
        for (other, message) in [
            ("bench-rate 1\nbench a cycles 1\n", "one printed b where another printed nothing"),
            ("bench-rate 1\nbench a cycles 1\nbench c cycles 1\n", "one printed b where another printed c"),
        ] {
            let rounds = ["bench-rate 1\nbench a cycles 1\nbench b cycles 1\n", other];
            let run = Run::of(Under::Qemu, None, &rounds.map(|text| Printed::read(text).unwrap()));
            let error = run.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn broken_baselines_say_what_is_wrong() {
        let run = |measurement: &str| {
            format!(
                r#"{{"format":1,"slotpass":"1","environment":{{}},"runs":[{{"under":"slotpass",
                "cycles_per_microsecond":1000,"measurements":[{measurement}]}}]}}"#
            )
        };
        let bad = |text: &str| {
            let (field, error) = Report::parse(text.as_bytes()).unwrap_err();
            format!("{field}{error}")
        };
        assert!(Report::parse(run("").as_bytes()).is_ok());
        for (text, part) in [
            (String::new(), "EOF"),
            ("{}".to_owned(), "missing field `format`"),
            (run("") + "x", "trailing characters"),
            (run("").replace(r#""format":1"#, r#""format":2"#), "it has form 2"),
            (run("").replace(r#""under":"slotpass""#, r#""under":"floor""#), "no run under slotpass"),
            (
                run("").replace(r#""under":"slotpass""#, r#""under":"xen""#),
                "field runs[0].under: unknown variant",
            ),
            (run(r#"{"cycles":[[1,1]]}"#), "missing field `name`"),
            (run(r#"{"name":"empty","cycles":[[2,1],[1,1]]}"#), "1 comes after 2"),
            (run(r#"{"name":"empty","cycles":[[1,-1]]}"#), "invalid value"),
            (run(r#"{"name":"empty","cycles":[]}"#), "no samples"),
        ] {
            assert!(bad(&text).contains(part), "{text}: {}", bad(&text));
        }
    }
}
