//! Physical configuration space, and the bit in it that keeps a function's INTx off.
//!
//! While nobody takes INTx it is disabled in the function, whatever the guest says: asserted it would raise a line of the
//! host that nobody answers, and that may be shared. While it is connected, the guest's bit counts.
//!
//! Nothing is to be done when the vectors of MSI and MSI-X are freed: that clears the bit (`pci_intx_for_msi` in
//! `drivers/pci/msi`), but the kernel's VFIO restores the command register around it
//! (`vfio_pci_memory_unlock_and_restore`, since Linux 5.8).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::ioctl::device::RegionInfo;
use crate::pci::capability::{self, read_u16};
use crate::pci::registers::{
    COMMAND, COMMAND_INTX_DISABLE, COMMAND_MEMORY, CONVENTIONAL_SIZE, VENDOR_ID, capability_id,
};

/// The byte of the command register that has the INTx disable bit, and the bit there.
const HIGH: u16 = COMMAND + 1;
const DISABLE: u8 = (COMMAND_INTX_DISABLE >> 8) as u8;

pub struct Config {
    device: Arc<File>,
    region: RegionInfo,
    intx: Mutex<Intx>,
}

#[derive(Clone, Copy, Default)]
struct Intx {
    /// The bit as it was written last.
    disabled: bool,
    /// Somebody takes the interrupt.
    connected: bool,
}

impl Intx {
    /// The bit as the function has it.
    fn physical(self) -> u8 {
        if self.disabled || !self.connected { DISABLE } else { 0 }
    }
}

impl Config {
    /// INTx is not connected.
    pub fn new(device: Arc<File>, region: RegionInfo) -> Config {
        Config { device, region, intx: Mutex::default() }
    }

    /// Its first `len` bytes, or as many as there are.
    pub fn bytes(&self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.region.size).unwrap_or(usize::MAX).min(len)];
        self.device.read_exact_at(&mut bytes, self.region.file_offset)?;
        Ok(bytes)
    }

    /// The kernel lets the function's memory be reached: it is there, decodes memory and is in D0
    /// (`__vfio_pci_memory_enabled` in `drivers/vfio/pci/vfio_pci_config.c`).
    pub fn answers(&self) -> bool {
        let Ok(raw) = self.bytes(CONVENTIONAL_SIZE) else { return false };
        let power = capability::walk(&raw).0.into_iter().find(|c| c.id == capability_id::POWER);
        let awake = power.is_none_or(|c| read_u16(&raw, c.offset + 4) & 0x3 == 0);
        read_u16(&raw, VENDOR_ID) != 0xffff && read_u16(&raw, COMMAND) & COMMAND_MEMORY != 0 && awake
    }

    /// Reads; the INTx disable bit is what was written last.
    pub fn read(&self, offset: u16, data: &mut [u8]) -> io::Result<()> {
        self.device.read_exact_at(data, self.at(offset, data.len())?)?;
        if let Some(high) = high(offset).and_then(|at| data.get_mut(at)) {
            *high = *high & !DISABLE | if self.intx.lock().disabled { DISABLE } else { 0 };
        }
        Ok(())
    }

    /// Writes; the INTx disable bit reaches the function only while INTx is connected.
    pub fn write(&self, offset: u16, data: &[u8]) -> io::Result<()> {
        let at = self.at(offset, data.len())?;
        let Some((index, &high)) = high(offset).and_then(|index| Some((index, data.get(index)?))) else {
            return self.device.write_all_at(data, at);
        };
        let mut intx = self.intx.lock();
        intx.disabled = high & DISABLE != 0;
        let mut data = data.to_vec();
        if let Some(byte) = data.get_mut(index) {
            *byte = high & !DISABLE | intx.physical();
        }
        self.device.write_all_at(&data, at)
    }

    /// Somebody takes the function's INTx from now on, or nobody does.
    pub fn set_intx_connected(&self, connected: bool) -> io::Result<()> {
        let mut intx = self.intx.lock();
        intx.connected = connected;
        self.put(intx.physical())
    }

    fn put(&self, bit: u8) -> io::Result<()> {
        let at = self.at(HIGH, 1)?;
        let mut high = [0];
        self.device.read_exact_at(&mut high, at)?;
        self.device.write_all_at(&high.map(|high| high & !DISABLE | bit), at)
    }

    fn at(&self, offset: u16, len: usize) -> io::Result<u64> {
        if u64::from(offset) + len as u64 > self.region.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.region.file_offset + u64::from(offset))
    }
}

