//! Takes samples, and prints them.

use runtime::command_line::CommandLine;
use runtime::reserved::Reserved;
use runtime::{Check, println};

use crate::runs::Runs;

const MOST: usize = 65536;
const ITERATIONS: u64 = 1000;
const REPEATS: u64 = 10;
/// Before the first sample, to fill caches and page tables.
const WARM_UP: usize = 16;

static SAMPLES: Reserved<[u64; MOST]> = Reserved::new([0; MOST]);

pub struct Samples {
    cycles: &'static mut [u64; MOST],
    /// 1 to [`MOST`].
    pub iterations: usize,
    /// Of what takes long, 1 to [`MOST`].
    pub repeats: usize,
}

impl Samples {
    /// May be called once.
    pub fn new(line: CommandLine) -> Self {
        let number = |name: &str, usual| line.number(name).unwrap_or(usual).clamp(1, MOST as u64) as usize;
        Self {
            cycles: SAMPLES.take(),
            iterations: number("iterations", ITERATIONS),
            repeats: number("repeats", REPEATS),
        }
    }

    /// Takes samples of an access, of which `one` returns the cycles, and prints them.
    pub fn measure(&mut self, name: &str, mut one: impl FnMut() -> Check<u64>) -> Check {
        for _ in 0..WARM_UP {
            one()?;
        }
        self.take(self.iterations, name, one)
    }

    /// As [`Samples::measure`], of what takes long.
    pub fn repeat(&mut self, name: &str, mut one: impl FnMut() -> Check<u64>) -> Check {
        one()?;
        self.take(self.repeats, name, one)
    }

    fn take(&mut self, count: usize, name: &str, mut one: impl FnMut() -> Check<u64>) -> Check {
        let samples = &mut self.cycles[..count];
        for sample in samples.iter_mut() {
            *sample = one()?;
        }
        samples.sort_unstable();
        println!("bench {name} cycles{}", Runs(samples));
        Ok(())
    }
}
