//! The escape character of a terminal in raw mode, where Ctrl-C belongs to the guest.

/// Ctrl-A, as in QEMU.
const ESCAPE: u8 = 0x01;

/// Said once when a terminal becomes the console, and again on Ctrl-A h.
pub(super) const HELP: &str =
    "slotpass: Ctrl-A x ends the guest, Ctrl-A Ctrl-A sends Ctrl-A, Ctrl-A h shows this";

/// What the user asked slotpass itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Quit,
    Help,
}

/// Takes escape sequences out of typed input, also those that come in several reads.
#[derive(Debug, Default)]
pub(super) struct EscapeFilter {
    escaped: bool,
}

impl EscapeFilter {
    /// The bytes for the guest, and the last request among `typed`; nothing counts after [`Request::Quit`]. A
    /// sequence without meaning is dropped.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, Option<Request>) {
        let mut bytes = Vec::with_capacity(typed.len());
        let mut request = None;
        for &byte in typed {
            if !std::mem::take(&mut self.escaped) {
                match byte {
                    ESCAPE => self.escaped = true,
                    _ => bytes.push(byte),
                }
                continue;
            }
            match byte {
                ESCAPE => bytes.push(ESCAPE),
                b'x' => return (bytes, Some(Request::Quit)),
                b'h' | b'?' => request = Some(Request::Help),
                _ => {}
            }
        }
        (bytes, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        use Request::{Help, Quit};
        // Reads by comma, what the guest gets, the last request.
        for (reads, expected, last) in [
            ("ls\r", "ls\r", None),
            ("\x03\x04\x1c\x1a", "\x03\x04\x1c\x1a", None),
            ("\x01x", "", Some(Quit)),
            ("a\x01,xb", "a", Some(Quit)),
            ("\x01\x01", "\x01", None),
            ("\x01\x01x", "\x01x", None),
            ("\x01,\x01,x", "\x01x", None),
            ("\x01h", "", Some(Help)),
            ("\x01q1\x01", "1", None),
            ("\x01h\x01x", "", Some(Quit)),
        ] {
            let mut filter = EscapeFilter::default();
            let mut bytes = Vec::new();
            let mut request = None;
            for read in reads.split(',') {
                let (more, asked) = filter.filter(read.as_bytes());
                bytes.extend(more);
                request = asked;
            }
            assert_eq!((bytes.as_slice(), request), (expected.as_bytes(), last), "{reads:?}");
        }
    }
}
