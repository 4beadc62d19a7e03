//! Which differences from an earlier bench are real.
//!
//! A difference is called real if all of this holds:
//!
//! * **Ranks**: all samples of both are put in one order. If both came from the same distribution, the ranks of the one would
//!   be spread among those of the other; how far they are from that is told by Mann and Whitney's U, whose normal
//!   approximation, with the correction for equal values, is beyond 3.29 standard deviations in one of a thousand such cases.
//!   Of the samples only the order counts, so outliers, which all these figures have, count no more than others.
//! * **Rounds**: the guest is started several times, and the medians of all its rounds now are on one side of the medians of
//!   all rounds before. What changes between one start and the next, such as where memory lies and what else the host does, is
//!   so no difference. With five rounds each it happens by chance in one of 126 cases.
//! * **Size**: the medians of all samples differ by 1 % at least. With many samples far smaller differences are beyond chance.
//!
//! Nothing is compared of which the rounds are not known. What depends on the function ([`rows::is_of_function`]) is compared only
//! if both were made with the same.

use super::report::{Report, Run, Under};
use super::rows;
use super::samples::Samples;

/// Standard deviations.
const BEYOND_CHANCE: f64 = 3.29;
/// Of the earlier median.
const WORTH_TELLING: f64 = 0.01;

/// Medians of a measurement, here and in the baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub name: String,
    pub now: u64,
    pub before: u64,
    /// By chance, or too small: neither is told.
    pub is_real: bool,
}

impl Compared {
    /// The difference, as a part of the earlier median.
    pub fn change(&self) -> f64 {
        self.now as f64 / self.before.max(1) as f64 - 1.0
    }
}

/// What a report has in common with a baseline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Each measurement under slotpass that both have and that can be compared.
    pub compared: Vec<Compared>,
    /// The function here and in the baseline, where they are not the same, so that measurements of it were left out.
    pub functions: Option<[String; 2]>,
    /// Cycles in a microsecond here and in the baseline, where they differ by 1 % or more.
    pub rates: Option<[u64; 2]>,
}

/// The function without its slot.
fn function(run: &Run) -> &str {
    let function = run.function.as_deref().unwrap_or("none");
    function.split_once(" in slot ").map_or(function, |(function, _)| function)
}

/// Puts a report beside a baseline.
pub fn with_baseline(now: &Report, before: &Report) -> Comparison {
    let (Some(now), Some(before)) = (now.run(Under::Slotpass), before.run(Under::Slotpass)) else {
        return Comparison::default();
    };
    let functions = [now, before].map(|run| function(run).to_owned());
    let rates = [now, before].map(|run| run.cycles_per_microsecond);
    let [rate, rate_before] = rates.map(|rate| rate as f64);
    let same_function = functions[0] == functions[1];
    Comparison {
        compared: compared(now, before, same_function),
        functions: (!same_function).then_some(functions),
        rates: ((rate - rate_before).abs() >= rate_before * WORTH_TELLING).then_some(rates),
    }
}

fn compared(now: &Run, before: &Run, same_function: bool) -> Vec<Compared> {
    // A measurement that was made twice stands beside its like.
    let mut rest: Vec<_> = before.measurements.iter().collect();
    let pairs = now.measurements.iter().filter(|now| same_function || !rows::is_of_function(&now.name));
    let pairs = pairs.filter_map(|now| {
        let before = rest.remove(rest.iter().position(|before| before.name == now.name)?);
        Some((now, before, now.cycles.as_ref()?, before.cycles.as_ref()?))
    });
    pairs
        .map(|(now, before, samples, samples_before)| {
            let medians = (samples.quantiles().p50, samples_before.quantiles().p50);
            let compared =
                Compared { name: now.name.clone(), now: medians.0, before: medians.1, is_real: false };
            let is_real = compared.change().abs() >= WORTH_TELLING
                && are_apart(&now.round_medians, &before.round_medians)
                && deviations(samples, samples_before).abs() > BEYOND_CHANCE;
            Compared { is_real, ..compared }
        })
        .collect()
}

/// Whether all of the one are on the same side of all of the other.
fn are_apart(one: &[u64], other: &[u64]) -> bool {
    let above = |high: &[u64], low: &[u64]| {
        high.iter().min().zip(low.iter().max()).is_some_and(|(least, largest)| least > largest)
    };
    above(one, other) || above(other, one)
}

/// Standard deviations that Mann and Whitney's U is away from what equal distributions give (Mann and Whitney, "On a test of
/// whether one of two random variables is stochastically larger than the other", 1947); positive where `one` is larger.
fn deviations(one: &Samples, other: &Samples) -> f64 {
    let (one_count, other_count) = (one.count() as f64, other.count() as f64);
    let total = one_count + other_count;
    let (mut rank_sum, mut ties, mut below) = (0.0, 0.0, 0.0);
    for (of_one, of_other) in merged(one.runs(), other.runs()) {
        let equal = (of_one + of_other) as f64;
        // Equal values share the middle of their ranks.
        rank_sum += of_one as f64 * (below + (equal + 1.0) / 2.0);
        ties += equal * (equal * equal - 1.0);
        below += equal;
    }
    let u = rank_sum - one_count * (one_count + 1.0) / 2.0;
    let variance = one_count * other_count / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance > 0.0 { (u - one_count * other_count / 2.0) / variance.sqrt() } else { 0.0 }
}

