//! A container and the groups in it: what lies between a function and its IOMMU in kernels without iommufd.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use log::debug;
use parking_lot::Mutex;
use vfio_ioctls::{VfioContainer, VfioError};

use super::OpenError;
use super::busy;
use super::ioctl::{group as ioctl, hot_reset};
use super::sysfs::{self, SysfsFunction};
use crate::pci::HostAddress;
use crate::ports::EventPort;

pub struct Container {
    vfio: VfioContainer,
    /// Held while a group enters or leaves, so that whoever opens one finds another either in or gone.
    groups: Mutex<HashMap<u32, Group>>,
}

struct Group {
    file: File,
    /// Functions of it that are open. It leaves with the last.
    functions: usize,
}

impl Container {
    /// A new one, without groups.
    pub fn open() -> Result<Container, OpenError> {
        let vfio = VfioContainer::new(None).map_err(|source| OpenError::Container { source })?;
        Ok(Container { vfio, groups: Mutex::default() })
    }

    /// Opens a function, and its group when it is the first of it. With the first group, `map_memory` makes the guest's
    /// memory reachable. What is opened must be closed by [`Container::leave`], once the file is gone.
    pub fn enter(
        &self,
        function: &SysfsFunction,
        events: &dyn EventPort,
        map_memory: impl FnOnce(Vec<Range<u64>>) -> Result<(), OpenError>,
    ) -> Result<(u32, File), OpenError> {
        let address = function.address;
        let id = function.group.ok_or(OpenError::NoGroup { address })?;
        let call = |call| move |source| OpenError::Call { address, call, source };
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get_mut(&id) {
            let device = open_device(&group.file, address)?;
            group.functions += 1;
            return Ok((id, device));
        }
        let path = PathBuf::from(format!("/dev/vfio/{id}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| OpenError::Group { address, path, source })?;
        if !ioctl::group_is_viable(&file).map_err(call("VFIO_GROUP_GET_STATUS"))? {
            let members = sysfs::offenders(address);
            return Err(OpenError::GroupNotViable { address, group: id, members });
        }
        ioctl::set_container(&file, &self.vfio).map_err(call("VFIO_GROUP_SET_CONTAINER"))?;
        let prepare = || {
            if groups.is_empty() {
                ioctl::set_iommu(&self.vfio).map_err(call("VFIO_SET_IOMMU"))?;
                let usable = ioctl::iova_ranges(&self.vfio).map_err(call("VFIO_IOMMU_GET_INFO"))?;
                map_memory(usable)?;
            }
            // The hypervisor learns of the group before a device of it is opened: it then knows whether the guest's
            // WBINVD and memory types count.
            events.register_file(file.as_fd()).map_err(|source| OpenError::Port { address, source })?;
            open_device(&file, address)
        };
        match prepare() {
            Ok(device) => {
                groups.insert(id, Group { file, functions: 1 });
                Ok((id, device))
            }
            Err(error) => {
                close(id, &file, events);
                Err(error)
            }
        }
    }

    /// A function of this group is closed.
    pub fn leave(&self, id: u32, events: &dyn EventPort) {
        let mut groups = self.groups.lock();
        let Some(group) = groups.get_mut(&id) else { return };
        group.functions = group.functions.saturating_sub(1);
        if group.functions == 0
            && let Some(group) = groups.remove(&id)
        {
            close(id, &group.file, events);
        }
    }

    /// This group is in the container.
    pub fn has(&self, id: u32) -> bool {
        self.groups.lock().contains_key(&id)
    }

    /// Resets the bus or slot of `device`, on which there are functions of these groups only.
    pub fn hot_reset(&self, device: &File, ids: &[u32]) -> io::Result<()> {
        let groups = self.groups.lock();
        let files: Option<Vec<BorrowedFd<'_>>> =
            ids.iter().map(|id| groups.get(id).map(|group| group.file.as_fd())).collect();
        hot_reset::reset(device, &files.ok_or(io::ErrorKind::PermissionDenied)?)
    }

    /// Lets the IOMMU translate `guest`, and what follows it, to memory of this process.
    ///
    /// # Safety
    /// The memory stays mapped in this process until [`Container::unmap`], or until the last group has left.
    pub unsafe fn map(&self, guest: u64, host: *mut u8, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the caller's promise; Rust has no references to that memory.
        unsafe { self.vfio.vfio_dma_map(guest, len, host) }.map_err(errno)
    }

    /// Undoes [`Container::map`].
    pub fn unmap(&self, guest: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.vfio.vfio_dma_unmap(guest, len).map_err(errno)
    }
}

fn open_device(group: &File, address: HostAddress) -> Result<File, OpenError> {
    let device = busy::retried(&[libc::EAGAIN], || ioctl::get_device(group, &address.to_string()));
    device.map_err(|source| OpenError::Call { address, call: "VFIO_GROUP_GET_DEVICE_FD", source })
}

fn close(id: u32, group: &File, events: &dyn EventPort) {
    events.unregister_file(group.as_fd());
    // The container's mappings end when its last group leaves it.
    if let Err(error) = ioctl::unset_container(group) {
        debug!("group {id}: VFIO_GROUP_UNSET_CONTAINER: {error}");
    }
}

fn errno(error: VfioError) -> io::Error {
    match error {
        VfioError::IommuDmaMap(error) | VfioError::IommuDmaUnmap(error) => {
            io::Error::from_raw_os_error(error.errno())
        }
        other => io::Error::other(other),
    }
}
