//! How much RAM a guest has.

use std::fmt;
use std::str::FromStr;

use super::HUGE_PAGE;

/// Size of guest RAM in bytes: a multiple of 2 MiB from [`RamSize::MIN`] to [`RamSize::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RamSize(u64);

impl Default for RamSize {
    /// 512 MiB.
    fn default() -> Self {
        RamSize(512 << 20)
    }
}

impl RamSize {
    /// Least RAM, 16 MiB: room for the boot data, the legacy hole and a small guest.
    pub const MIN: u64 = 16 << 20;
    /// Most RAM, 4 TiB: below KVM's limit of 2^31 - 1 pages of 4 KiB for one memory slot.
    pub const MAX: u64 = 4 << 40;

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text or number is no [`RamSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory size {given}: {reason}; give a multiple of 2 MiB from 16M to 4T, such as 512M, 2G or 5GiB")]
pub struct InvalidSize {
    /// What was given.
    pub given: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a number with an optional unit.
    Syntax,
    /// Below [`RamSize::MIN`].
    TooSmall,
    /// Above [`RamSize::MAX`].
    TooLarge,
    /// Not a multiple of 2 MiB.
    Granularity,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Syntax => "not a number with a unit",
            Reason::TooSmall => "too small",
            Reason::TooLarge => "too large",
            Reason::Granularity => "not a multiple of 2 MiB",
        })
    }
}

fn check(bytes: u64) -> Result<RamSize, Reason> {
    match bytes {
        _ if bytes < RamSize::MIN => Err(Reason::TooSmall),
        _ if bytes > RamSize::MAX => Err(Reason::TooLarge),
        _ if !bytes.is_multiple_of(HUGE_PAGE) => Err(Reason::Granularity),
        _ => Ok(RamSize(bytes)),
    }
}

/// Splits `text` into digits and unit and gives bytes; a unit is K, M, G or T, alone or with `B` or `iB` after it,
/// in either case. All are powers of 1024.
pub(crate) fn parse(text: &str) -> Result<u64, Reason> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Reason::Syntax);
    }
    let unit = text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(Reason::Syntax),
    };
    // Only digits are left, so the one way to fail is a number that u64 cannot hold.
    let number: u64 = digits.parse().map_err(|_| Reason::TooLarge)?;
    number.checked_mul(1 << shift).ok_or(Reason::TooLarge)
}

impl FromStr for RamSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        parse(text).and_then(check).map_err(|reason| InvalidSize { given: text.into(), reason })
    }
}

impl TryFrom<u64> for RamSize {
    type Error = InvalidSize;

    fn try_from(bytes: u64) -> Result<Self, InvalidSize> {
        check(bytes).map_err(|reason| InvalidSize { given: format!("{bytes} bytes"), reason })
    }
}

impl fmt::Display for RamSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units() {
        for (text, bytes) in [
            ("16M", 16 << 20),
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("512MiB", 512 << 20),
            ("512MB", 512 << 20),
            ("2G", 2 << 30),
            ("5GiB", 5 << 30),
            ("4T", 4 << 40),
            ("65536K", 64 << 20),
            ("33554432", 32 << 20),
            ("33554432B", 32 << 20),
        ] {
            assert_eq!(text.parse::<RamSize>().map(RamSize::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_refused() {
        for (text, reason) in [
            ("", Reason::Syntax),
            ("M", Reason::Syntax),
            ("-1G", Reason::Syntax),
            ("1.5G", Reason::Syntax),
            ("512 M", Reason::Syntax),
            ("512X", Reason::Syntax),
            ("512iB", Reason::Syntax),
            ("0x1000", Reason::Syntax),
            ("512Mé", Reason::Syntax),
            ("512", Reason::TooSmall),
            ("0", Reason::TooSmall),
            ("15M", Reason::TooSmall),
            ("17M", Reason::Granularity),
            ("16777217", Reason::Granularity),
            ("5T", Reason::TooLarge),
            ("99999999999999999999", Reason::TooLarge),
            ("18446744073709551615T", Reason::TooLarge),
        ] {
            assert_eq!(text.parse::<RamSize>().map_err(|e| e.reason), Err(reason), "{text}");
        }
    }

    #[test]
    fn message_says_what_to_give() {
        let message = "17M".parse::<RamSize>().unwrap_err().to_string();
        assert_eq!(
            message,
            "memory size 17M: not a multiple of 2 MiB; \
             give a multiple of 2 MiB from 16M to 4T, such as 512M, 2G or 5GiB"
        );
    }
}
