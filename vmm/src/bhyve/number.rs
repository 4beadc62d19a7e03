//! Numbers as bhyve reads them.

/// An integer as strtol(3) has it: decimal, octal after `0`, hexadecimal after `0x`. Signs and spaces are no part of it.
pub fn integer(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    plain(digits, radix)
}

/// A decimal number of digits only, as it stands in a slot.
pub fn decimal(text: &str) -> Option<u64> {
    plain(text, 10)
}

fn plain(digits: &str, radix: u32) -> Option<u64> {
    // `from_str_radix` alone would take a sign.
    let plain = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// A size in bytes as bhyve's `memory.size`: an integer with or without a unit of expand_number(3), all of which are
/// powers of 1024. A number below 1 MiB without a unit is in MiB.
pub fn size(text: &str) -> Option<u64> {
    if let Some(number) = integer(text) {
        return if number < 1 << 20 { number.checked_mul(1 << 20) } else { Some(number) };
    }
    let without_b = text.strip_suffix(['b', 'B']).unwrap_or(text);
    let unit = without_b.chars().next_back()?;
    let shift = match unit.to_ascii_lowercase() {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        'p' => 50,
        'e' => 60,
        _ => return if without_b == text { None } else { integer(without_b) },
    };
    let number = without_b.strip_suffix(unit).and_then(integer)?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_strtol_reads_them() {
        for (text, value) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("010", Some(8)),
            ("0x10", Some(16)),
            ("0XfF", Some(255)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("08", None),
            ("", None),
            ("0x", None),
            ("0x+1", None),
            ("+1", None),
            ("-1", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
            ("é", None),
        ] {
            assert_eq!(integer(text), value, "{text:?}");
        }
        assert_eq!((decimal("08"), decimal("8"), decimal("+8"), decimal("")), (Some(8), Some(8), None, None));
    }

    #[test]
    fn sizes_as_bhyve_reads_them() {
        for (text, value) in [
            ("256", Some(256 << 20)),
            ("1048575", Some(1_048_575 << 20)),
            ("1048576", Some(1 << 20)),
            ("256M", Some(256 << 20)),
            ("256m", Some(256 << 20)),
            ("256MB", Some(256 << 20)),
            ("2g", Some(2 << 30)),
            ("1T", Some(1 << 40)),
            ("0x10M", Some(16 << 20)),
            ("4194304K", Some(4 << 30)),
            ("16P", Some(16 << 50)),
            ("16E", None),
            ("17179869184G", None),
            ("1E", Some(1 << 60)),
            ("2097152B", Some(2 << 20)),
            ("", None),
            ("M", None),
            ("B", None),
            ("1.5G", None),
            ("-1G", None),
            ("1GiB", None),
            ("1Gé", None),
            ("é", None),
        ] {
            assert_eq!(size(text), value, "{text:?}");
        }
    }
}
