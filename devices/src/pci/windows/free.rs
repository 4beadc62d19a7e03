//! Free pieces of an address range.

use std::ops::Range;

/// What is free, as pieces in rising order that neither touch nor overlap.
#[derive(Clone, Debug)]
pub(super) struct Free(Vec<Range<u64>>);

impl Free {
    /// All of `range` but `excluded`.
    pub(super) fn new(range: &Range<u64>, excluded: &[Range<u64>]) -> Free {
        let mut free = Free(vec![range.clone()]);
        free.0.retain(|piece| !piece.is_empty());
        for hole in excluded {
            free.remove(hole);
        }
        free
    }

    /// Takes the lowest place of `size` bytes at a multiple of `alignment`, a power of two.
    pub(super) fn take(&mut self, size: u64, alignment: u64) -> Option<Range<u64>> {
        let place = self.0.iter().find_map(|piece| {
            let start = piece.start.checked_next_multiple_of(alignment)?;
            let end = start.checked_add(size)?;
            (end <= piece.end).then_some(start..end)
        })?;
        self.remove(&place);
        Some(place)
    }

    /// Free bytes.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|piece| piece.end - piece.start).sum()
    }

    /// The pieces, the largest first, of equal ones the lowest first.
    pub(super) fn pieces_by_size(&self) -> Vec<Range<u64>> {
        let mut pieces = self.0.clone();
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.end - piece.start));
        pieces
    }

    fn remove(&mut self, hole: &Range<u64>) {
        if hole.is_empty() {
            return;
        }
        let parts = |piece: &Range<u64>| {
            [
                piece.start..hole.start.clamp(piece.start, piece.end),
                hole.end.clamp(piece.start, piece.end)..piece.end,
            ]
        };
        self.0 = self.0.iter().flat_map(parts).filter(|part| !part.is_empty()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes() {
        for (excluded, pieces) in [
            (&[][..], &[0x1000..0x9000][..]),
            (&[0x3000..0x4000], &[0x1000..0x3000, 0x4000..0x9000]),
            (&[0x0..0x2000, 0x8000..0x10000], &[0x2000..0x8000]),
            (&[0x0..0x10000], &[]),
            (&[0x1000..0x9000], &[]),
            (&[0x0..0x1000, 0x9000..0xa000, 0x5000..0x5000], &[0x1000..0x9000]),
            (&[0x3000..0x5000, 0x4000..0x6000], &[0x1000..0x3000, 0x6000..0x9000]),
        ] {
            assert_eq!(Free::new(&(0x1000..0x9000), excluded).0, pieces, "{excluded:x?}");
        }
        assert_eq!(Free::new(&(5..5), &[]).total(), 0);
    }

    #[test]
    fn places_are_aligned_and_lowest() {
        let mut free = Free::new(&(0x1000..0x9000), &[]);
        assert_eq!(free.take(0x4000, 0x4000), Some(0x4000..0x8000));
        assert_eq!(free.take(0x1000, 0x1000), Some(0x1000..0x2000));
        assert_eq!(free.take(0x2000, 0x2000), Some(0x2000..0x4000));
        assert_eq!(free.take(0x2000, 0x1000), None);
        assert_eq!(free.total(), 0x1000);
        assert_eq!(free.take(0x1000, 0x1000), Some(0x8000..0x9000));
        assert_eq!(free.total(), 0);
    }

    #[test]
    fn the_ends_of_the_address_space() {
        let mut free = Free::new(&(u64::MAX - 0x10..u64::MAX), &[]);
        assert_eq!(free.take(1 << 63, 1 << 63), None);
        assert_eq!(free.take(u64::MAX, 1), None);
        assert_eq!(free.pieces_by_size(), [u64::MAX - 0x10..u64::MAX]);
    }

    #[test]
    fn pieces_by_size() {
        let free = Free::new(&(0..100), &[10..20, 50..60, 70..80]);
        assert_eq!(free.pieces_by_size(), [20..50, 80..100, 0..10, 60..70]);
    }
}
