//! What is written to memory to be found again: by the guest itself, or by the host in the file behind that memory.

/// The word for a place. Words of different offsets or seeds differ, so data that went astray is noticed.
#[must_use]
pub const fn word(offset: u64, seed: u64) -> u64 {
    // Finaliser of splitmix64: a bijection of the offset for each seed.
    let mut z =
        offset.wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x1234_5678_9abc_def1);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where words go in so many bytes: every `step` bytes from 0, and the last 8 bytes.
pub fn offsets(length: u64, step: u64) -> impl Iterator<Item = u64> {
    let last = length.checked_sub(8);
    let regular = (0..length).step_by(usize::try_from(step).unwrap_or(usize::MAX).max(1));
    regular.filter(move |&offset| last.is_some_and(|last| offset < last)).chain(last)
}

/// A checksum over 64-bit words in order (FNV-1a with words for bytes).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checksum(u64);

impl Checksum {
    #[must_use]
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub const fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Checksum, offsets, word};

    #[test]
    fn words_differ_by_offset_and_by_seed() {
        let mut words: Vec<u64> =
            (0..1000).map(|n| word(n * 8, 1)).chain((0..1000).map(|n| word(n * 8, 2))).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 2000);
    }

    #[test]
    fn offsets_end_with_the_last_word() {
        let list = |length, step| offsets(length, step).collect::<Vec<_>>();
        assert_eq!(list(32, 16), [0, 16, 24]);
        assert_eq!(list(24, 8), [0, 8, 16]);
        assert_eq!(list(8, 8), [0]);
        assert_eq!(list(7, 8), []);
    }

    #[test]
    fn the_checksum_depends_on_the_order() {
        let sum = |words: [u64; 2]| {
            let mut sum = Checksum::new();
            words.into_iter().for_each(|word| sum.add(word));
            sum.value()
        };
        assert_ne!(sum([1, 2]), sum([2, 1]));
        assert_ne!(sum([0, 0]), Checksum::new().value());
    }
}
