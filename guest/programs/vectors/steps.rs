//! What is done with the vectors, and what must come of it.

use runtime::msix::MsiX;
use runtime::time::{Deadline, cycles, cycles_per_microsecond, sleep_microseconds};
use runtime::{Check, Text, apic, ensure, ensure_equal, interrupt, println};

use crate::raiser::Raiser;

/// Processor vectors that those of the function share. Vector 0 has one of its own, since drives also raise it for
/// other reasons than those that are counted here.
const FIRST: u8 = 0x40;
const OF_VECTOR_0: u8 = 0x3f;
const AT_ONCE: u16 = 128;
/// For an interrupt that must come; microseconds.
const PATIENCE: u64 = 10_000_000;
/// For one that may be missing.
const SHORT_PATIENCE: u64 = 5_000;
/// For one that must not come.
const QUIET: u64 = 5_000;

pub struct Steps<'a> {
    pub msix: MsiX<'a>,
    pub raiser: Raiser,
    pub apic_id: u8,
    /// How many of the function's vectors are used.
    pub vectors: u16,
    /// The host may have refused some of them.
    pub may_miss: bool,
    /// In each step so many vectors may come twice.
    pub twice: u64,
}

fn processor_vector(vector: u16) -> u8 {
    if vector == 0 { OF_VECTOR_0 } else { FIRST + (vector % AT_ONCE) as u8 }
}

/// Interrupts so far, but for those of vector 0.
fn delivered() -> u64 {
    (FIRST..FIRST + AT_ONCE as u8).map(interrupt::count).sum()
}

impl Steps<'_> {
    fn program(&self, vector: u16) {
        self.msix.program(vector, apic::message(self.apic_id, processor_vector(vector)), false);
    }

    /// Raises a vector and sees that it comes, and nothing else. How often it came.
    fn raise(&mut self, vector: u16) -> Check<u64> {
        let (own, all) = (interrupt::count(processor_vector(vector)), delivered());
        self.raiser.raise(vector)?;
        let patience = if self.may_miss { SHORT_PATIENCE } else { PATIENCE };
        let came = interrupt::reaches(processor_vector(vector), own + 1, patience);
        ensure!(came || self.may_miss, "vector {vector} never came");
        if vector == 0 {
            return Ok(came.into());
        }
        let (own, all) = (interrupt::count(processor_vector(vector)) - own, delivered() - all);
        ensure!(own == all, "vector {vector} was raised and came {own} times, all together {all} times");
        Ok(own)
    }

    fn raise_each(&mut self) -> Check<Text> {
        let (mut came, mut twice) = (0, 0);
        for vector in 0..self.vectors {
            let times = self.raise(vector)?;
            came += u64::from(times > 0);
            if times > 1 {
                println!("vector {vector} came {times} times");
                twice += 1;
            }
            ensure!(
                times <= 2 && twice <= self.twice,
                "vector {vector} was raised once and came {times} times"
            );
        }
        sleep_microseconds(QUIET);
        let all = delivered();
        sleep_microseconds(QUIET);
        ensure_equal!(delivered(), all, "interrupts that nothing raised");
        Ok(Text::new(format_args!("{} vectors, delivered {came}", self.vectors)))
    }

    /// All entries are written while the function is masked, and take effect when it is not.
    pub fn at_once(&mut self) -> Check<Text> {
        self.msix.set_function_mask(true);
        self.msix.set_enabled(true);
        for vector in 0..self.vectors {
            self.program(vector);
        }
        let begin = cycles();
        self.msix.set_function_mask(false);
        println!("unmasked at once in {} us", (cycles() - begin) / cycles_per_microsecond());
        let seen = self.raise_each();
        self.finish();
        seen
    }

    /// Each entry takes effect by itself, beside those that are live.
    pub fn one_by_one(&mut self) -> Check<Text> {
        self.msix.set_enabled(true);
        let begin = cycles();
        for vector in 0..self.vectors {
            self.program(vector);
        }
        println!("unmasked one by one in {} us", (cycles() - begin) / cycles_per_microsecond());
        let seen = self.raise_each();
        self.finish();
        seen
    }

    /// A vector that was live, is masked and raised more than once: its pending bit shows, and it comes once.
    pub fn pending(&mut self) -> Check<Text> {
        self.msix.set_enabled(true);
        let chosen = [1, self.vectors / 2, self.vectors - 1];
        for vector in chosen {
            self.program(vector);
            self.msix.set_mask(vector, true);
            let (own, before) = (interrupt::count(processor_vector(vector)), delivered());
            self.raiser.raise(vector)?;
            self.raiser.raise(vector)?;
            let deadline = Deadline::after_microseconds(PATIENCE);
            while !self.msix.is_pending(vector) {
                ensure!(!deadline.passed(), "vector {vector} is masked and raised, but not pending");
            }
            sleep_microseconds(QUIET);
            ensure_equal!(delivered(), before, "interrupts of masked vector {vector}");
            let others = (0..self.vectors).filter(|&other| other != vector && self.msix.is_pending(other));
            ensure_equal!(others.count() as u64, 0u64, "other vectors that are pending");

            self.msix.set_mask(vector, false);
            ensure!(
                interrupt::reaches(processor_vector(vector), own + 1, PATIENCE),
                "vector {vector} never came when it was unmasked"
            );
            sleep_microseconds(QUIET);
            ensure_equal!(delivered(), before + 1, "interrupts of vector {vector} when it was unmasked");
            ensure!(!self.msix.is_pending(vector), "vector {vector} is pending after it came");
            ensure!(self.raise(vector)? > 0, "vector {vector} is dead after it was pending");
        }
        self.finish();
        let [first, middle, last] = chosen;
        Ok(Text::new(format_args!("vectors {first}, {middle} and {last}: pending bit, one delivery")))
    }

    fn finish(&self) {
        self.msix.set_enabled(false);
        for vector in 0..self.vectors {
            self.msix.set_mask(vector, true);
        }
    }
}
