//! A function's place: bus, device, function.

use core::fmt;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot {
    pub bus: u8,
    pub device: u8,
    pub function: u8,
}

impl Slot {
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self { bus, device, function }
    }

    /// Reads `bus:device:function`, `device:function` or `device`, in decimal; what is left out is 0.
    /// `None` if a part is missing or out of range.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let part = |text: &str, end: u8| text.parse().ok().filter(|&number: &u8| number < end);
        let bus = |text: &str| text.parse().ok();
        let mut parts = text.split(':');
        let slot = match (parts.next()?, parts.next(), parts.next()) {
            (d, None, _) => Self::new(0, part(d, 32)?, 0),
            (d, Some(f), None) => Self::new(0, part(d, 32)?, part(f, 8)?),
            (b, Some(d), Some(f)) => Self::new(bus(b)?, part(d, 32)?, part(f, 8)?),
        };
        parts.next().is_none().then_some(slot)
    }

    /// Bus, device and function as the 16 bits that ECAM addresses, CF8 and requester ids share.
    #[must_use]
    pub fn bits(self) -> u16 {
        u16::from(self.bus) << 8 | u16::from(self.device) << 3 | u16::from(self.function)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::Slot;

    #[test]
    fn slots_are_parsed() {
        for (text, slot) in [
            ("0:8:0", Some((0, 8, 0))),
            ("3:31:7", Some((3, 31, 7))),
            ("255:0:0", Some((255, 0, 0))),
            ("8", Some((0, 8, 0))),
            ("8:1", Some((0, 8, 1))),
            ("", None),
            ("0:32:0", None),
            ("0:0:8", None),
            ("256:0:0", None),
            ("0:8:0:0", None),
            ("0:8:", None),
            ("0:-1:0", None),
        ] {
            assert_eq!(Slot::parse(text), slot.map(|(b, d, f)| Slot::new(b, d, f)), "{text}");
        }
    }

    #[test]
    fn bits_and_text() {
        let slot = Slot::new(3, 10, 1);
        assert_eq!(slot.bits(), 0x351);
        assert_eq!(slot.to_string(), "03:0a.1");
    }
}
