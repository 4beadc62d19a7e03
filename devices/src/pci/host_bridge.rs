//! The function that bus 0's host bridge shows of itself.

use passthru::pci::ConfigAccess;
use passthru::pci::registers::{
    CONVENTIONAL_SIZE, DEVICE_ID, HEADER_MULTI_FUNCTION, HEADER_TYPE, REVISION_ID, VENDOR_ID,
};

/// Red Hat, who lend their ids to virtual hardware.
const VENDOR: u16 = 0x1b36;
/// Generic PCI Express host bridge, without registers of its own; no driver binds to it.
const DEVICE: u16 = 0x0008;
/// Bridge, host (PCI Code and ID Assignment 1.15 §1.7).
const CLASS: u8 = 0x06;

/// A host bridge's configuration space: who it is, and nothing to program. It has the registers of a
/// conventional function; at extended offsets there is nothing.
///
/// A guest without MCFG looks for a host bridge on bus 0 before it trusts CF8/CFC (Linux:
/// `pci_sanity_check`).
pub struct HostBridge {
    registers: [u8; CONVENTIONAL_SIZE],
}

impl HostBridge {
    /// `multi_function`: other functions share its device.
    pub fn new(multi_function: bool) -> HostBridge {
        let mut bridge = HostBridge { registers: [0; CONVENTIONAL_SIZE] };
        bridge.set(VENDOR_ID, &VENDOR.to_le_bytes());
        bridge.set(DEVICE_ID, &DEVICE.to_le_bytes());
        // Revision, interface, sub-class (0: host), class.
        bridge.set(REVISION_ID, &[0, 0, 0, CLASS]);
        if multi_function {
            bridge.set(HEADER_TYPE, &[HEADER_MULTI_FUNCTION]);
        }
        bridge
    }

    fn set(&mut self, offset: u16, bytes: &[u8]) {
        for (register, byte) in self.registers.iter_mut().skip(usize::from(offset)).zip(bytes) {
            *register = *byte;
        }
    }
}

impl ConfigAccess for HostBridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let start = usize::from(offset);
        match self.registers.get(start..start + data.len()) {
            Some(bytes) => data.copy_from_slice(bytes),
            None => data.fill(0xff),
        }
    }

    fn config_write(&self, _offset: u16, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read32(bridge: &HostBridge, offset: u16) -> u32 {
        let mut data = [0; 4];
        bridge.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn header() {
        let bridge = HostBridge::new(false);
        assert_eq!(read32(&bridge, 0x00), 0x0008_1b36);
        assert_eq!(read32(&bridge, 0x04), 0, "decodes nothing, has no capabilities");
        assert_eq!(read32(&bridge, 0x08), 0x0600_0000);
        assert_eq!(read32(&bridge, 0x0c), 0);
        assert_eq!(read32(&HostBridge::new(true), 0x0c), 0x0080_0000);
        for offset in (0x10..0x100).step_by(4) {
            assert_eq!(read32(&bridge, offset), 0, "{offset:#x}");
        }
    }

    #[test]
    fn nothing_at_extended_offsets() {
        let bridge = HostBridge::new(false);
        assert_eq!(read32(&bridge, 0x100), u32::MAX);
        assert_eq!(read32(&bridge, 0xffc), u32::MAX);
        assert_eq!(read32(&bridge, 0xfffe), u32::MAX);
    }

    #[test]
    fn writes_change_nothing() {
        let bridge = HostBridge::new(false);
        for offset in (0..0x100).step_by(4) {
            let before = read32(&bridge, offset);
            bridge.config_write(offset, &[0xff; 4]);
            assert_eq!(read32(&bridge, offset), before);
        }
    }
}
