//! Names of vendors, devices and classes, as the PCI ID project keeps them.

use pci_ids::{Device, FromId, Subclass, Vendor};

/// Who made it.
pub fn vendor(id: u16) -> Option<&'static str> {
    Vendor::from_id(id).map(Vendor::name)
}

/// What its maker calls it.
pub fn device(vendor: u16, device: u16) -> Option<&'static str> {
    Device::from_vid_pid(vendor, device).map(Device::name)
}

/// What a class code means: base class in bits 23:16, subclass in 15:8, programming interface in 7:0.
pub fn class(code: u32) -> Option<String> {
    let (base, sub, interface) = ((code >> 16) as u8, (code >> 8) as u8, code as u8);
    let subclass = Subclass::from_cid_sid(base, sub)?;
    let interface = subclass.prog_ifs().find(|i| i.id() == interface && interface != 0);
    Some(match interface {
        Some(interface) => format!("{} ({})", subclass.name(), interface.name()),
        None => subclass.name().to_owned(),
    })
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
        assert_eq!((vendor(0x5350), device(0x5350, 1), class(0xfe_0000)), (None, None, None));
    }
}
