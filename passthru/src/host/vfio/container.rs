//! Container and groups: what lies between a function and its IOMMU.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use log::{debug, info};
use parking_lot::Mutex;
use vfio_ioctls::{VfioContainer, VfioError};

use super::OpenError;
use super::ioctl;
use super::sysfs::{self, SysfsFunction};
use crate::pci::HostAddress;
use crate::ports::{DmaRegion, Ports};

/// The IOMMU's view of a guest: all its memory, at its guest-physical addresses, and mapped BARs. One for all
/// functions of a VM.
pub struct Container {
    vfio: VfioContainer,
    ports: Ports,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    groups: HashMap<u32, Weak<Group>>,
    /// A BAR could not be put within reach of other functions' DMA, and that was said.
    peer_refused: bool,
}

/// A group that is in a container. It leaves when the last of its functions is closed.
pub struct Group {
    id: u32,
    file: File,
    container: Arc<Container>,
}

impl Container {
    /// A new container, without groups.
    pub fn open(ports: Ports) -> Result<Arc<Container>, OpenError> {
        let vfio = VfioContainer::new(None).map_err(|source| OpenError::Container { source })?;
        Ok(Arc::new(Container { vfio, ports, state: Mutex::default() }))
    }

    /// What the VMM gives.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The group of a function, opened and in this container. With the first one the guest's memory is mapped for
    /// DMA.
    pub fn group(self: &Arc<Self>, function: &SysfsFunction) -> Result<Arc<Group>, OpenError> {
        let address = function.address;
        let id = function.group.ok_or(OpenError::NoGroup { address })?;
        let mut state = self.state.lock();
        if let Some(group) = state.groups.get(&id).and_then(Weak::upgrade) {
            return Ok(group);
        }
        let call = |call| move |source| OpenError::Call { address, call, source };
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
        // From here on dropping the group undoes what was done.
        let group = Arc::new(Group { id, file, container: self.clone() });
        if state.groups.values().all(|group| group.strong_count() == 0) {
            ioctl::set_iommu(&self.vfio).map_err(call("VFIO_SET_IOMMU"))?;
            self.map_memory(address)?;
        }
        // The hypervisor learns of the group before a device of it is opened: it then knows whether the guest's
        // WBINVD and memory types count.
        self.ports
            .events
            .register_file(group.file.as_fd())
            .map_err(|source| OpenError::Port { address, source })?;
        state.groups.insert(id, Arc::downgrade(&group));
        Ok(group)
    }

    fn map_memory(&self, address: HostAddress) -> Result<(), OpenError> {
        let usable = ioctl::iova_ranges(&self.vfio).map_err(|source| OpenError::Call {
            address,
            call: "VFIO_IOMMU_GET_INFO",
            source,
        })?;
        for region in self.ports.memory.dma_regions() {
            let DmaRegion { guest, host, len, .. } = region;
            let range = guest..guest.saturating_add(len);
            if !usable.is_empty() && !usable.iter().any(|u| u.start <= range.start && range.end <= u.end) {
                return Err(OpenError::IovaRange { address, range, usable });
            }
            self.map(guest, host, len).map_err(|source| match source.raw_os_error() {
                Some(libc::ENOMEM) => {
                    OpenError::MemoryLock { address, len, limit: memory_lock_limit(), source }
                }
                _ => OpenError::DmaMap { address, range, source },
            })?;
        }
        Ok(())
    }

    fn map(&self, guest: u64, host: *mut u8, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the regions are the guest's memory and BARs, to which this process has no Rust references, and which
        // stay mapped in it until the container unmaps them or goes.
        unsafe { self.vfio.vfio_dma_map(guest, len, host) }.map_err(errno)
    }

    /// Puts a BAR that is mapped at `guest` within reach of the other functions' DMA. Not every IOMMU can: then that
    /// is said once, and nothing else changes.
    pub fn map_peer(&self, device: &str, guest: u64, host: *mut u8, len: u64) -> bool {
        match self.map(guest, host, len) {
            Ok(()) => true,
            Err(error) => {
                if !std::mem::replace(&mut self.state.lock().peer_refused, true) {
                    info!(
                        "{device}: other functions of this guest cannot reach its BARs by DMA (peer-to-peer): the \
                         IOMMU refused to map {guest:#x}: {error}. Everything else works."
                    );
                }
                debug!("{device}: VFIO_IOMMU_MAP_DMA of {len:#x} bytes of a BAR at {guest:#x}: {error}");
                false
            }
        }
    }

    /// Undoes [`Container::map_peer`].
    pub fn unmap_peer(&self, device: &str, guest: u64, len: u64) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if let Err(error) = self.vfio.vfio_dma_unmap(guest, len).map_err(errno) {
            debug!("{device}: VFIO_IOMMU_UNMAP_DMA of {len:#x} bytes of a BAR at {guest:#x}: {error}");
        }
    }
}

impl Group {
    /// Opens a device of this group.
    pub fn open_device(&self, address: HostAddress) -> Result<File, OpenError> {
        ioctl::get_device(&self.file, &address.to_string()).map_err(|source| OpenError::Call {
            address,
            call: "VFIO_GROUP_GET_DEVICE_FD",
            source,
        })
    }

    /// The container that it is in.
    pub fn container(&self) -> &Arc<Container> {
        &self.container
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.container.ports.events.unregister_file(self.file.as_fd());
        // The container's mappings end when its last group leaves it.
        if let Err(error) = ioctl::unset_container(&self.file) {
            debug!("group {}: VFIO_GROUP_UNSET_CONTAINER: {error}", self.id);
        }
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

fn memory_lock_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } {
        0 => limit.rlim_cur,
        _ => 0,
    }
}
