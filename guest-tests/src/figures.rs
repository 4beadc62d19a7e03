//! What a scenario found out, with the bounds that it is held against: a table for people.

use std::fmt::{self, Write as _};

use crate::{Failure, Machine, expect};

/// In the scenario's directory; `benches/results` puts those of all scenarios together.
const FILE: &str = "figures.md";

/// A cell of a table.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    Absent,
    Count(u64),
    Ratio(f64),
    CountAtMost(u64, u64),
    RatioAtMost(f64, f64),
}

use Figure::{Absent, Count, CountAtMost, Ratio, RatioAtMost};

impl Figure {
    pub fn is_within_bound(self) -> bool {
        match self {
            Absent | Count(_) | Ratio(_) => true,
            CountAtMost(count, most) => count <= most,
            RatioAtMost(ratio, most) => ratio <= most,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Absent => Ok(()),
            Count(count) => write!(f, "{}", Grouped(count)),
            Ratio(ratio) => write!(f, "{ratio:.4}"),
            CountAtMost(count, most) => write!(f, "{}, at most {}", Grouped(count), Grouped(most)),
            RatioAtMost(ratio, most) => write!(f, "{ratio:.4}, at most {most:.2}"),
        }
    }
}

/// With a blank between thousands.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(' ')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// One table. Each row has a name.
#[derive(Clone, Debug)]
pub struct Table<const COLUMNS: usize> {
    about: &'static str,
    columns: [&'static str; COLUMNS],
    rows: Vec<(String, [Figure; COLUMNS])>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// `about` says in sentences what figures these are.
    pub fn new(about: &'static str, columns: [&'static str; COLUMNS]) -> Self {
        Self { about, columns, rows: Vec::new() }
    }

    pub fn row(&mut self, name: impl Into<String>, figures: [Figure; COLUMNS]) {
        self.rows.push((name.into(), figures));
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "{}\n\n| | {} |\n|---|{}\n",
            self.about,
            self.columns.join(" | "),
            "---:|".repeat(COLUMNS)
        );
        for (name, figures) in &self.rows {
            let cells = figures.map(|figure| figure.to_string()).join(" | ");
            let _ = writeln!(text, "| {name} | {cells} |");
        }
        text
    }

    fn beyond_bounds(&self) -> impl Iterator<Item = String> {
        self.rows.iter().flat_map(|(name, figures)| {
            let beyond = figures.iter().zip(self.columns).filter(|(figure, _)| !figure.is_within_bound());
            beyond.map(move |(figure, column)| format!("{name}, {column}: {figure}"))
        })
    }
}

/// All tables of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    tables: Vec<String>,
    beyond: Vec<String>,
}

impl Figures {
    pub fn add<const COLUMNS: usize>(&mut self, table: &Table<COLUMNS>) {
        self.tables.push(table.markdown());
        self.beyond.extend(table.beyond_bounds());
    }

    /// Keeps them with the scenario's logs, and fails if one is beyond its bound: then all of them are there to be looked at.
    pub fn hold(&self, machine: &mut Machine<'_>) -> Result<(), Failure> {
        let of = machine.describe()?;
        let text = format!("{of}\n\n{}", self.tables.join("\n"));
        machine.scenario().file_for_machine(FILE, text.as_bytes())?;
        expect!(self.beyond.is_empty(), "{}", self.beyond.join("; "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_stands_with_its_bound() {
        let mut table = Table::new("Accesses.", ["slotpass", "/ QEMU"]);
        table.row("read", [Count(1_234_567), RatioAtMost(0.51, 0.8)]);
        table.row("write", [CountAtMost(1000, 1000), Absent]);
        let wanted = "Accesses.\n\n| | slotpass | / QEMU |\n|---|---:|---:|\n\
                      | read | 1 234 567 | 0.5100, at most 0.80 |\n| write | 1 000, at most 1 000 |  |\n";
        assert_eq!(table.markdown(), wanted);
        assert_eq!(table.beyond_bounds().count(), 0);
    }

    #[test]
    fn every_figure_beyond_its_bound_is_told() {
        let mut table = Table::new("", ["count", "ratio"]);
        table.row("a", [CountAtMost(11, 10), RatioAtMost(1.021, 1.02)]);
        table.row("b", [Count(12), Ratio(7.0)]);
        table.row("c", [Absent, RatioAtMost(f64::NAN, 1.0)]);
        let told: Vec<String> = table.beyond_bounds().collect();
        let wanted =
            ["a, count: 11, at most 10", "a, ratio: 1.0210, at most 1.02", "c, ratio: NaN, at most 1.00"];
        assert_eq!(told, wanted);
    }
}
