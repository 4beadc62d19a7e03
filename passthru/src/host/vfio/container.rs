//! A container and the groups in it: what lies between a function and its IOMMU in kernels without iommufd.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

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
    groups: Mutex<Groups>,
}

#[derive(Default)]
struct Groups {
    by_id: HashMap<u32, Group>,
    /// The guest's memory is mapped. It is no longer when the last group has left.
    mapped: bool,
}

struct Group {
    file: Arc<File>,
    /// Functions of it that are open, or about to be. It leaves with the last.
    functions: usize,
}

impl Container {
    /// A new one, without groups.
    pub fn open() -> Result<Container, OpenError> {
        let vfio = VfioContainer::new(None).map_err(|source| OpenError::Container { source })?;
        Ok(Container { vfio, groups: Mutex::default() })
    }

    /// Lets a function's group enter, when it is the first of it, and gives the group's number and file. What entered must
    /// leave by [`Container::leave`], once its function's file is gone.
    pub fn enter(
        &self,
        function: &SysfsFunction,
        events: &dyn EventPort,
    ) -> Result<(u32, Arc<File>), OpenError> {
        let address = function.address;
        let id = function.group.ok_or(OpenError::NoGroup { address })?;
        let call = |call| move |source| OpenError::Call { address, call, source };
        let Groups { by_id: groups, .. } = &mut *self.groups.lock();
        if let Some(group) = groups.get_mut(&id) {
            group.functions += 1;
            return Ok((id, group.file.clone()));
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
            }
            // The hypervisor learns of the group before a device of it is opened: it then knows whether the guest's
            // WBINVD and memory types count.
            events.register_file(file.as_fd()).map_err(|source| OpenError::Port { address, source })
        };
        if let Err(error) = prepare() {
            close(id, &file, events);
            return Err(error);
        }
        let file = Arc::new(file);
        groups.insert(id, Group { file: file.clone(), functions: 1 });
        Ok((id, file))
    }

    /// Makes the guest's memory reachable by `map_memory`, which is given the addresses that the IOMMU translates, unless it
    /// is already. A group has entered, and nobody else calls this at the same time.
    pub fn map_once(
        &self,
        function: &SysfsFunction,
        map_memory: impl FnOnce(Vec<Range<u64>>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let address = function.address;
        // Not held meanwhile: it takes long, and functions of other groups may leave.
        if self.groups.lock().mapped {
            return Ok(());
        }
        let call = "VFIO_IOMMU_GET_INFO";
        let usable =
            ioctl::iova_ranges(&self.vfio).map_err(|source| OpenError::Call { address, call, source })?;
        map_memory(usable)?;
        self.groups.lock().mapped = true;
        Ok(())
    }

    /// A function of this group is closed.
    pub fn leave(&self, id: u32, events: &dyn EventPort) {
        let Groups { by_id: groups, mapped } = &mut *self.groups.lock();
        let Some(group) = groups.get_mut(&id) else { return };
        group.functions = group.functions.saturating_sub(1);
        if group.functions == 0
            && let Some(group) = groups.remove(&id)
        {
            close(id, &group.file, events);
            *mapped &= !groups.is_empty();
        }
    }

    /// This group is in the container.
    pub fn has(&self, id: u32) -> bool {
        self.groups.lock().by_id.contains_key(&id)
    }

    /// Resets the bus or slot of `device`, on which there are functions of these groups only.
    pub fn hot_reset(&self, device: &File, ids: &[u32]) -> io::Result<()> {
        let Groups { by_id: groups, .. } = &*self.groups.lock();
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

/// Opens a function of a group that has entered. The kernel resets it, which takes long.
pub fn open_device(group: &File, address: HostAddress) -> Result<File, OpenError> {
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