/// Which byte of an access at `offset` has the INTx disable bit, if it is that long.
fn high(offset: u16) -> Option<usize> {
    HIGH.checked_sub(offset).map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> (Config, Arc<File>) {
        let file = Arc::new(vmm_sys_util::tempfile::TempFile::new().unwrap().into_file());
        file.set_len(4096).unwrap();
        let region = RegionInfo { size: 256, file_offset: 1024, mappable: Vec::new() };
        (Config::new(file.clone(), region), file)
    }

    #[test]
    fn it_answers_while_it_is_there_decodes_and_is_awake() {
        let (config, file) = config();
        let put = |offset: u64, bytes: &[u8]| file.write_all_at(bytes, 1024 + offset).unwrap();
        put(0, &[0x86, 0x80]);
        assert!(!config.answers(), "no decoding");
        put(4, &[2, 0, 0x10]);
        assert!(config.answers());
        put(0x34, &[0x40]);
        put(0x40, &[1, 0, 0, 0, 3]);
        assert!(!config.answers(), "D3hot");
        put(0x44, &[0]);
        assert!(config.answers());
        put(0, &[0xff; 64]);
        assert!(!config.answers(), "gone");
        file.set_len(0).unwrap();
        assert!(!config.answers(), "not to be read");
    }

    fn physical(file: &File) -> u16 {
        let mut command = [0; 2];
        file.read_exact_at(&mut command, 1024 + u64::from(COMMAND)).unwrap();
        u16::from_le_bytes(command)
    }

    #[test]
    fn intx_is_disabled_in_the_function_unless_it_is_connected_and_the_guest_lets_it() {
        let (config, file) = config();
        for (written, connected, expected) in [
            (0x0006, false, 0x0406),
            (0x0406, false, 0x0406),
            (0x0406, true, 0x0406),
            (0x0006, true, 0x0006),
            (0x0146, true, 0x0146),
        ] {
            config.set_intx_connected(connected).unwrap();
            config.write(COMMAND, &u16::to_le_bytes(written)).unwrap();
            assert_eq!(physical(&file), expected, "{written:#x}, {connected}");
            let mut read = [0; 4];
            config.read(COMMAND, &mut read).unwrap();
            assert_eq!(u16::from_le_bytes([read[0], read[1]]), written);
        }
        config.set_intx_connected(false).unwrap();
        assert_eq!(physical(&file), 0x0546);
    }

    #[test]
    fn the_bit_is_found_in_accesses_of_every_size() {
        let (config, file) = config();
        for (offset, data) in [(2, &[0, 0, 3, 4][..]), (4, &[3, 4]), (5, &[4]), (4, &[3, 4, 0, 0])] {
            config.write(offset, data).unwrap();
            assert!(config.intx.lock().disabled);
            config.write(5, &[0]).unwrap();
            assert!(!config.intx.lock().disabled);
        }
        for (offset, data) in [(4, &[0xff][..]), (6, &[0xff, 0xff]), (0, &[0xff; 4])] {
            config.write(offset, data).unwrap();
            assert!(!config.intx.lock().disabled, "{offset}");
        }
        assert_eq!(physical(&file) & COMMAND_INTX_DISABLE, COMMAND_INTX_DISABLE);
    }

    #[test]
    fn accesses_beyond_the_end_are_refused() {
        let (config, _) = config();
        assert!(config.read(255, &mut [0; 1]).is_ok());
        assert!(config.read(255, &mut [0; 2]).is_err());
        assert!(config.write(256, &[0]).is_err());
        assert_eq!(config.bytes(64).unwrap().len(), 64);
        assert_eq!(config.bytes(4096).unwrap().len(), 256);
    }
}
