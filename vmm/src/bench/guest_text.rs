//! What a guest sends by its serial port, of bounded length.

use super::error::BenchError;

/// Far more than the guest prints with as many samples as it takes.
const MOST: usize = 64 << 20;

/// Collects it.
#[derive(Debug, Default)]
pub struct GuestText {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl GuestText {
    /// What came.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = MOST - self.bytes.len();
        self.is_cut |= bytes.len() > room;
        self.bytes.extend(bytes.iter().take(room));
    }

    /// All of it.
    pub fn into_string(self) -> Result<String, BenchError> {
        match self.is_cut {
            true => Err(BenchError::TooMuchText(MOST)),
            false => Ok(String::from_utf8_lossy(&self.bytes).into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_guest_has_to_say_is_refused() {
        let mut text = GuestText::default();
        text.push(&vec![b'a'; MOST - 1]);
        text.push(b"b");
        assert_eq!(text.bytes.len(), MOST);
        text.push(b"c");
        assert!(matches!(text.into_string(), Err(BenchError::TooMuchText(MOST))));
    }
}
