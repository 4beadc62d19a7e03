//! How long it takes until a guest runs, by phase.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// When this program began, and how much processor time it had taken by then.
static BEGUN: OnceLock<(Instant, Duration)> = OnceLock::new();

/// To be called first of all in a program.
pub fn program_begins() {
    BEGUN.get_or_init(|| {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        (Instant::now(), Duration::try_from(spent).unwrap_or_default())
    });
}

/// A part of a start, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Phase {
    name: &'static str,
    ns: u64,
}

impl Phase {
    fn new(name: &'static str, time: Duration) -> Phase {
        Phase { name, ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) }
    }
}

/// The phases of a start, one after the other, and what is done beside one of them.
#[derive(Clone, Debug, Serialize)]
pub struct StartTimes {
    phases: Vec<Phase>,
    meanwhile: Vec<Phase>,
    /// Of the phase that has not ended.
    #[serde(skip)]
    since: Instant,
}

impl StartTimes {
    /// A machine is to be made. Until then the program was loaded, which is seen from within as processor time only, and has
    /// found out what is wanted of it.
    pub fn begin() -> StartTimes {
        let since = Instant::now();
        let phases = BEGUN.get().map(|(begun, spent)| {
            [Phase::new("exec", *spent), Phase::new("options", since.saturating_duration_since(*begun))]
        });
        StartTimes { phases: phases.into_iter().flatten().collect(), meanwhile: Vec::new(), since }
    }

    /// The phase of this name ends now.
    pub fn ends(&mut self, name: &'static str) {
        self.ended(name, Instant::now());
    }

    /// It ended then.
    pub fn ended(&mut self, name: &'static str, at: Instant) {
        self.phases.push(Phase::new(name, at.saturating_duration_since(self.since)));
        self.since = at;
    }

    /// This was done beside the phase that has ended last.
    pub fn meanwhile(&mut self, name: &'static str, time: Duration) {
        self.meanwhile.push(Phase::new(name, time));
    }
}

/// A line for a person, in milliseconds.
impl fmt::Display for StartTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        let list = |phases: &[Phase]| {
            let of_each = |phase: &Phase| format!("{} {:.1}", phase.name, ms(phase.ns));
            phases.iter().map(of_each).collect::<Vec<_>>().join(", ")
        };
        let all = self.phases.iter().map(|phase| phase.ns).sum();
        write!(f, "start: {:.1} ms: {}", ms(all), list(&self.phases))?;
        if !self.meanwhile.is_empty() {
            write!(f, "; meanwhile: {}", list(&self.meanwhile))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let mut times = StartTimes::begin();
        let begun = times.since;
        let at = |ms| begun + Duration::from_millis(ms);
        times.phases.clear();
        times.ended("checks", at(3));
        times.ended("memory", at(3));
        times.ended("functions", at(103));
        times.meanwhile("kernel", Duration::from_micros(1250));
        // A clock that two threads read at once.
        times.ended("boot", at(102));
        assert_eq!(
            times.to_string(),
            "start: 103.0 ms: checks 3.0, memory 0.0, functions 100.0, boot 0.0; meanwhile: kernel 1.2"
        );
    }

    #[test]
    fn what_was_before_the_machine_is_known_if_the_program_said_when_it_began() {
        program_begins();
        let times = StartTimes::begin();
        let names: Vec<&str> = times.phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["exec", "options"]);
        assert!(times.phases.iter().all(|phase| phase.ns > 0), "{times:?}");
    }
}
