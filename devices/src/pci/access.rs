//! Splitting of configuration accesses.

/// Length of the first piece of an access of `length` bytes at `offset`: 1, 2 or 4 bytes that do not cross a
/// dword, or 0 when nothing is left. Functions take no other pieces, and a guest may well do others: an
/// 8-byte move to ECAM, an unaligned one.
pub(crate) const fn first_piece(offset: u64, length: usize) -> usize {
    let room = 4 - (offset & 3) as usize;
    match if length < room { length } else { room } {
        // Of the two ways to split three bytes, the one that keeps the word aligned.
        3 if offset & 1 == 1 => 1,
        3 => 2,
        piece => piece,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces() {
        for (offset, length, pieces) in [
            (0, 4, &[4][..]),
            (0, 8, &[4, 4]),
            (0, 1, &[1]),
            (1, 2, &[2]),
            (3, 1, &[1]),
            (3, 2, &[1, 1]),
            (2, 4, &[2, 2]),
            (1, 4, &[1, 2, 1]),
            (0, 3, &[2, 1]),
            (4, 0, &[]),
            (5, 8, &[1, 2, 4, 1]),
            (0xfff, 2, &[1, 1]),
        ] {
            let (mut at, mut left, mut got) = (offset, length, Vec::new());
            while left > 0 {
                let piece = first_piece(at, left);
                got.push(piece);
                at += piece as u64;
                left -= piece;
            }
            assert_eq!(got, pieces, "{offset} {length}");
        }
    }
}
