//! Samples of one measurement.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Most samples that are read of one measurement; the guest takes no more.
const MOST: u64 = 65536;
/// Decimal digits that quantiles have: below 32768 cycles all of them.
const DIGITS: u8 = 4;

/// Samples in ascending order: different values, each with how often it came.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Samples(Vec<(u64, u64)>);

/// What is no list of samples.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplesError {
    /// A word of the guest's.
    #[error("{0:?} is neither a number nor VALUE*COUNT")]
    Word(String),
    /// There must be one at least.
    #[error("no samples")]
    None,
    /// They must ascend, so that each value is there once.
    #[error("{1} comes after {0}, and values must ascend")]
    Order(u64, u64),
    /// No value comes that often.
    #[error("{value} comes {count} times; all together are 1 to {MOST}")]
    Count {
        /// The value.
        value: u64,
        /// How often it is said to come.
        count: u64,
    },
}

impl TryFrom<Vec<(u64, u64)>> for Samples {
    type Error = SamplesError;

    fn try_from(runs: Vec<(u64, u64)>) -> Result<Samples, SamplesError> {
        let mut total = 0u64;
        let mut before = None;
        for &(value, count) in &runs {
            if let Some(before) = before.replace(value).filter(|before| *before >= value) {
                return Err(SamplesError::Order(before, value));
            }
            total = total.saturating_add(count);
            if count == 0 || total > MOST {
                return Err(SamplesError::Count { value, count });
            }
        }
        if runs.is_empty() { Err(SamplesError::None) } else { Ok(Samples(runs)) }
    }
}

impl From<Samples> for Vec<(u64, u64)> {
    fn from(samples: Samples) -> Vec<(u64, u64)> {
        samples.0
    }
}

/// What is said of samples, in cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Quantiles {
    pub min: u64,
    pub p50: u64,
    pub p99: u64,
    #[serde(rename = "p99.9")]
    pub p99_9: u64,
    pub max: u64,
}

impl Quantiles {
    /// From the least to the largest.
    pub fn each(&self) -> [u64; 5] {
        [self.min, self.p50, self.p99, self.p99_9, self.max]
    }

    /// In another unit.
    pub fn map(&self, unit: impl Fn(u64) -> u64) -> Quantiles {
        let [min, p50, p99, p99_9, max] = self.each().map(unit);
        Quantiles { min, p50, p99, p99_9, max }
    }
}

impl Samples {
    /// As the guest prints them: words `VALUE` or `VALUE*COUNT` (`guest::BENCH`).
    pub fn parse(words: &str) -> Result<Samples, SamplesError> {
        let run = |word: &str| {
            let (value, count) = word.split_once('*').unwrap_or((word, "1"));
            match (value.parse(), count.parse()) {
                (Ok(value), Ok(count)) => Ok((value, count)),
                _ => Err(SamplesError::Word(word.to_owned())),
            }
        };
        words.split_ascii_whitespace().map(run).collect::<Result<Vec<_>, _>>()?.try_into()
    }

    /// From single values in any order.
    pub fn counted(values: impl IntoIterator<Item = u64>) -> Result<Samples, SamplesError> {
        let mut counts = BTreeMap::<u64, u64>::new();
        for value in values {
            *counts.entry(value).or_default() += 1;
        }
        counts.into_iter().collect::<Vec<_>>().try_into()
    }

    /// All samples of these together.
    pub fn merged<'a>(all: impl IntoIterator<Item = &'a Samples>) -> Result<Samples, SamplesError> {
        let mut counts = BTreeMap::<u64, u64>::new();
        for (value, count) in all.into_iter().flat_map(|samples| samples.0.iter().copied()) {
            let sum = counts.entry(value).or_default();
            *sum = sum.saturating_add(count);
        }
        counts.into_iter().collect::<Vec<_>>().try_into()
    }

    /// Values and how often each came.
    pub fn runs(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Least, largest, and values that so many per cent of the samples do not exceed.
    pub fn quantiles(&self) -> Quantiles {
        let (min, max) = (self.0.first().map_or(0, |run| run.0), self.0.last().map_or(0, |run| run.0));
        let histogram = self.histogram();
        // Beyond its digits a bucket is told by its largest value, which may be over the largest sample.
        let at = |quantile| {
            let value = histogram.as_ref().map_or(max, |histogram| histogram.value_at_quantile(quantile));
            value.clamp(min, max)
        };
        Quantiles { min, p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max }
    }

    /// `None` never comes: the number of digits is one that is allowed, and it grows with the values.
    fn histogram(&self) -> Option<Histogram<u64>> {
        let mut histogram = Histogram::new(DIGITS).ok()?;
        for &(value, count) in &self.0 {
            histogram.record_n(value, count).ok()?;
        }
        Some(histogram)
    }
}

#[cfg(test)]
mod tests {
    use guest::runs::Runs;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_the_guest_prints_is_read(mut values in prop::collection::vec(0u64..300, 1..200)) {
            values.sort_unstable();
            let samples = Samples::parse(&Runs(&values).to_string()).unwrap();
            let back: Vec<u64> =
                samples.runs().iter().flat_map(|&(value, count)| std::iter::repeat_n(value, count as usize)).collect();
            prop_assert_eq!(&back, &values);
            prop_assert_eq!(samples.count(), values.len() as u64);
            let quantiles = samples.quantiles();
            // The least value that half of them do not exceed.
            prop_assert_eq!(quantiles.p50, values[values.len().div_ceil(2) - 1]);
            prop_assert_eq!((quantiles.min, quantiles.max), (values[0], values[values.len() - 1]));
        }
    }

    #[test]
    fn quantiles_of_large_values_have_four_digits_and_stay_inside() {
        let samples = Samples::try_from(vec![(1_000_000_007, 998), (4_000_000_009, 2)]).unwrap();
        let Quantiles { min, p50, p99, p99_9, max } = samples.quantiles();
        assert_eq!((min, max, p99_9), (1_000_000_007, 4_000_000_009, 4_000_000_009));
        assert!(p50.abs_diff(min) < min / 10_000 && p50 == p99, "{p50} {p99}");
    }

    #[test]
    fn samples_of_several_runs() {
        let [one, other] = ["1 5*2 9", "0*3 5 9*4"].map(|words| Samples::parse(words).unwrap());
        let merged = Samples::merged([&one, &other]).unwrap();
        assert_eq!(merged.runs(), [(0, 3), (1, 1), (5, 3), (9, 5)]);
        assert_eq!(Samples::counted([5, 1, 5]).unwrap().runs(), [(1, 1), (5, 2)]);
        let many = Samples::parse("7*65536").unwrap();
        assert!(Samples::merged([&many, &one]).is_err());
    }

    #[test]
    fn what_is_no_list_of_samples_is_refused() {
        for (words, error) in [
            ("", SamplesError::None),
            ("12 x", SamplesError::Word("x".to_owned())),
            ("12*", SamplesError::Word("12*".to_owned())),
            ("-1", SamplesError::Word("-1".to_owned())),
            ("7 7", SamplesError::Order(7, 7)),
            ("8 7*2", SamplesError::Order(8, 7)),
            ("7*0", SamplesError::Count { value: 7, count: 0 }),
            ("7*65536 8", SamplesError::Count { value: 8, count: 1 }),
            ("7*18446744073709551615 8", SamplesError::Count { value: 7, count: u64::MAX }),
        ] {
            assert_eq!(Samples::parse(words).unwrap_err(), error, "{words}");
        }
    }
}
