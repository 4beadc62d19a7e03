//! What the benches in `benches/` share: ports of a VMM that is not there, machines without a hypervisor, and how long to
//! measure.
//!
//! `cargo bench -p benches` measures and compares with the run before; `cargo test -p benches --benches` runs each bench
//! once.

// This is a test's code; clippy.toml's exception for tests does not reach a library.
#![allow(clippy::unwrap_used)]

pub mod machine;
pub mod ports;

use std::time::Duration;

use criterion::Criterion;

/// Numbers of functions that lookups and plans are measured with.
pub const FUNCTIONS: [usize; 3] = [1, 32, 1024];

/// Short measurements: all benches together take a minute or two.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(40)
}

/// Goes through a list in an order that no branch predictor knows by heart, the same in every run.
pub struct Shuffled<T> {
    items: Vec<T>,
    next: usize,
}

impl<T: Copy> Shuffled<T> {
    /// 4096 picks of these.
    pub fn of(items: &[T]) -> Shuffled<T> {
        // Marsaglia's xorshift64 with the shifts 13, 7, 17.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let pick = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            items.get((state >> 16) as usize % items.len()).copied().unwrap()
        };
        Shuffled { items: std::iter::repeat_with(pick).take(4096).collect(), next: 0 }
    }

    /// The next of them.
    #[inline]
    pub fn pick(&mut self) -> T {
        self.next = (self.next + 1) % self.items.len();
        self.items.get(self.next).copied().unwrap()
    }
}
