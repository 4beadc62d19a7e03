//! An iommufd with one I/O address space, and the devices bound to it: what newer kernels have in the place of
//! containers and groups.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iommufd_bindings::iommufd::*;
use iommufd_ioctls::{IommuFd, IommufdError, IommufdIoas};
use parking_lot::Mutex;

use super::OpenError;
use super::busy;
use super::ioctl::iommufd as ioctl;
use super::sysfs::{self, SysfsFunction};
use crate::ports::EventPort;

/// The device file of iommufd.
const IOMMU: &str = "/dev/iommu";
/// Where the kernel has the device files of functions.
const DEVICES: &str = "/dev/vfio/devices";

pub struct Iommufd {
    iommufd: Arc<IommuFd>,
    ioas: IommufdIoas,
    /// The guest's memory is mapped.
    mapped: Mutex<bool>,
}

/// This process can open an iommufd and the device files of all these functions.
pub fn is_usable(functions: &[&SysfsFunction]) -> bool {
    is_openable(Path::new(IOMMU))
        && functions.iter().all(|f| device_file(f).is_some_and(|path| is_openable(&path)))
}

fn is_openable(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the kernel reads a string that ends with a zero byte.
    unsafe { libc::access(path.as_ptr(), libc::R_OK | libc::W_OK) == 0 }
}

fn device_file(function: &SysfsFunction) -> Option<PathBuf> {
    Some(Path::new(DEVICES).join(function.cdev.as_deref()?))
}

/// Opens the device file of a function, or takes it over.
pub fn open_device(function: &SysfsFunction) -> Result<File, OpenError> {
    let address = function.address;
    if let Some(fd) = function.file {
        return sysfs::take_over(fd).map_err(|source| OpenError::NoDevice { fd, source });
    }
    let path = device_file(function).ok_or(OpenError::NoDeviceFile { address })?;
    let file = OpenOptions::new().read(true).write(true).open(&path);
    file.map_err(|source| OpenError::DeviceFile { address, path, source })
}

impl Iommufd {
    /// A new one, without devices; `fd` is an open `/dev/iommu` that this process was started with.
    pub fn open(fd: Option<RawFd>) -> Result<Iommufd, OpenError> {
        let file = match fd {
            Some(fd) => sysfs::take_over(fd),
            None => OpenOptions::new().read(true).write(true).open(IOMMU),
        };
        let iommufd = Arc::new(IommuFd::new_from_fd(file.map_err(|source| OpenError::Iommufd { source })?));
        let ioas = IommufdIoas::new(iommufd.clone());
        let ioas = ioas.map_err(|error| OpenError::Iommufd { source: errno(error) })?;
        Ok(Iommufd { iommufd, ioas, mapped: Mutex::new(false) })
    }

    /// Takes a device in, of which the hypervisor knows already. The kernel opens the function with this, and resets it, which
    /// takes long.
    pub fn enter(&self, function: &SysfsFunction, device: &File) -> Result<(), OpenError> {
        let address = function.address;
        let call = |call| move |source| OpenError::Call { address, call, source };
        let bound = busy::retried(&[libc::EAGAIN], || ioctl::bind(device, &*self.iommufd));
        bound.map_err(|source| bind_error(function, source))?;
        ioctl::attach(device, self.ioas.id()).map_err(call("VFIO_DEVICE_ATTACH_IOMMUFD_PT"))
    }

    /// Makes the guest's memory reachable by `map_memory`, which is given the addresses that the IOMMU translates, unless it
    /// is already. A device has entered.
    pub fn map_once(
        &self,
        function: &SysfsFunction,
        map_memory: impl FnOnce(Vec<Range<u64>>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let (address, call) = (function.address, "IOMMU_IOAS_IOVA_RANGES");
        let mut mapped = self.mapped.lock();
        if !*mapped {
            let usable = ioctl::iova_ranges(&*self.iommufd, self.ioas.id());
            let usable = usable.map_err(|source| OpenError::Call { address, call, source })?;
            // What was mapped before a failure would be in the way of another attempt.
            map_memory(usable).inspect_err(|_| drop(self.ioas.unmap(0, u64::MAX)))?;
            *mapped = true;
        }
        Ok(())
    }

    /// Lets the IOMMU translate `guest`, and what follows it, to memory of this process.
    ///
    /// # Safety
    /// The memory stays mapped in this process until [`Iommufd::unmap`], or until this and all devices in it are gone.
    pub unsafe fn map(&self, guest: u64, host: *mut u8, len: u64) -> io::Result<()> {
        let map = iommu_ioas_map {
            size: size_of::<iommu_ioas_map>() as u32,
            flags: iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
                | iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE
                | iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE,
            ioas_id: self.ioas.id(),
            __reserved: 0,
            user_va: host as u64,
            length: len,
            iova: guest,
        };
        self.iommufd.map_iommu_ioas(&map).map_err(errno)
    }

    /// Undoes [`Iommufd::map`].
    pub fn unmap(&self, guest: u64, len: u64) -> io::Result<()> {
        self.ioas.unmap(guest, len).map_err(errno)
    }
}

/// Tells the hypervisor of a device before it is bound: it then knows whether the guest's WBINVD and memory types count. What
/// is told of must [`leave`].
pub fn announce(function: &SysfsFunction, device: &File, events: &dyn EventPort) -> Result<(), OpenError> {
    let address = function.address;
    events.register_file(device.as_fd()).map_err(|source| OpenError::Port { address, source })
}

/// A device is about to be closed. The kernel unbinds it when nobody has its file any more, the hypervisor included.
pub fn leave(device: &File, events: &dyn EventPort) {
    events.unregister_file(device.as_fd());
}

fn bind_error(function: &SysfsFunction, source: io::Error) -> OpenError {
    let address = function.address;
    // EPERM: somebody else owns the DMA of the group (`iommu_device_claim_dma_owner`); EBUSY: its group is open; EINVAL, among
    // others: its file is open elsewhere.
    let members = match (source.raw_os_error(), function.group) {
        (Some(libc::EPERM), Some(_)) => sysfs::offenders(address),
        _ => Vec::new(),
    };
    match function.group {
        Some(group) if !members.is_empty() => OpenError::GroupNotViable { address, group, members },
        _ => OpenError::Bind { address, source },
    }
}

fn errno(error: IommufdError) -> io::Error {
    match error {
        IommufdError::IommuIoasAlloc(error)
        | IommufdError::IommuIoasMap(error)
        | IommufdError::IommuIoasUnmap(error) => io::Error::from_raw_os_error(error.errno()),
        IommufdError::OpenIommufd(error) => error,
        other => io::Error::other(other),
    }
}
