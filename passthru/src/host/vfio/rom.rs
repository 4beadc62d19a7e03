//! A device's expansion ROM, read once: the kernel walks all its images for each access.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ioctl::device::RegionInfo;

/// Largest that is read. The BAR could claim 2 GiB; the specification allows 16 MiB (PCI Firmware 3.3 §5.1, image length
/// in units of 512 bytes, 16 bits).
const LARGEST: u64 = 16 << 20;

pub struct Rom {
    region: RegionInfo,
    contents: OnceLock<Vec<u8>>,
    /// It could not be read, and that was said.
    failed: AtomicBool,
}

impl Rom {
    pub fn new(region: RegionInfo) -> Rom {
        Rom { region, contents: OnceLock::new(), failed: AtomicBool::new(false) }
    }

    /// Size of the BAR; 0 without a ROM.
    pub fn size(&self) -> u64 {
        match self.region.size.checked_next_power_of_two() {
            Some(size) if size <= LARGEST && self.region.size > 0 => size.max(SMALLEST),
            _ => 0,
        }
    }

    /// Reads part of it. What is not there is all-ones, as is all of it while it cannot be read, which is an error the
    /// first time; that is tried again when its beginning is read.
    pub fn read(&self, device: &File, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut failed = None;
        let try_it = offset == 0 || !self.failed.load(Ordering::Relaxed);
        if try_it && self.contents.get().is_none() {
            let mut contents = vec![0xff; usize::try_from(self.region.size.min(LARGEST)).unwrap_or(0)];
            match read_up_to(device, self.region.file_offset, &mut contents) {
                // Another vCPU may have been quicker, with the same.
                Ok(()) => drop(self.contents.set(contents)),
                Err(error) => failed = (!self.failed.swap(true, Ordering::Relaxed)).then_some(error),
            }
        }
        let contents = self.contents.get().map_or(&[][..], Vec::as_slice);
        let there = usize::try_from(offset).ok().and_then(|at| contents.get(at..)).unwrap_or_default();
        let bytes = there.iter().copied().chain(std::iter::repeat(0xff));
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        failed.map_or(Ok(()), Err)
    }
}

/// Smallest BAR of an expansion ROM (PCIe 6.0 §7.5.1.2.4: bits 10:1 are reserved).
const SMALLEST: u64 = 2048;

fn read_up_to(device: &File, mut from: u64, mut to: &mut [u8]) -> io::Result<()> {
    while !to.is_empty() {
        match device.read_at(to, from)? {
            0 => break,
            read => {
                from += read as u64;
                to = to.get_mut(read..).unwrap_or_default();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(size: u64, file_offset: u64) -> RegionInfo {
        RegionInfo { size, file_offset, mappable: Vec::new() }
    }

    #[test]
    fn sizes_are_those_that_a_bar_can_have() {
        for (size, expected) in [
            (0, 0),
            (1, 2048),
            (2048, 2048),
            (0x9800, 0x1_0000),
            (LARGEST, LARGEST),
            (LARGEST + 1, 0),
            (u64::MAX, 0),
        ] {
            assert_eq!(Rom::new(region(size, 0)).size(), expected, "{size:#x}");
        }
    }

    #[test]
    fn it_is_read_once_and_all_ones_behind_its_end() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.write_all_at(&[0x55, 0xaa, 1, 2], 100).unwrap();
        let rom = Rom::new(region(4, 100));
        let mut data = [0; 4];
        rom.read(&file, 0, &mut data).unwrap();
        assert_eq!(data, [0x55, 0xaa, 1, 2]);
        file.write_all_at(&[0; 4], 100).unwrap();
        rom.read(&file, 2, &mut data).unwrap();
        assert_eq!(data, [1, 2, 0xff, 0xff]);
        rom.read(&file, u64::MAX, &mut data[..1]).unwrap();
        assert_eq!(data[0], 0xff);
    }

    #[test]
    fn one_that_cannot_be_read_fails_once() {
        let directory = File::open("/").unwrap();
        let rom = Rom::new(region(2048, 0));
        let mut data = [0; 4];
        assert!(rom.read(&directory, 0, &mut data).is_err());
        assert_eq!(data, [0xff; 4]);
        data = [0; 4];
        assert!(rom.read(&directory, 0, &mut data).is_ok());
        assert_eq!(data, [0xff; 4]);
    }
}
