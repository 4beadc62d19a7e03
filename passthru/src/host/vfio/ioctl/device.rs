//! What a device says of itself, its regions, and its own reset.

use std::fs::File;
use std::io;
use std::ops::Range;

use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::ioctl_io_nr;

use super::{check, get_u32, get_u64, info_capabilities, put_u32, query};

ioctl_io_nr!(VFIO_DEVICE_GET_INFO, VFIO_TYPE.into(), VFIO_BASE + 7);
ioctl_io_nr!(VFIO_DEVICE_GET_REGION_INFO, VFIO_TYPE.into(), VFIO_BASE + 8);
ioctl_io_nr!(VFIO_DEVICE_RESET, VFIO_TYPE.into(), VFIO_BASE + 11);
ioctl_io_nr!(VFIO_DEVICE_FEATURE, VFIO_TYPE.into(), VFIO_BASE + 17);

/// What a device says of itself.
pub fn info(device: &File) -> io::Result<vfio_device_info> {
    let mut info =
        vfio_device_info { argsz: size_of::<vfio_device_info>() as u32, ..vfio_device_info::default() };
    // SAFETY: the kernel writes at most `argsz` bytes, the size of the struct.
    check(unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_GET_INFO(), &mut info) })?;
    Ok(info)
}

/// A region of a device: where it is in the device's file, and what may be mapped of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionInfo {
    /// Bytes; 0 when the device does not have it.
    pub size: u64,
    /// Where it starts in the device's file.
    pub file_offset: u64,
    /// What may be mapped.
    pub mappable: Vec<Range<u64>>,
}

/// The region with this number. One that the kernel does not know (EINVAL) is one that the device does not have.
pub fn region(device: &File, index: u32) -> io::Result<RegionInfo> {
    let first = size_of::<vfio_region_info>();
    let mut header = vec![0u8; first];
    put_u32(&mut header, 0, first as u32);
    put_u32(&mut header, 8, index);
    let info = match query(device, VFIO_DEVICE_GET_REGION_INFO(), header) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(RegionInfo::default()),
        other => other?,
    };
    let (flags, size) = (get_u32(&info, 4), get_u64(&info, 16));
    let mut mappable = Vec::new();
    if flags & VFIO_REGION_INFO_FLAG_MMAP != 0 {
        mappable.push(0..size);
    }
    if flags & VFIO_REGION_INFO_FLAG_CAPS != 0 {
        for (id, at) in info_capabilities(&info, get_u32(&info, 12)) {
            if u32::from(id) == VFIO_REGION_INFO_CAP_SPARSE_MMAP {
                let areas = (0..get_u32(&info, at + 8) as usize).map_while(|n| {
                    let area = at + 16 + 16 * n;
                    let (offset, len) = (get_u64(&info, area), get_u64(&info, area + 8));
                    (area + 16 <= info.len()).then(|| offset..offset.saturating_add(len).min(size))
                });
                mappable = areas.filter(|a| a.start < a.end).collect();
                mappable.sort_by_key(|a| a.start);
            }
        }
    }
    Ok(RegionInfo { size, file_offset: get_u64(&info, 24), mappable })
}

/// Resets a device that says it can be.
pub fn reset(device: &File) -> io::Result<()> {
    // SAFETY: the call takes no argument.
    check(unsafe { ioctl(device, VFIO_DEVICE_RESET()) }).map(drop)
}

/// The kernel has power states under control: BARs of a function in D3hot are neither mapped nor reached, and its
/// registers are restored in D0. That came with Linux 5.19; the call that is probed here, with 6.1.
pub fn handles_power_states(device: &File) -> bool {
    let feature = vfio_device_feature {
        argsz: size_of::<vfio_device_feature>() as u32,
        flags: VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
        ..vfio_device_feature::default()
    };
    // SAFETY: the kernel reads `argsz` bytes, the size of the struct; a probe has no data behind it.
    check(unsafe { ioctl_with_ref(device, VFIO_DEVICE_FEATURE(), &feature) }).is_ok()
}
