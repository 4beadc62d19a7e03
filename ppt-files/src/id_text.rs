//! Ids of PCI functions as illumos writes them: hexadecimal, lower case, without leading zeros.

use std::fmt;

/// Why a text is never equal to an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdFault {
    /// `10DE`
    UpperCase,
    /// `0a65`
    Padded,
    /// `10dg`
    NotHexadecimal,
    /// `10de5`
    TooLong,
}

impl fmt::Display for IdFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdFault::UpperCase => "ids are compared as text, in lower case",
            IdFault::Padded => "ids are compared as text, without leading zeros",
            IdFault::NotHexadecimal => "is no hexadecimal number",
            IdFault::TooLong => "has more than four digits",
        })
    }
}

/// Why no function has this id, if so.
pub fn fault(text: &[u8]) -> Option<IdFault> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_hexdigit) {
        Some(IdFault::NotHexadecimal)
    } else if text.len() > 4 {
        Some(IdFault::TooLong)
    } else if text.iter().any(u8::is_ascii_uppercase) {
        Some(IdFault::UpperCase)
    } else if text.len() > 1 && text.first() == Some(&b'0') {
        Some(IdFault::Padded)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_is_printed_for_a_number() {
        for id in (0..=u16::MAX).step_by(7) {
            assert_eq!(fault(format!("{id:x}").as_bytes()), None);
        }
        for (text, expected) in [
            ("", IdFault::NotHexadecimal),
            ("10dg", IdFault::NotHexadecimal),
            ("0x1", IdFault::NotHexadecimal),
            ("10DE", IdFault::UpperCase),
            ("0a65", IdFault::Padded),
            ("00", IdFault::Padded),
            ("12345", IdFault::TooLong),
        ] {
            assert_eq!(fault(text.as_bytes()), Some(expected), "{text}");
        }
    }
}
