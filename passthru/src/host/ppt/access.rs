//! Accesses of a guest's in pieces that a host can make.

use std::io;

/// An access to `len` of `size` bytes, in accesses of at most `widest` (1 to 8) bytes at multiples of their width.
pub(super) fn split(offset: u64, len: usize, size: u64, widest: usize) -> io::Result<Vec<(u64, usize)>> {
    let end = offset.checked_add(len as u64).filter(|end| *end <= size);
    let end = end.ok_or(io::ErrorKind::InvalidInput)?;
    let (mut at, mut parts) = (offset, Vec::new());
    while at < end {
        let fits = |width: &usize| *width <= widest && at % *width as u64 == 0 && end - at >= *width as u64;
        let Some(width) = [8, 4, 2, 1].into_iter().find(fits) else { break };
        parts.push((at, width));
        at += width as u64;
    }
    Ok(parts)
}

/// Up to 4 bytes of a value, as they are in memory.
pub(super) fn put(data: &mut [u8], value: u32) {
    for (byte, from) in data.iter_mut().zip(value.to_le_bytes()) {
        *byte = from;
    }
}

/// The value of up to 4 bytes.
pub(super) fn get(data: &[u8]) -> u32 {
    data.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_made_of_aligned_ones() {
        for (offset, len, widest, parts) in [
            (0, 8, 8, &[(0, 8)][..]),
            (0, 8, 4, &[(0, 4), (4, 4)]),
            (2, 8, 8, &[(2, 2), (4, 4), (8, 2)]),
            (5, 3, 4, &[(5, 1), (6, 2)]),
            (0x1f, 1, 4, &[(0x1f, 1)]),
            (0x20, 0, 4, &[]),
        ] {
            assert_eq!(split(offset, len, 0x20, widest).unwrap(), parts, "{offset:#x} {len}");
        }
        for (offset, len) in [(0x1f, 2), (0x20, 1), (u64::MAX, 1), (u64::MAX, 8)] {
            assert!(split(offset, len, 0x20, 4).is_err(), "{offset:#x}");
        }
    }
}
