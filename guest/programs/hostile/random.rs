//! Random numbers that a seed repeats.

use runtime::pattern;

pub struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    pub fn word(&mut self) -> u64 {
        self.drawn += 1;
        pattern::word(self.drawn, self.seed)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.word().checked_rem(end).unwrap_or(0)
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len() as u64) as usize)
    }

    /// 1, 2, 4 or, if `most` is 8, 8.
    pub fn width(&mut self, most: u64) -> u64 {
        1 << self.below(u64::from(most.ilog2()) + 1)
    }

    /// Zeros, ones, small numbers and single bits more often than chance would have them.
    pub fn value(&mut self) -> u64 {
        let word = self.word();
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => word & 0xff,
            3 => 1 << (word & 63),
            4 => !(1 << (word & 63)),
            _ => word,
        }
    }
}
