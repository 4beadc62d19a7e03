//! Where a function is: in the guest ([`Slot`]) and in the host ([`HostAddress`]).

use std::fmt;
use std::str::FromStr;

/// Devices on a bus.
pub const DEVICES: u8 = 32;
/// Functions of a device.
pub const FUNCTIONS: u8 = 8;

/// A function's place in the guest: `bus:device:function`, decimal, as bhyve's `-s` and vmadm's `pci_slot`
/// write it. `8` is `0:8:0` and `8:1` is `0:8:1`.
///
/// The guest's own notation for `0:8:1` is `00:08.1` ([`Slot::bdf`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

/// Why a text is no slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Not one to three decimal numbers separated by colons.
    #[error("slot '{0}' is not D, D:F or B:D:F in decimal, such as 0:8:0")]
    Syntax(String),
    /// A number is above what PCI has room for.
    #[error("slot '{text}': {part} {value} is out of range (0 to {max})")]
    Range {
        /// The whole text.
        text: String,
        /// `bus`, `device` or `function`.
        part: &'static str,
        /// The number given.
        value: u64,
        /// The largest one allowed.
        max: u8,
    },
}

impl Slot {
    /// The slot, or nothing when `device` is over 31 or `function` over 7.
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Slot> {
        if device >= DEVICES || function >= FUNCTIONS {
            return None;
        }
        Some(Slot((bus as u16) << 8 | (device as u16) << 3 | function as u16))
    }

    /// From a requester id: bus in bits 15:8, device in 7:3, function in 2:0 (PCIe 6.0 §2.2.4.2).
    pub const fn from_requester_id(id: u16) -> Slot {
        Slot(id)
    }

    /// Bus 0 to 255.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device 0 to 31.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 0x1f
    }

    /// Function 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 as u8 & 0x7
    }

    /// Device and function as they share a byte: `device << 3 | function`.
    pub const fn devfn(self) -> u8 {
        self.0 as u8
    }

    /// Bus, device and function as a message's requester id.
    pub const fn requester_id(self) -> u16 {
        self.0
    }

    /// Function `function` of the same device; only the low three bits count.
    pub const fn with_function(self, function: u8) -> Slot {
        Slot(self.0 & !0x7 | (function & 0x7) as u16)
    }

    /// In the guest's own notation, hexadecimal: `00:08.1`.
    pub fn bdf(self) -> impl fmt::Display {
        struct Hex(Slot);
        impl fmt::Display for Hex {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:02x}:{:02x}.{}", self.0.bus(), self.0.device(), self.0.function())
            }
        }
        Hex(self)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.bus(), self.device(), self.function())
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Slot {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Slot, SlotError> {
        let syntax = || SlotError::Syntax(text.to_owned());
        let mut numbers = Vec::with_capacity(3);
        for part in text.split(':') {
            // `parse` alone would take a leading '+'.
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) || numbers.len() == 3 {
                return Err(syntax());
            }
            numbers.push(part.parse::<u64>().map_err(|_| syntax())?);
        }
        let (bus, device, function) = match *numbers.as_slice() {
            [device] => (0, device, 0),
            [device, function] => (0, device, function),
            [bus, device, function] => (bus, device, function),
            _ => return Err(syntax()),
        };
        let check = |part, value: u64, max: u8| {
            u8::try_from(value).ok().filter(|v| *v <= max).ok_or_else(|| SlotError::Range {
                text: text.to_owned(),
                part,
                value,
                max,
            })
        };
        let bus = check("bus", bus, 255)?;
        let device = check("device", device, DEVICES - 1)?;
        let function = check("function", function, FUNCTIONS - 1)?;
        Slot::new(bus, device, function).ok_or_else(syntax)
    }
}

/// A function's place in the host: `segment:bus:device.function`, hexadecimal, as Linux names it in
/// `/sys/bus/pci/devices`. The segment may be left out and is then 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostAddress {
    segment: u32,
    slot: Slot,
}

/// A text that is no host address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a PCI address such as 0000:01:00.0")]
pub struct AddressError(pub String);

impl HostAddress {
    /// The function at `slot` of PCI segment (domain) `segment`.
    pub const fn new(segment: u32, slot: Slot) -> HostAddress {
        HostAddress { segment, slot }
    }

    /// PCI segment, Linux' domain. More than 16 bits are in use (Intel VMD starts at 0x10000).
    pub const fn segment(self) -> u32 {
        self.segment
    }

    /// Bus, device and function.
    pub const fn slot(self) -> Slot {
        self.slot
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{}", self.segment, self.slot.bdf())
    }
}

impl fmt::Debug for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HostAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<HostAddress, AddressError> {
        let parse = || {
            let (front, function) = text.split_once('.')?;
            let mut parts = front.rsplitn(3, ':');
            let device = hex(parts.next()?, 2)?;
            let bus = hex(parts.next()?, 2)?;
            let segment = match parts.next() {
                Some(segment) => hex(segment, 8)?,
                None => 0,
            };
            let function = hex(function, 1)?;
            let slot =
                Slot::new(u8::try_from(bus).ok()?, u8::try_from(device).ok()?, u8::try_from(function).ok()?)?;
            Some(HostAddress { segment, slot })
        };
        parse().ok_or_else(|| AddressError(text.to_owned()))
    }
}

fn hex(digits: &str, most: usize) -> Option<u32> {
    let plain = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_as_bhyve_and_vmadm_write_them() {
        for (text, bus, device, function) in [
            ("0:8:0", 0, 8, 0),
            ("8", 0, 8, 0),
            ("8:1", 0, 8, 1),
            ("255:31:7", 255, 31, 7),
            ("3:05:0", 3, 5, 0),
        ] {
            let slot: Slot = text.parse().unwrap();
            assert_eq!((slot.bus(), slot.device(), slot.function()), (bus, device, function), "{text}");
            assert_eq!(Slot::from_requester_id(slot.requester_id()), slot);
        }
        assert_eq!(Slot::new(0, 8, 1).unwrap().to_string(), "0:8:1");
        assert_eq!(Slot::new(16, 10, 1).unwrap().bdf().to_string(), "10:0a.1");
    }

    #[test]
    fn slots_that_are_none() {
        for text in ["", ":", "0:8:0:0", "+8", "-1", "8:", "a", "0x8", "8.0", " 8", "99999999999999999999"] {
            assert!(matches!(text.parse::<Slot>(), Err(SlotError::Syntax(_))), "{text}");
        }
        for (text, at_fault) in [("32", "device"), ("8:8", "function"), ("256:0:0", "bus")] {
            match text.parse::<Slot>() {
                Err(SlotError::Range { part, .. }) => assert_eq!(part, at_fault),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn host_addresses_as_linux_writes_them() {
        for (text, shown) in [
            ("0000:01:00.0", "0000:01:00.0"),
            ("01:1f.7", "0000:01:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
            ("1:2.3", "0000:01:02.3"),
        ] {
            assert_eq!(text.parse::<HostAddress>().unwrap().to_string(), shown);
        }
        for text in ["", "0:8:0", "01:20.0", "01:00.8", "01:00", "x:01:00.0", "0000:01:00.0.0", "100:00.0"] {
            assert!(text.parse::<HostAddress>().is_err(), "{text}");
        }
    }
}
