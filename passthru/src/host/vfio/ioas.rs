//! The I/O address space of a VM: what its functions reach by DMA.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::{debug, info};
use parking_lot::Mutex;

use super::OpenError;
use super::at_once::{all_or_first_error, at_once};
use super::bars::Peers;
use super::container::{self, Container};
use super::ioctl::hot_reset::{self, Affected, Owner};
use super::iommufd::{self, Iommufd};
use super::sysfs::SysfsFunction;
use crate::pci::HostAddress;
use crate::ports::{DmaRegion, Ports};

/// By which of the kernel's interfaces functions are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// By group and container.
    Group,
    /// By the functions' own device files and iommufd. The number is that of an open `/dev/iommu` that this process was
    /// started with, if it was.
    Cdev(Option<RawFd>),
}

impl Interface {
    /// Device files and iommufd where this process can use them for all these functions, since kernels that have both
    /// will give up groups first; and where one of them is such a file, which has no group.
    pub fn for_all(functions: &[&SysfsFunction]) -> Interface {
        let handed_over = functions.iter().any(|function| function.file.is_some());
        if handed_over || iommufd::is_usable(functions) { Interface::Cdev(None) } else { Interface::Group }
    }
}

/// The IOMMU's view of a guest: all its memory, at its guest-physical addresses, and mapped BARs. One for all
/// functions of a VM.
pub struct Ioas {
    by: By,
    ports: Ports,
    /// Held while functions enter.
    entering: Mutex<()>,
    /// The functions that are open.
    open: Mutex<Vec<HostAddress>>,
    /// A BAR could not be put within reach of other functions' DMA, and that was said.
    peer_refused: AtomicBool,
    mapped: Mutex<Option<Mapped>>,
}

/// The guest's memory, mapped for DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Of guest memory.
    pub bytes: u64,
    /// What the calls took: mostly, to find and pin each page. Of a page that was not there yet, to clear it too.
    pub time: Duration,
}

enum By {
    Container(Container),
    Iommufd(Iommufd),
}

/// A function's place in an [`Ioas`], until this is dropped, after the function's file.
pub struct Membership {
    claim: Claim,
    by: MemberBy,
}

/// A function's file, and its place, which is given up after the file is closed.
pub type Entered = (Arc<File>, Membership);

enum MemberBy {
    Group(u32),
    /// The hypervisor has the file as well until it is told to let go of it.
    Cdev(Arc<File>),
}

impl Ioas {
    /// A new one, without functions.
    pub fn open(ports: Ports, interface: Interface) -> Result<Arc<Ioas>, OpenError> {
        let by = match interface {
            Interface::Group => By::Container(Container::open()?),
            Interface::Cdev(fd) => By::Iommufd(Iommufd::open(fd)?),
        };
        let (entering, open, peer_refused) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Arc::new(Ioas { by, ports, entering, open, peer_refused, mapped: Mutex::default() }))
    }

    /// How the guest's memory was mapped, which is done when the first function enters; the last time, if there was more than
    /// one. Nothing before.
    pub fn mapped(&self) -> Option<Mapped> {
        *self.mapped.lock()
    }

    /// What the VMM gives.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Opens functions, all at once: opening one mostly is waiting for its reset. With the first ones the guest's memory is
    /// mapped for DMA. If something fails nothing is open, and the number says with which function it did.
    pub(super) fn enter(
        self: &Arc<Self>,
        functions: &[&SysfsFunction],
    ) -> Result<Vec<Entered>, (usize, OpenError)> {
        let _entering = self.entering.lock();
        let Some(first) = functions.first().copied() else { return Ok(Vec::new()) };
        let map_memory = |usable| self.map_memory(first.address, usable);
        let numbered = |number| move |error| (number, error);
        match &self.by {
            By::Container(container) => {
                // All groups before the memory is mapped: none can enter meanwhile.
                let mut groups = Vec::new();
                for (number, function) in functions.iter().enumerate() {
                    groups.push(self.group(container, function).map_err(numbered(number))?);
                }
                let open = |number: usize| {
                    let (function, (_, group)) = functions.get(number).zip(groups.get(number))?;
                    Some(container::open_device(group, function.address))
                };
                let (opened, mapped) =
                    at_once(functions.len(), open, || container.map_once(first, map_memory));
                let files = all_or_first_error(opened)?;
                mapped.map_err(numbered(0))?;
                Ok(groups
                    .into_iter()
                    .zip(files)
                    .map(|((member, _), file)| (Arc::new(file), member))
                    .collect())
            }
            By::Iommufd(iommufd) => {
                let mut devices = Vec::new();
                for (number, function) in functions.iter().enumerate() {
                    devices.push(self.device(function).map_err(numbered(number))?);
                }
                let enter = |number: usize| {
                    let (function, (file, _)) = functions.get(number).zip(devices.get(number))?;
                    Some(iommufd.enter(function, file))
                };
                let (entered, ()) = at_once(functions.len(), enter, || ());
                all_or_first_error(entered)?;
                // Before a device is in, it is not known what the IOMMU translates.
                iommufd.map_once(first, map_memory).map_err(numbered(0))?;
                Ok(devices)
            }
        }
    }

    fn group(
        self: &Arc<Self>,
        container: &Container,
        function: &SysfsFunction,
    ) -> Result<(Membership, Arc<File>), OpenError> {
        let address = function.address;
        let claim = Claim::new(self, address)?;
        if function.file.is_some() {
            return Err(OpenError::DeviceFileInContainer { address });
        }
        let (id, file) = container.enter(function, &*self.ports.events)?;
        Ok((Membership { claim, by: MemberBy::Group(id) }, file))
    }

    fn device(self: &Arc<Self>, function: &SysfsFunction) -> Result<Entered, OpenError> {
        let claim = Claim::new(self, function.address)?;
        let file = Arc::new(iommufd::open_device(function)?);
        iommufd::announce(function, &file, &*self.ports.events)?;
        let member = Membership { claim, by: MemberBy::Cdev(file.clone()) };
        Ok((file, member))
    }

    fn map_memory(&self, address: HostAddress, usable: Vec<Range<u64>>) -> Result<(), OpenError> {
        let regions = self.ports.memory.dma_regions();
        // All before the first is mapped, which pins it: that takes long, or more memory than there is.
        for DmaRegion { guest, len, .. } in &regions {
            let range = *guest..guest.saturating_add(*len);
            if !usable.is_empty() && !usable.iter().any(|u| u.start <= range.start && range.end <= u.end) {
                return Err(OpenError::IovaRange { address, range, usable });
            }
        }
        let bytes = regions.iter().map(|region| region.len).sum();
        let begin = Instant::now();
        for DmaRegion { guest, host, len, .. } in regions {
            let range = guest..guest.saturating_add(len);
            self.map(guest, host, len).map_err(|source| match source.raw_os_error() {
                Some(libc::ENOMEM) => {
                    OpenError::MemoryLock { address, len, limit: memory_lock_limit(), source }
                }
                _ => OpenError::DmaMap { address, range, source },
            })?;
        }
        *self.mapped.lock() = Some(Mapped { bytes, time: begin.elapsed() });
        Ok(())
    }

    fn map(&self, guest: u64, host: *mut u8, len: u64) -> io::Result<()> {
        match &self.by {
            // SAFETY: the regions are the guest's memory and BARs, to which this process has no Rust references, and
            // which stay mapped in it until they are unmapped here or no function is left.
            By::Container(container) => unsafe { container.map(guest, host, len) },
            // SAFETY: as above.
            By::Iommufd(iommufd) => unsafe { iommufd.map(guest, host, len) },
        }
    }
}

