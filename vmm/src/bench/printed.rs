//! What the guest that measures prints (`guest::BENCH`).

use super::samples::{Samples, SamplesError};

/// What came of one measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measured {
    /// It was made.
    Samples(Samples),
    /// The machine or the slot has no such thing, and why.
    Absent(String),
}

/// What a run of the guest gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Cycles of the time stamp counter in a microsecond.
    pub rate: u64,
    /// Name and result of each, in the order in which they were made.
    pub measured: Vec<(String, Measured)>,
}

/// What of the text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrintedError {
    /// It says so itself.
    #[error("it says: {0}")]
    Failed(String),
    /// A line that begins as one of those that it prints.
    #[error("its line {0:?} cannot be understood")]
    Line(String),
    /// Samples.
    #[error("its samples of {name}: {source}")]
    Samples {
        /// Of which measurement.
        name: String,
        /// What is wrong with them.
        source: SamplesError,
    },
    /// It was asked for something else.
    #[error("it printed {} where {wanted} was asked for", .found.as_deref().unwrap_or("nothing"))]
    NotAsAsked {
        /// The word.
        wanted: String,
        /// A measurement's name, if there was another line.
        found: Option<String>,
    },
    /// Another run printed something else.
    #[error("of its runs one printed {one} where another printed {other}")]
    Unlike {
        /// A measurement's name, or that there was none.
        one: String,
        /// The same of another run.
        other: String,
    },
    /// It has not come as far as to print anything.
    #[error("it printed no measurement{}", last_line(.0))]
    Nothing(String),
}

fn last_line(text: &str) -> String {
    match text.trim().lines().last() {
        Some(line) => format!("; the last that it printed is {line:?}"),
        None => String::new(),
    }
}

/// For messages, of a line that may be long.
fn beginning(line: &str) -> String {
    line.chars().take(120).collect()
}

impl Printed {
    /// Reads what came by the serial port. Lines of others, such as a firmware, count for nothing.
    pub fn read(text: &str) -> Result<Printed, PrintedError> {
        let (mut rate, mut measured) = (None, Vec::new());
        for line in text.lines() {
            let unclear = || PrintedError::Line(beginning(line));
            if line.starts_with("FAIL ") {
                return Err(PrintedError::Failed(beginning(line)));
            } else if let Some(cycles) = line.strip_prefix("bench-rate ") {
                rate = Some(cycles.parse().ok().filter(|rate| *rate > 0).ok_or_else(unclear)?);
            } else if let Some(line) = line.strip_prefix("bench ") {
                let mut words = line.splitn(3, ' ');
                let result = match (words.next(), words.next(), words.next()) {
                    (Some(name), Some("cycles"), Some(runs)) => {
                        let failed = |source| PrintedError::Samples { name: name.to_owned(), source };
                        (name, Measured::Samples(Samples::parse(runs).map_err(failed)?))
                    }
                    (Some(name), Some("absent"), Some(why)) => (name, Measured::Absent(why.to_owned())),
                    _ => return Err(unclear()),
                };
                measured.push((result.0.to_owned(), result.1));
            }
        }
        match rate {
            Some(rate) if !measured.is_empty() => Ok(Printed { rate, measured }),
            _ => Err(PrintedError::Nothing(text.chars().take(1 << 16).collect())),
        }
    }

    /// The samples of a measurement, if it was made.
    pub fn samples(&self, name: &str) -> Option<&Samples> {
        self.measured.iter().find_map(|(of, measured)| match measured {
            Measured::Samples(samples) if of == name => Some(samples),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guest_among_others() {
        let text = "SeaBIOS (version 1)\r\nBooting\r\nbench-rate 2445\r\nbench empty cycles 49*17 73\r\n\
                    bench msix-read absent 00:08.0 has no MSI-X\r\n";
        let printed = Printed::read(text).unwrap();
        assert_eq!(printed.rate, 2445);
        assert_eq!(printed.samples("empty").unwrap().runs(), [(49, 17), (73, 1)]);
        assert_eq!(printed.samples("msix-read"), None);
        let absent = Measured::Absent("00:08.0 has no MSI-X".to_owned());
        assert_eq!(printed.measured[1], ("msix-read".to_owned(), absent));
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (text, part) in [
            ("", "it printed no measurement"),
            ("hello\nno kernel\n\n", "the last that it printed is \"no kernel\""),
            ("bench-rate 2445\n", "it printed no measurement"),
            ("bench empty cycles 7\n", "it printed no measurement"),
            ("bench-rate 0\nbench empty cycles 7\n", "\"bench-rate 0\" cannot be understood"),
            ("bench-rate 1\nbench empty\n", "\"bench empty\""),
            ("bench-rate 1\nbench empty years 7\n", "cannot be understood"),
            ("bench-rate 1\nbench empty cycles 7 6\n", "samples of empty: 6 comes after 7"),
            ("bench-rate 1\nFAIL bench interrupt: it never came\n", "it says: FAIL bench interrupt"),
        ] {
            let error = Printed::read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
