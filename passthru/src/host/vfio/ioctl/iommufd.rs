//! A device that is opened without a group, and the iommufd that it is bound to.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use iommufd_bindings::iommufd::*;
use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_io_nr;

use super::check;

ioctl_io_nr!(VFIO_DEVICE_BIND_IOMMUFD, VFIO_TYPE.into(), VFIO_BASE + 18);
ioctl_io_nr!(VFIO_DEVICE_ATTACH_IOMMUFD_PT, VFIO_TYPE.into(), VFIO_BASE + 19);
ioctl_io_nr!(IOMMU_IOAS_IOVA_RANGES, IOMMUFD_TYPE as u32, IOMMUFD_CMD_IOAS_IOVA_RANGES);

/// The structures as kernels before 6.16 have them; those ask for no more than that and take longer ones.
const _: () = assert!(std::mem::offset_of!(vfio_device_bind_iommufd, token_uuid_ptr) == 16);
const _: () = assert!(std::mem::offset_of!(vfio_device_attach_iommufd_pt, pasid) == 12);
const _: () = assert!(size_of::<iommu_ioas_iova_ranges>() == 32);

/// Most IOVA ranges that are asked for; an IOMMU has a handful.
const MOST_RANGES: usize = 4096;

/// Gives a device to an iommufd, and with that to this process: it can be used from now on.
pub fn bind(device: &File, iommufd: &impl AsRawFd) -> io::Result<()> {
    let mut bind = vfio_device_bind_iommufd {
        argsz: size_of::<vfio_device_bind_iommufd>() as u32,
        iommufd: iommufd.as_raw_fd(),
        ..vfio_device_bind_iommufd::default()
    };
    // SAFETY: the kernel reads and writes at most `argsz` bytes, the size of the struct.
    check(unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_BIND_IOMMUFD(), &mut bind) }).map(drop)
}

/// Lets a device's DMA go through an I/O address space of the iommufd that it is bound to.
pub fn attach(device: &File, ioas: u32) -> io::Result<()> {
    let mut attach = vfio_device_attach_iommufd_pt {
        argsz: size_of::<vfio_device_attach_iommufd_pt>() as u32,
        pt_id: ioas,
        ..vfio_device_attach_iommufd_pt::default()
    };
    // SAFETY: as above.
    check(unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT(), &mut attach) }).map(drop)
}

/// The addresses that can be mapped in an I/O address space with the devices that are in it.
pub fn iova_ranges(iommufd: &impl AsRawFd, ioas: u32) -> io::Result<Vec<Range<u64>>> {
    let mut entries = 16;
    loop {
        let mut found = vec![iommu_iova_range::default(); entries];
        let request = iommu_ioas_iova_ranges {
            size: size_of::<iommu_ioas_iova_ranges>() as u32,
            ioas_id: ioas,
            num_iovas: entries as u32,
            allowed_iovas: found.as_mut_ptr() as u64,
            ..iommu_ioas_iova_ranges::default()
        };
        let mut answer = request;
        // SAFETY: the kernel writes the struct, and as many entries of the array as it is told that there are.
        let asked = check(unsafe { ioctl_with_mut_ref(iommufd, IOMMU_IOAS_IOVA_RANGES(), &mut answer) });
        let count = answer.num_iovas as usize;
        match asked {
            Ok(_) => {
                let ranges = found.iter().take(count);
                return Ok(ranges.map(|range| range.start..range.last.saturating_add(1)).collect());
            }
            Err(error)
                if error.raw_os_error() == Some(libc::EMSGSIZE)
                    && count > entries
                    && count <= MOST_RANGES =>
            {
                entries = count;
            }
            Err(error) => return Err(error),
        }
    }
}