impl Peers for Ioas {
    /// Not every IOMMU can: that is said once.
    fn map_peer(&self, device: &str, guest: u64, host: *mut u8, len: u64) -> bool {
        match self.map(guest, host, len) {
            Ok(()) => true,
            Err(error) => {
                if !self.peer_refused.swap(true, Ordering::Relaxed) {
                    info!(
                        "{device}: other functions of this guest cannot reach its BARs by DMA (peer-to-peer): the \
                         IOMMU refused to map {guest:#x}: {error}. Everything else works."
                    );
                }
                debug!("{device}: DMA map of {len:#x} bytes of a BAR at {guest:#x}: {error}");
                false
            }
        }
    }

    fn unmap_peer(&self, device: &str, guest: u64, len: u64) -> bool {
        let unmapped = match &self.by {
            By::Container(container) => container.unmap(guest, len),
            By::Iommufd(iommufd) => iommufd.unmap(guest, len),
        };
        if let Err(error) = &unmapped {
            debug!("{device}: DMA unmap of {len:#x} bytes of a BAR at {guest:#x}: {error}");
        }
        unmapped.is_ok()
    }
}

impl Membership {
    pub fn ioas(&self) -> &Arc<Ioas> {
        &self.claim.ioas
    }

    /// The VM has this function open.
    pub fn is_open(&self, address: HostAddress) -> bool {
        self.claim.ioas.open.lock().contains(&address)
    }

    /// The VM may reset this function: nobody else can have it open.
    pub fn may_reset(&self, affected: &Affected) -> bool {
        match (affected.owner, &self.claim.ioas.by) {
            (Owner::Group(id), By::Container(container)) => container.has(id),
            (Owner::Caller, _) => true,
            _ => false,
        }
    }

    /// Resets the bus or slot of `device`, on which there are these functions.
    pub fn hot_reset(&self, device: &File, affected: &[Affected]) -> io::Result<()> {
        match &self.claim.ioas.by {
            By::Iommufd(_) => hot_reset::reset(device, &[]),
            By::Container(container) => {
                let group = |affected: &Affected| match affected.owner {
                    Owner::Group(id) => Some(id),
                    _ => None,
                };
                let mut groups: Vec<u32> = affected.iter().filter_map(group).collect();
                groups.sort_unstable();
                groups.dedup();
                container.hot_reset(device, &groups)
            }
        }
    }
}

/// A function is open once only: who closes one in the guest's name would otherwise take down what another has of it.
struct Claim {
    ioas: Arc<Ioas>,
    address: HostAddress,
}

impl Claim {
    fn new(ioas: &Arc<Ioas>, address: HostAddress) -> Result<Claim, OpenError> {
        let mut open = ioas.open.lock();
        if open.contains(&address) {
            return Err(OpenError::InThisGuest { address });
        }
        open.push(address);
        Ok(Claim { ioas: ioas.clone(), address })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.ioas.open.lock().retain(|address| *address != self.address);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let ioas = &self.claim.ioas;
        let events = &*ioas.ports.events;
        match (&self.by, &ioas.by) {
            (MemberBy::Group(id), By::Container(container)) => container.leave(*id, events),
            (MemberBy::Cdev(file), _) => iommufd::leave(file, events),
            (MemberBy::Group(_), By::Iommufd(_)) => {}
        }
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
