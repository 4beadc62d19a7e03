//! How many accesses are left, and how many of them may reset a function.

/// One vCPU's share.
pub struct Budget {
    accesses: u64,
    made: u64,
    /// Resets allowed for each million of accesses.
    rate: u64,
    resets: u64,
}

impl Budget {
    pub fn new(accesses: u64, rate: u64) -> Self {
        Self { accesses, made: 0, rate, resets: 0 }
    }

    pub fn accesses(&mut self, count: u64) {
        self.made += count;
    }

    pub fn is_used_up(&self) -> bool {
        self.made >= self.accesses
    }

    /// Counts a reset if there may be one now.
    pub fn reset(&mut self) -> bool {
        let allowed = self.made.saturating_mul(self.rate) / 1_000_000;
        let free = self.resets < allowed;
        self.resets += u64::from(free);
        free
    }

    pub fn made(&self) -> u64 {
        self.made
    }

    pub fn resets(&self) -> u64 {
        self.resets
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn resets_are_spread_over_the_accesses() {
        let mut budget = Budget::new(1_000_000, 3);
        assert!(!budget.reset(), "none before there were accesses");
        let mut resets = 0;
        while !budget.is_used_up() {
            budget.accesses(1000);
            resets += u64::from(budget.reset());
        }
        assert_eq!((resets, budget.resets(), budget.made()), (3, 3, 1_000_000));
    }
}
