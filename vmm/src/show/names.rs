//! Names of vendors, devices and classes, as the PCI ID project keeps them.

/// Lines of a number, a blank and a name, in ascending order; written by `build.rs`.
const VENDORS: &str = include_str!(concat!(env!("OUT_DIR"), "/vendors"));
const DEVICES: &str = include_str!(concat!(env!("OUT_DIR"), "/devices"));
const CLASSES: &str = include_str!(concat!(env!("OUT_DIR"), "/classes"));
const INTERFACES: &str = include_str!(concat!(env!("OUT_DIR"), "/interfaces"));

/// Who made it.
pub fn vendor(id: u16) -> Option<&'static str> {
    find(VENDORS, &format!("{id:04x}"))
}

/// What its maker calls it.
pub fn device(vendor: u16, device: u16) -> Option<&'static str> {
    find(DEVICES, &format!("{vendor:04x}{device:04x}"))
}

/// What a class code means: base class in bits 23:16, subclass in 15:8, programming interface in 7:0.
pub fn class(code: u32) -> Option<String> {
    let subclass = find(CLASSES, &format!("{:04x}", code >> 8 & 0xffff))?;
    let interface = find(INTERFACES, &format!("{:06x}", code & 0xff_ffff));
    Some(match interface.filter(|_| code & 0xff != 0) {
        Some(interface) => format!("{subclass} ({interface})"),
        None => subclass.to_owned(),
    })
}

/// The name behind a number, all of which have as many digits.
fn find(mut lines: &'static str, number: &str) -> Option<&'static str> {
    while !lines.is_empty() {
        // Of the line that has the byte in the middle.
        let middle = lines.floor_char_boundary(lines.len() / 2);
        let (before, behind) = lines.split_at(middle);
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        let end = behind.find('\n').map_or(lines.len(), |at| middle + at);
        let (at, name) = lines.get(begin..end)?.split_once(' ')?;
        lines = match number.cmp(at) {
            std::cmp::Ordering::Equal => return Some(name),
            std::cmp::Ordering::Less => lines.get(..begin.saturating_sub(1))?,
            std::cmp::Ordering::Greater => lines.get(end + 1..).unwrap_or_default(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_numbers() {
        assert_eq!(vendor(0x8086), Some("Intel Corporation"));
        assert_eq!(device(0x8086, 0x10d3), Some("82574L Gigabit Network Connection"));
        assert_eq!(class(0x01_0802).as_deref(), Some("Non-Volatile memory controller (NVM Express)"));
        assert_eq!(class(0x02_0000).as_deref(), Some("Ethernet controller"));
        assert_eq!(class(0x02_0001).as_deref(), Some("Ethernet controller"));
        assert_eq!((vendor(0x5350), device(0x5350, 1), class(0xfe_0000)), (None, None, None));
    }

    #[test]
    fn every_name_is_found() {
        for (lines, digits) in [(VENDORS, 4), (DEVICES, 8), (CLASSES, 4), (INTERFACES, 6)] {
            assert!(lines.lines().count() > 50);
            for line in lines.lines() {
                let (number, name) = line.split_once(' ').unwrap();
                assert_eq!((number.len(), find(lines, number)), (digits, Some(name)), "{line}");
            }
            for absent in ["", "0", "g"] {
                assert_eq!(find(lines, absent), None);
            }
        }
    }
}
