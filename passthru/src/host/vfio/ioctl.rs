//! VFIO's calls (`linux/vfio.h`), with the errno that they give and none of their pointers.
//!
//! Those of vfio-ioctls are used for the container and its DMA mappings; the others lose errnos, skip regions, or
//! always start at vector 0.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref};
use vmm_sys_util::ioctl_io_nr;

use crate::host::eventfd::Refused;

ioctl_io_nr!(VFIO_SET_IOMMU, VFIO_TYPE.into(), VFIO_BASE + 2);
ioctl_io_nr!(VFIO_GROUP_GET_STATUS, VFIO_TYPE.into(), VFIO_BASE + 3);
ioctl_io_nr!(VFIO_GROUP_SET_CONTAINER, VFIO_TYPE.into(), VFIO_BASE + 4);
ioctl_io_nr!(VFIO_GROUP_UNSET_CONTAINER, VFIO_TYPE.into(), VFIO_BASE + 5);
ioctl_io_nr!(VFIO_GROUP_GET_DEVICE_FD, VFIO_TYPE.into(), VFIO_BASE + 6);
ioctl_io_nr!(VFIO_DEVICE_GET_INFO, VFIO_TYPE.into(), VFIO_BASE + 7);
ioctl_io_nr!(VFIO_DEVICE_GET_REGION_INFO, VFIO_TYPE.into(), VFIO_BASE + 8);
ioctl_io_nr!(VFIO_DEVICE_GET_IRQ_INFO, VFIO_TYPE.into(), VFIO_BASE + 9);
ioctl_io_nr!(VFIO_DEVICE_SET_IRQS, VFIO_TYPE.into(), VFIO_BASE + 10);
ioctl_io_nr!(VFIO_DEVICE_RESET, VFIO_TYPE.into(), VFIO_BASE + 11);
ioctl_io_nr!(VFIO_IOMMU_GET_INFO, VFIO_TYPE.into(), VFIO_BASE + 12);

/// No call answers with more than this; a region's sparse areas and the IOVA ranges of an IOMMU take a few hundred
/// bytes.
const MOST_INFO: usize = 1 << 16;

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Lets a container translate by the host's IOMMU, type 1 version 2. It must have a group.
pub fn set_iommu(container: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the call takes a number.
    check(unsafe {
        vmm_sys_util::ioctl::ioctl_with_val(container, VFIO_SET_IOMMU(), VFIO_TYPE1v2_IOMMU.into())
    })
    .map(drop)
}

/// All members of the group are VFIO's or nobody's.
pub fn group_is_viable(group: &File) -> io::Result<bool> {
    let mut status = vfio_group_status { argsz: size_of::<vfio_group_status>() as u32, flags: 0 };
    // SAFETY: the kernel writes `argsz` bytes, the size of the struct.
    check(unsafe { ioctl_with_mut_ref(group, VFIO_GROUP_GET_STATUS(), &mut status) })?;
    Ok(status.flags & VFIO_GROUP_FLAGS_VIABLE != 0)
}

/// Puts a group into a container.
pub fn set_container(group: &File, container: &impl AsRawFd) -> io::Result<()> {
    let fd = container.as_raw_fd();
    // SAFETY: the kernel reads an int.
    check(unsafe { ioctl_with_ref(group, VFIO_GROUP_SET_CONTAINER(), &fd) }).map(drop)
}

/// Takes a group out of its container.
pub fn unset_container(group: &File) -> io::Result<()> {
    // SAFETY: the call takes no argument.
    check(unsafe { ioctl(group, VFIO_GROUP_UNSET_CONTAINER()) }).map(drop)
}

/// Opens a device of a group that is in a container.
pub fn get_device(group: &File, name: &str) -> io::Result<File> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel reads a string that ends with a zero byte.
    let fd = check(unsafe { ioctl_with_ptr(group, VFIO_GROUP_GET_DEVICE_FD(), name.as_ptr()) })?;
    // SAFETY: the call gave a new descriptor that nobody else has.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// What a device says of itself.
