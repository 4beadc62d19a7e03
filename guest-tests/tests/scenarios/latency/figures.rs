//! What the measuring guest printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use guest_tests::Failure;

/// Samples of each measurement, in instructions, in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Figures(BTreeMap<String, Vec<u64>>);

impl Figures {
    /// The lines `bench NAME cycles V*C V*C …` of a guest's serial output; see `guest::BENCH`.
    pub fn read(serial: &str) -> Result<Figures, Failure> {
        let mut figures = Figures::default();
        for line in serial.lines() {
            let mut words = line.split_whitespace();
            let (Some("bench"), Some(name), Some("cycles")) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let samples = figures.0.entry(name.to_owned()).or_default();
            for run in words {
                let (value, count) = run.split_once('*').unwrap_or((run, "1"));
                let (Ok(value), Ok(count)) = (value.parse::<u64>(), count.parse::<usize>()) else {
                    return Err(Failure::NotAsExpected(format!("{run:?} is no sample, in: {line}")));
                };
                samples.extend(std::iter::repeat_n(value, count));
            }
        }
        if figures.0.is_empty() {
            return Err(Failure::NotAsExpected(format!("the guest measured nothing:\n{serial}")));
        }
        Ok(figures)
    }

    pub fn add(&mut self, others: Figures) {
        self.0.extend(others.0);
    }

    /// Half of the samples are at most this.
    pub fn median(&self, name: &str) -> Option<u64> {
        let samples = self.0.get(name)?;
        samples.get(samples.len() / 2).copied()
    }

    pub fn least(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.first().copied()
    }
}

/// A line for each measurement: least and median of each column.
pub fn table(columns: &[(&str, Figures)]) -> String {
    let mut names: Vec<&String> = columns.iter().flat_map(|(_, figures)| figures.0.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut table = format!("{:20}", "");
    for (title, _) in columns {
        let _ = write!(table, "{title:>26}");
    }
    table.push('\n');
    for name in names {
        let _ = write!(table, "{name:20}");
        for (_, figures) in columns {
            let text = |figure: Option<u64>| figure.map_or("-".to_owned(), |figure| figure.to_string());
            let _ = write!(table, "{:>13}{:>13}", text(figures.least(name)), text(figures.median(name)));
        }
        table.push('\n');
    }
    table
}
