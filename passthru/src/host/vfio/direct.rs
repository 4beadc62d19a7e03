//! Accesses to BARs by load and store, for what is trapped although the host would map it: registers that share a page
//! with the MSI-X table, or a page that two small BARs share in the guest. They take no system call, and keep the width
//! that the guest gave them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use log::debug;
use parking_lot::RwLock;

use super::guarded;
use super::ioctl::device::RegionInfo;
use super::mapping::Mapping;

/// What is mapped at once around an access.
const WINDOW: u64 = 64 << 10;
/// Most windows of a function: whoever accesses more has registers in more places than any function has, and goes
/// through the device's file for the rest.
const MOST_WINDOWS: usize = 64;

/// Parts of a device's BARs that are mapped in this process, made when they are accessed first.
#[derive(Default)]
pub struct Direct {
    /// By BAR and offset; nothing where the kernel refused.
    windows: RwLock<BTreeMap<(u8, u64), Option<Mapping>>>,
}

impl Direct {
    /// Reads part of a BAR; nothing happens, and nothing is given, where it cannot be mapped. The range must be inside the
    /// BAR.
    pub fn read(
        &self,
        device: &File,
        bar: u8,
        region: &RegionInfo,
        offset: u64,
        data: &mut [u8],
    ) -> Option<io::Result<()>> {
        let len = data.len();
        // SAFETY: the range is inside a mapping that lives meanwhile, and is a device's memory.
        self.access(device, bar, region, offset, len, |address| unsafe { guarded::read(address, data) })
    }

    /// Writes part of a BAR; nothing happens, and nothing is given, where it cannot be mapped. The range must be inside the
    /// BAR.
    pub fn write(
        &self,
        device: &File,
        bar: u8,
        region: &RegionInfo,
        offset: u64,
        data: &[u8],
    ) -> Option<io::Result<()>> {
        // SAFETY: the range is inside a mapping that lives meanwhile, and is a device's memory.
        self.access(device, bar, region, offset, data.len(), |address| unsafe {
            guarded::write(address, data)
        })
    }

    fn access<T>(
        &self,
        device: &File,
        bar: u8,
        region: &RegionInfo,
        offset: u64,
        len: usize,
        access: impl FnOnce(*mut u8) -> T,
    ) -> Option<T> {
        let end = offset.checked_add(len as u64)?;
        let area = region.mappable.iter().find(|area| area.start <= offset && end <= area.end)?;
        let window = offset / WINDOW * WINDOW;
        let (start, window_end) = (window.max(area.start), window.saturating_add(WINDOW).min(area.end));
        if end > window_end || !guarded::is_available() {
            return None;
        }
        let at = usize::try_from(offset - start).ok()?;
        if let Some(known) = self.windows.read().get(&(bar, start)) {
            return known.as_ref().map(|mapping| access(mapping.address().wrapping_add(at)));
        }
        let mut windows = self.windows.write();
        if windows.len() >= MOST_WINDOWS && !windows.contains_key(&(bar, start)) {
            return None;
        }
        let mapping = windows.entry((bar, start)).or_insert_with(|| {
            let mapping = Mapping::new(device, region.file_offset + start, start, window_end - start);
            mapping.inspect_err(|error| debug!("BAR {bar} {start:#x}: mmap: {error}")).ok()
        });
        mapping.as_ref().map(|mapping| access(mapping.address().wrapping_add(at)))
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A device's file: BAR 0 of 256 KiB at 1 MiB, of which 0x1000..0x3000 cannot be mapped, nor what is behind 0x3f000.
    fn device() -> (File, RegionInfo) {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.set_len(2 << 20).unwrap();
        let mappable = vec![0..0x1000, 0x3000..0x3f000];
        (file, RegionInfo { size: 0x40000, file_offset: 1 << 20, mappable })
    }

    #[test]
    fn what_can_be_mapped_is_accessed_where_it_is_in_the_file() {
        let (file, region) = device();
        let direct = Direct::default();
        for (offset, served) in [
            (0, true),
            (0xff8, true),
            (0xffc, false),
            (0x1000, false),
            (0x2ffc, false),
            (0x3000, true),
            (0xfff8, true),
            (0xfffc, false),
            (0x10000, true),
            (0x3eff8, true),
            (0x3f000, false),
            (u64::MAX - 3, false),
        ] {
            let data = (offset ^ 0x1234_5678_9abc_def0).to_le_bytes();
            let written = direct.write(&file, 0, &region, offset, &data);
            assert_eq!(written.is_some(), served, "{offset:#x}");
            let mut back = [0; 8];
            assert_eq!(direct.read(&file, 0, &region, offset, &mut back).is_some(), served);
            if served {
                let mut there = [0; 8];
                file.read_exact_at(&mut there, (1 << 20) + offset).unwrap();
                assert_eq!((back, there), (data, data), "{offset:#x}");
            }
        }
        assert_eq!(direct.windows.read().len(), 4, "one for each part of 64 KiB that was accessed");
    }

    #[test]
    fn a_device_that_is_gone_is_an_error_and_one_that_refuses_is_not_served() {
        let (file, region) = device();
        let direct = Direct::default();
        direct.write(&file, 0, &region, 0x4000, &[1; 4]).unwrap().unwrap();
        file.set_len(0).unwrap();
        let mut data = [0; 4];
        let error = direct.read(&file, 0, &region, 0x4000, &mut data).unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(direct.write(&file, 0, &region, 0x4000, &data).unwrap().is_err());
        let directory = File::open("/").unwrap();
        for _ in 0..2 {
            assert!(direct.read(&directory, 1, &region, 0, &mut data).is_none());
        }
    }

    #[test]
    fn windows_are_limited_and_those_that_are_there_stay() {
        let (file, _) = device();
        let region = RegionInfo { size: 1 << 40, file_offset: 0, mappable: vec![0..1 << 40] };
        let direct = Direct::default();
        for window in 0..MOST_WINDOWS as u64 + 8 {
            let read = direct.read(&file, 2, &region, window * WINDOW, &mut [0]);
            assert_eq!(read.is_some(), window < MOST_WINDOWS as u64);
        }
        assert!(direct.read(&file, 2, &region, 8, &mut [0]).unwrap().is_ok());
        assert_eq!(direct.windows.read().len(), MOST_WINDOWS);
    }
}