/// How often each value comes in the one and in the other, in ascending order of the values.
fn merged(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let tagged = one.iter().map(|&(value, count)| (value, (count, 0)));
    let mut all: Vec<_> = tagged.chain(other.iter().map(|&(value, count)| (value, (0, count)))).collect();
    all.sort_unstable_by_key(|(value, _)| *value);
    let runs = all.chunk_by(|one, next| one.0 == next.0);
    runs.map(|run| run.iter().fold((0, 0), |sum, (_, counts)| (sum.0 + counts.0, sum.1 + counts.1))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::printed::Printed;
    use super::super::report::Run;
    use super::*;

    fn samples(words: &str) -> Samples {
        Samples::parse(words).unwrap()
    }

    #[test]
    fn u_of_small_samples() {
        // U is 9 of 9 and 0 of 9, 4.5 expected, variance 3 * 3 * 7 / 12.
        let (small, large) = (samples("1 2 3"), samples("4 5 6"));
        assert!((deviations(&large, &small) - 4.5 / 5.25f64.sqrt()).abs() < 1e-12);
        assert!((deviations(&small, &large) + 4.5 / 5.25f64.sqrt()).abs() < 1e-12);
        assert_eq!(deviations(&samples("1 2*4 3"), &samples("1 2*4 3")), 0.0);
        assert_eq!(deviations(&samples("7*50"), &samples("7*50")), 0.0, "nothing but equal values");
        // One value twice in each: ranks 1, 2.5, 2.5, 4.
        let expected = (1.0 + 2.5 - 3.0 - 2.0) / (2.0 * 2.0 / 12.0 * (5.0 - 6.0 / 12.0f64)).sqrt();
        assert!((deviations(&samples("1 2"), &samples("2 3")) - expected).abs() < 1e-12);
    }

    /// Each text is the samples of one round.
    fn compared(now: &[&str], before: &[&str]) -> Compared {
        let report = |rounds: &[&str]| {
            let printed =
                |words: &&str| Printed::read(&format!("bench-rate 1\nbench empty cycles {words}\n")).unwrap();
            let rounds: Vec<Printed> = rounds.iter().map(printed).collect();
            Report::new("1", vec![Run::of(Under::Slotpass, None, &rounds).unwrap()])
        };
        with_baseline(&report(now), &report(before)).compared.remove(0)
    }

    #[test]
    fn differences_are_real_if_they_are_neither_chance_nor_small() {
        let same: &[&str] = &["1000*500 1100*500"];
        let rows: [(&[&str], &[&str], bool); 8] = [
            (same, same, false),
            // Two per cent, of all samples.
            (&["1020*1000"], &["1000*1000"], true),
            (&["980*1000"], &["1000*1000"], true),
            // Beyond chance, and small.
            (&["1005*1000"], &["1000*1000"], false),
            // Large, and by chance: one of three samples.
            (&["1000 2000*2"], &["1000*2 2000"], false),
            // Outliers alone.
            (&["1000*990 900000*10"], &["1000*1000"], false),
            // Of three starts one was faster than before.
            (&["1100*100", "1100*100", "990*100"], &["1000*100", "1000*100", "1000*100"], false),
            (&["1100*100", "1100*100", "1001*100"], &["1000*100", "1000*100", "1000*100"], true),
        ];
        for (now, before, is_real) in rows {
            assert_eq!(compared(now, before).is_real, is_real, "{now:?} after {before:?}");
        }
        let slower = compared(&["1020*1000"], &["1000*1000"]);
        assert!((slower.change() - 0.02).abs() < 1e-12);
    }

    #[test]
    fn what_was_measured_twice_is_compared_with_its_like() {
        let text = "bench-rate 1\nbench a cycles 1000*100\nbench b cycles 7\nbench a cycles 3000*100\n";
        let report = || {
            let run = Run::of(Under::Slotpass, None, &[Printed::read(text).unwrap()]);
            Report::new("1", vec![run.unwrap()])
        };
        let medians = with_baseline(&report(), &report())
            .compared
            .into_iter()
            .map(|of| (of.now, of.before, of.is_real));
        assert_eq!(medians.collect::<Vec<_>>(), [(1000, 1000, false), (7, 7, false), (3000, 3000, false)]);
    }

    #[test]
    fn rounds_that_are_not_known_are_no_reason_to_call_a_difference_real() {
        assert!(are_apart(&[2], &[1]) && are_apart(&[1], &[2]) && !are_apart(&[1, 3], &[2]));
        for (one, other) in [(&[][..], &[1][..]), (&[1], &[]), (&[], &[])] {
            assert!(!are_apart(one, other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn of_another_function_only_what_does_not_depend_on_it_is_compared() {
        let report = |function: Option<&str>, rate: u64| {
            let text =
                format!("bench-rate {rate}\nbench ecam-write cycles 5\nbench bar-read=0:16 cycles 7\n");
            let run = Run::of(Under::Slotpass, function.map(str::to_owned), &[Printed::read(&text).unwrap()]);
            Report::new("1", vec![run.unwrap()])
        };
        let one = "0000:01:00.0 in slot 0:8:0";
        for (function, rate, functions, rates, names) in [
            (Some("0000:01:00.0 in slot 0:9:0"), 1009, None, None, &["ecam-write", "bar-read=0:16"][..]),
            (Some("sim:demo in slot 0:8:0"), 1000, Some(["0000:01:00.0", "sim:demo"]), None, &["ecam-write"]),
            (None, 1020, Some(["0000:01:00.0", "none"]), Some([1000, 1020]), &["ecam-write"]),
        ] {
            let comparison = with_baseline(&report(Some(one), 1000), &report(function, rate));
            let found: Vec<&str> = comparison.compared.iter().map(|of| of.name.as_str()).collect();
            assert_eq!(found, names, "{function:?}");
            let functions = functions.map(|both| both.map(str::to_owned));
            assert_eq!((comparison.functions, comparison.rates), (functions, rates), "{function:?}");
        }
    }
}