pub fn device_info(device: &File) -> io::Result<vfio_device_info> {
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
pub fn region_info(device: &File, index: u32) -> io::Result<RegionInfo> {
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

/// The addresses that the IOMMU of a container translates; empty when the kernel does not say.
pub fn iova_ranges(container: &impl AsRawFd) -> io::Result<Vec<Range<u64>>> {
    let first = size_of::<vfio_iommu_type1_info>();
    let mut header = vec![0u8; first];
    put_u32(&mut header, 0, first as u32);
    let info = query(container, VFIO_IOMMU_GET_INFO(), header)?;
    let mut ranges = Vec::new();
    if get_u32(&info, 4) & VFIO_IOMMU_INFO_CAPS != 0 {
        for (id, at) in info_capabilities(&info, get_u32(&info, 16)) {
            if u32::from(id) == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE {
                ranges.extend((0..get_u32(&info, at + 8) as usize).map_while(|n| {
                    let range = at + 16 + 16 * n;
                    (range + 16 <= info.len())
                        .then(|| get_u64(&info, range)..get_u64(&info, range + 8).saturating_add(1))
                }));
            }
        }
    }
    Ok(ranges)
}

/// Asks twice: the first answer tells how many bytes the whole one has (`argsz`).
fn query(file: &impl AsRawFd, request: libc::c_ulong, header: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut info = header.clone();
    // SAFETY: the kernel writes at most `argsz` bytes, which the header says is its own length.
    check(unsafe { ioctl_with_mut_ptr(file, request, info.as_mut_ptr()) })?;
    let whole = get_u32(&info, 0) as usize;
    if whole > info.len() && whole <= MOST_INFO {
        info = header;
        info.resize(whole, 0);
        put_u32(&mut info, 0, whole as u32);
        // SAFETY: as above, with the length that the first answer asked for.
        check(unsafe { ioctl_with_mut_ptr(file, request, info.as_mut_ptr()) })?;
    }
    Ok(info)
}

/// Id and offset of each capability in an answer (`struct vfio_info_cap_header`: id, version, next).
fn info_capabilities(info: &[u8], first: u32) -> Vec<(u16, usize)> {
    let mut found: Vec<(u16, usize)> = Vec::new();
    let mut at = first as usize;
    while at != 0 && at + 8 <= info.len() && found.iter().all(|(_, seen)| *seen != at) {
        found.push((get_u32(info, at) as u16, at));
        at = get_u32(info, at + 4) as usize;
    }
    found
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(to) = bytes.get_mut(at..at + 4) {
        to.copy_from_slice(&value.to_ne_bytes());
    }
}

/// Vectors of an interrupt index (`VFIO_PCI_MSI_IRQ_INDEX`, ...) and its flags; none when the device lacks it.
pub fn irq_info(device: &File, index: u32) -> (u16, u32) {
    let mut info =
        vfio_irq_info { argsz: size_of::<vfio_irq_info>() as u32, index, ..vfio_irq_info::default() };
    // SAFETY: the kernel writes at most `argsz` bytes, the size of the struct.
    match check(unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_GET_IRQ_INFO(), &mut info) }) {
        Ok(_) => (u16::try_from(info.count).unwrap_or(u16::MAX), info.flags),
        Err(_) => (0, 0),
    }
}

/// Points the vectors from `first` on at eventfds, or at nothing.
pub fn set_eventfds(
    device: &File,
    index: u32,
    first: u16,
    events: &[Option<BorrowedFd<'_>>],
) -> Result<(), Refused> {
    let fds = events.iter().map(|event| event.map_or(-1, |event| event.as_raw_fd()));
    set_irqs(device, index, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, first, fds)
}

/// Turns an interrupt index off.
pub fn disable_irqs(device: &File, index: u32) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    set_irqs(device, index, flags, 0, std::iter::empty()).map_err(|refused| refused.source)
}

fn set_irqs(
    device: &File,
    index: u32,
    flags: u32,
    first: u16,
    fds: impl ExactSizeIterator<Item = i32>,
) -> Result<(), Refused> {
    // struct vfio_irq_set: argsz, flags, index, start, count, data.
    let header = [0, flags, index, u32::from(first), fds.len() as u32];
    let mut set: Vec<u32> = header.into_iter().chain(fds.map(|fd| fd as u32)).collect();
    let bytes = (set.len() * size_of::<u32>()) as u32;
    if let Some(argsz) = set.first_mut() {
        *argsz = bytes;
    }
    // SAFETY: the kernel reads `argsz` bytes, which is what the vector holds.
    match check(unsafe { ioctl_with_ptr(device, VFIO_DEVICE_SET_IRQS(), set.as_ptr()) })? {
        0 => Ok(()),
        // As many vectors as the host can set up, which is fewer than asked for.
        available => Err(Refused {
            source: io::Error::from_raw_os_error(libc::ENOSPC),
            available: u16::try_from(available).ok(),
        }),
    }
}

/// Resets a device that says it can be.
pub fn reset(device: &File) -> io::Result<()> {
    // SAFETY: the call takes no argument.
    check(unsafe { ioctl(device, VFIO_DEVICE_RESET()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_answers_are_walked_within_bounds() {
        let mut info = vec![0u8; 64];
        put_u32(&mut info, 32, 1 | 1 << 16);
        put_u32(&mut info, 36, 48);
        put_u32(&mut info, 48, 2);
        assert_eq!(info_capabilities(&info, 32), [(1, 32), (2, 48)]);
        put_u32(&mut info, 52, 32);
        assert_eq!(info_capabilities(&info, 32), [(1, 32), (2, 48)], "a cycle ends");
        assert_eq!(info_capabilities(&info, 60), [], "a header that does not fit");
        assert_eq!(info_capabilities(&info, u32::MAX), []);
    }
}
