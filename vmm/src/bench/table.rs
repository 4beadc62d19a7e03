//! A bench for people.

use std::fmt::Write;

use super::compare::{Compared, Comparison};
use super::environment::Environment;
use super::report::{Measurement, Ratio, Report, Run, Under};
use super::samples::Quantiles;

/// Two blanks between columns, the first of which is to the left and the others to the right.
fn columns(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0))
        .map(|at| {
            rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn ratio(ratio: Option<Ratio>) -> [String; 2] {
    // Where one exits and the other does not, two decimals are nothing.
    let shown = |ratio: f64| if ratio < 0.1 { format!("{ratio:.4}") } else { format!("{ratio:.2}") };
    ratio.map_or_else(|| [String::new(), String::new()], |Ratio { min, p50 }| [min, p50].map(shown))
}

fn words<const N: usize>(words: [&str; N]) -> impl Iterator<Item = String> {
    words.into_iter().map(str::to_owned)
}

/// The whole.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for run in &report.runs {
        let function = run.function.as_ref().map_or_else(String::new, |function| format!(", {function}"));
        let under = run.under.name();
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "Under {under}{function}, {} cycles in a microsecond", run.cycles_per_microsecond);
        text += &table(report, run);
        text.push('\n');
    }
    text
}

fn table(report: &Report, run: &Run) -> String {
    let own = run.under == Under::Slotpass;
    let by = [Under::Floor, Under::Qemu].map(|under| own && report.run(under).is_some());
    let [floor, qemu] = by;
    let mut heading: Vec<String> = words(["", "cycles min", "p50", "p99", "p99.9", "max"]).collect();
    heading.extend(words(["ns min", "p50", "p99", "p99.9", "max"]));
    for (is_there, name) in [(floor, "/ floor min"), (qemu, "/ QEMU min")] {
        heading.extend(words([name, "p50"]).filter(|_| is_there));
    }
    let mut rows = vec![heading];
    let mut absent = String::new();
    for Measurement { name, absent: why, quantiles, nanoseconds, to_floor, to_qemu, .. } in &run.measurements
    {
        match (quantiles, nanoseconds, why) {
            (Some(cycles), Some(nanoseconds), _) => {
                let mut row = vec![name.clone()];
                row.extend(
                    [cycles, nanoseconds]
                        .into_iter()
                        .flat_map(Quantiles::each)
                        .map(|figure| figure.to_string()),
                );
                if floor {
                    row.extend(ratio(*to_floor));
                }
                if qemu {
                    row.extend(ratio(*to_qemu));
                }
                rows.push(row);
            }
            (_, _, Some(why)) => {
                let _ = writeln!(absent, "{name}: absent, {why}");
            }
            _ => {}
        }
    }
    columns(&rows) + &absent
}

/// What has changed since a baseline.
pub fn compared(comparison: &Comparison, now: &Environment, before: &Environment) -> String {
    let Comparison { compared, functions, rates } = comparison;
    let real: Vec<&Compared> = compared.iter().filter(|difference| difference.is_real).collect();
    let mut text =
        format!("Of {} measurements that the baseline has too, {} differ\n", compared.len(), real.len());
    if !real.is_empty() {
        let mut rows = vec![words(["", "p50 before", "now", "change"]).collect()];
        rows.extend(real.iter().map(|difference| {
            let Compared { name, now, before, .. } = difference;
            let change = format!("{:+.1} %", difference.change() * 100.0);
            vec![name.clone(), before.to_string(), now.to_string(), change]
        }));
        text += &columns(&rows);
    }
    if let Some([here, there]) = functions {
        let _ = writeln!(
            text,
            "function: {here}; in the baseline: {there}; measurements that depend on it were left out"
        );
    }
    if let Some([here, there]) = rates {
        let _ = writeln!(text, "cycles in a microsecond: {here}; in the baseline: {there}");
    }
    for (name, here, there) in now.differences(before) {
        let shown = |value: &str| if value.is_empty() { "absent".to_owned() } else { value.to_owned() };
        let _ = writeln!(text, "{name}: {}; in the baseline: {}", shown(&here), shown(&there));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::printed::Printed;
    use super::*;

    fn run(under: Under, text: &str) -> Run {
        Run::of(under, Some("sim:demo".to_owned()), &[Printed::read(text).unwrap()]).unwrap()
    }

    #[test]
    fn figures_stand_beside_the_floor_and_qemu() {
        let own = "bench-rate 2000\nbench pio-read cycles 1000*9 5000\nbench enable-at-once cycles 100000\n\
                   bench msix-read absent no MSI-X\n";
        let floor = "bench-rate 2000\nbench pio-read cycles 800*10\n";
        let qemu = "bench-rate 2000\nbench pio-read cycles 4000*10\nbench enable-at-once cycles 400000\n";
        let runs = vec![run(Under::Slotpass, own), run(Under::Floor, floor), run(Under::Qemu, qemu)];
        let text = text(&Report::new("1", runs));
        let table = text.split_once("\n\n").unwrap().0;
        let wanted = "\
Under slotpass, sim:demo, 2000 cycles in a microsecond
                cycles min     p50     p99   p99.9     max  ns min    p50    p99  p99.9    max  / floor min   p50  / QEMU min   p50
pio-read              1000    1000    5000    5000    5000     500    500   2500   2500   2500         1.25  1.25        0.25  0.25
enable-at-once      100000  100000  100000  100000  100000   50000  50000  50000  50000  50000                           0.25  0.25
msix-read: absent, no MSI-X";
        assert_eq!(table, wanted, "\n{table}");
    }

    #[test]
    fn only_real_differences_are_told() {
        let of = |name: &str, now, is_real| Compared { name: name.to_owned(), now, before: 1000, is_real };
        let here = Environment { governor: Some("performance".to_owned()), ..Environment::default() };
        let told = |functions, rates| {
            let pairs = vec![of("a", 1100, true), of("bc", 1001, false)];
            compared(&Comparison { compared: pairs, functions, rates }, &here, &Environment::default())
        };
        let figures = "Of 2 measurements that the baseline has too, 1 differ\n   p50 before   now   change\n\
                       a        1000  1100  +10.0 %\n";
        let governor = "governor: performance; in the baseline: absent\n";
        assert_eq!(told(None, None), format!("{figures}{governor}"));
        let functions = ["0000:01:00.0", "sim:demo"].map(str::to_owned);
        assert_eq!(
            told(Some(functions), Some([2000, 2100])),
            format!(
                "{figures}function: 0000:01:00.0; in the baseline: sim:demo; measurements that depend on it were left \
                 out\ncycles in a microsecond: 2000; in the baseline: 2100\n{governor}"
            )
        );
    }
}
