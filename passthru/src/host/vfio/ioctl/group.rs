//! Groups and the container that they are in.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};

use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref};
use vmm_sys_util::ioctl_io_nr;

use super::{check, get_u32, get_u64, info_capabilities, put_u32, query};

ioctl_io_nr!(VFIO_SET_IOMMU, VFIO_TYPE.into(), VFIO_BASE + 2);
ioctl_io_nr!(VFIO_GROUP_GET_STATUS, VFIO_TYPE.into(), VFIO_BASE + 3);
ioctl_io_nr!(VFIO_GROUP_SET_CONTAINER, VFIO_TYPE.into(), VFIO_BASE + 4);
ioctl_io_nr!(VFIO_GROUP_UNSET_CONTAINER, VFIO_TYPE.into(), VFIO_BASE + 5);
ioctl_io_nr!(VFIO_GROUP_GET_DEVICE_FD, VFIO_TYPE.into(), VFIO_BASE + 6);
ioctl_io_nr!(VFIO_IOMMU_GET_INFO, VFIO_TYPE.into(), VFIO_BASE + 12);

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
