//! What a guest sends by its serial port, of bounded length.

use std::io::{self, Read};
use std::thread::{Builder, JoinHandle};

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

    /// What a thread reads from here until nothing more comes.
    pub fn from(mut source: impl Read + Send + 'static) -> io::Result<JoinHandle<io::Result<GuestText>>> {
        Builder::new().name("guest's text".to_owned()).spawn(move || {
            let (mut text, mut chunk) = (GuestText::default(), [0; 4096]);
            loop {
                match source.read(&mut chunk) {
                    Ok(0) => return Ok(text),
                    Ok(count) => text.push(chunk.get(..count).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        })
    }

    /// All of it, of a thread that has come to the end.
    pub fn of(thread: JoinHandle<io::Result<GuestText>>) -> Result<String, BenchError> {
        let text =
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads it panicked")));
        text.map_err(BenchError::Console)?.into_string()
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
