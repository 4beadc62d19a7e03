//! What a VMM gives: the traits through which this library reaches a guest's memory, interrupts and events.
//!
//! A VMM implements them once and hands them over in [`Ports`]. Every call may come from a vCPU thread that is in
//! the middle of a trapped access, or from the thread that attaches and detaches functions. Locks of this library may be
//! held meanwhile (a function's own, then the address space's, then the host's), so a port must not call back into it,
//! and must not wait for a thread that does.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::pci::{Slot, Space};

/// A port's call that failed in the VMM.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct PortError {
    /// What was tried.
    pub operation: PortOperation,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// What a port was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortOperation {
    /// [`MemoryPort::map`].
    #[error("mapping {len:#x} bytes at guest address {guest:#x}")]
    Map {
        /// Guest-physical address.
        guest: u64,
        /// Bytes.
        len: u64,
    },
    /// [`MemoryPort::unmap`].
    #[error("unmapping {len:#x} bytes at guest address {guest:#x}")]
    Unmap {
        /// Guest-physical address.
        guest: u64,
        /// Bytes.
        len: u64,
    },
    /// [`MemoryPort::trap`].
    #[error("change of trapped ranges")]
    Trap,
    /// [`InterruptPort::allocate`].
    #[error("a GSI for a vector of {slot}: all {limit} routes are in use")]
    Gsi {
        /// The function.
        slot: Slot,
        /// Routes that there can be.
        limit: u32,
    },
    /// [`InterruptPort::route`].
    #[error("the message {:#x} = {:#x}, which is no interrupt", .0.address, .0.data)]
    Message(MsiMessage),
    /// [`InterruptPort::commit`].
    #[error("setting {routes} interrupt routes")]
    Commit {
        /// How many there are.
        routes: usize,
    },
    /// [`InterruptPort::attach`] or [`InterruptPort::attach_line`].
    #[error("attaching an eventfd to GSI {}", .0.0)]
    Attach(Gsi),
    /// [`InterruptPort::detach`] or [`InterruptPort::detach_line`].
    #[error("detaching an eventfd from GSI {}", .0.0)]
    Detach(Gsi),
    /// [`InterruptPort::set_line`].
    #[error("raising or lowering GSI {}", .0.0)]
    Line(Gsi),
    /// [`EventPort::attach_doorbell`] or [`EventPort::detach_doorbell`].
    #[error("a doorbell of {len} bytes at {space:?} address {address:#x}")]
    Doorbell {
        /// Memory or I/O.
        space: Space,
        /// Address or port.
        address: u64,
        /// Bytes.
        len: u8,
    },
    /// [`EventPort::watch`].
    #[error("watching a file descriptor")]
    Watch,
    /// [`EventPort::register_file`].
    #[error("registering a VFIO file with the hypervisor")]
    RegisterFile,
}

impl PortOperation {
    /// For `map_err`: the operation failed for this reason.
    pub fn failed<E: Into<io::Error>>(self) -> impl FnOnce(E) -> PortError {
        move |source| PortError { operation: self, source: source.into() }
    }
}

/// Part of the guest's memory that a device may reach by DMA.
#[derive(Clone, Debug)]
pub struct DmaRegion {
    /// Guest-physical address, which is also its IOVA.
    pub guest: u64,
    /// Address in this process.
    pub host: *mut u8,
    /// Bytes.
    pub len: u64,
    /// The file that it is mapped from, and where in it, for those that map it into another process.
    pub file: Option<(Arc<File>, u64)>,
}

// SAFETY: the pointer is an address that is handed to the kernel or turned into volatile accesses by whoever maps it;
// it is not dereferenced here.
unsafe impl Send for DmaRegion {}
// SAFETY: as above.
unsafe impl Sync for DmaRegion {}

/// What the guest may do with host memory that is mapped for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes go straight to the memory: a part of a BAR.
    ReadWrite,
    /// Reads go to the memory; writes reach whatever traps the range. For what a guest reads often and this library knows
    /// without asking the function: the pages of MSI-X tables and pending bits, a few for each function. The memory changes
    /// while it is mapped. A KVM memory slot with `KVM_MEM_READONLY` does it; a VMM that has nothing of the kind refuses
    /// with [`io::ErrorKind::Unsupported`], and reads are trapped as well.
    ReadOnly,
}

/// What answers the accesses to a BAR's trapped ranges.
pub trait BarAccess: Send + Sync {
    /// Reads `data.len()` bytes (1 to 8) at byte `offset` of BAR `bar`; what cannot be read is all-ones.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);
    /// Writes `data` (1 to 8 bytes) at byte `offset` of BAR `bar`.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);
}

/// A range of guest addresses whose accesses go to a [`BarAccess`].
#[derive(Clone)]
pub struct Trap {
    /// Memory or I/O ports.
    pub space: Space,
    /// Guest-physical addresses, or ports.
    pub range: Range<u64>,
    /// Who answers.
    pub target: Arc<dyn BarAccess>,
    /// Its place in the guest.
    pub slot: Slot,
    /// Number of the BAR that the range belongs to.
    pub bar: u8,
    /// Offset in that BAR of the range's first byte.
    pub offset: u64,
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trap { space, range, slot, bar, offset, .. } = self;
        write!(f, "{space:?} {:#x}..{:#x} -> {slot} BAR {bar} + {offset:#x}", range.start, range.end)
    }
}

/// The guest's physical address space and I/O ports.
pub trait MemoryPort: Send + Sync {
    /// Makes `len` bytes of this process' memory at `host` appear at guest-physical address `guest`. All three are
    /// multiples of the page size, and nothing else is mapped there. What fails is trapped instead. What is mapped for reads
    /// only is trapped as well, by [`MemoryPort::trap`] of the same range.
    ///
    /// # Safety
    /// The memory stays mapped in this process until [`MemoryPort::unmap`] of the same range has returned.
    unsafe fn map(&self, guest: u64, host: *mut u8, len: u64, access: Access) -> Result<(), PortError>;

    /// Takes away what [`MemoryPort::map`] put at exactly this range. When it returns, no vCPU reaches it any more.
    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError>;

    /// Lets accesses to ranges reach their functions, and others no longer do so, as one change: an access on
    /// another vCPU finds the state before it or after it. `remove` names ranges that were added before.
    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError>;

    /// The memory that devices may reach by DMA. Constant while functions are attached.
    fn dma_regions(&self) -> Vec<DmaRegion>;
}

/// A message's address and data, as a function writes them to signal an interrupt (PCIe 6.0 §6.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MsiMessage {
    /// Where the function writes.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

/// Global system interrupt: the number of an entry in the VMM's interrupt routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gsi(pub u32);

/// Interrupts to the guest.
pub trait InterruptPort: Send + Sync {
    /// A GSI of its own for a message of the function at `slot`.
    fn allocate(&self, slot: Slot) -> Result<Gsi, PortError>;
    /// Gives a GSI back. Its route ends with the next commit.
    fn release(&self, gsi: Gsi);
    /// Says which message `gsi` stands for; takes effect with [`InterruptPort::commit`]. A message that the hypervisor
    /// would refuse, with it all others, is refused here: a guest can write anything.
    fn route(&self, gsi: Gsi, message: MsiMessage) -> Result<(), PortError>;
    /// Makes all changes of routes since the last commit effective, with one call to the hypervisor.
    fn commit(&self) -> Result<(), PortError>;
    /// From now on a signal on the eventfd raises `gsi` without a detour through user space. A count that stands on
    /// the eventfd already is delivered at once.
    fn attach(&self, gsi: Gsi, event: BorrowedFd<'_>) -> Result<(), PortError>;
    /// Undoes [`InterruptPort::attach`]. Each signal up to then has been delivered, and those from then on are counted on
    /// the eventfd; none is both or neither.
    fn detach(&self, gsi: Gsi, event: BorrowedFd<'_>) -> Result<(), PortError>;
    /// The GSI that INTx pin `pin` (1 to 4) of the function at `slot` is wired to. Several may share one.
    fn line(&self, slot: Slot, pin: u8) -> Gsi;
    /// A signal on `trigger` raises the level-triggered `gsi`, which stays raised until the guest's end of interrupt;
    /// then `resample` is signalled. False when the hypervisor cannot do that.
    fn attach_line(
        &self,
        gsi: Gsi,
        trigger: BorrowedFd<'_>,
        resample: BorrowedFd<'_>,
    ) -> Result<bool, PortError>;
    /// The function at `slot` raises or lowers a line, for a hypervisor whose [`InterruptPort::attach_line`] cannot. The
    /// line is up while any of those that share it raises it.
    fn set_line(&self, gsi: Gsi, slot: Slot, raised: bool) -> Result<(), PortError>;
    /// Undoes [`InterruptPort::attach_line`].
    fn detach_line(&self, gsi: Gsi, trigger: BorrowedFd<'_>) -> Result<(), PortError>;
}

/// Names a watch of [`EventPort::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(pub u64);

/// File descriptors that the VMM must know or watch.
pub trait EventPort: Send + Sync {
    /// A guest's write to `address` signals the eventfd and does nothing else: any write when `len` is 0 and `value`
    /// nothing, or a write of this value in 1, 2, 4 or 8 bytes.
    fn attach_doorbell(
        &self,
        space: Space,
        address: u64,
        len: u8,
        value: Option<u64>,
        event: BorrowedFd<'_>,
    ) -> Result<(), PortError>;
    /// Undoes [`EventPort::attach_doorbell`] with the same arguments.
    fn detach_doorbell(
        &self,
        space: Space,
        address: u64,
        len: u8,
        value: Option<u64>,
        event: BorrowedFd<'_>,
    ) -> Result<(), PortError>;
    /// Calls `ready` on the VMM's event loop whenever the descriptor is readable, until it is no longer watched.
    /// `ready` reads the descriptor empty. It does not call [`EventPort::unwatch`], which waits for it, and takes no lock
    /// under which the descriptor's watch begins or ends.
    fn watch(&self, fd: BorrowedFd<'_>, ready: Arc<dyn Fn() + Send + Sync>) -> Result<WatchId, PortError>;
    /// Ends a watch. When it returns, `ready` neither runs nor will run.
    fn unwatch(&self, watch: WatchId);
    /// Tells the hypervisor of a VFIO group or device file, before a device is opened with it, so that it knows of
    /// DMA that is not cache-coherent (`KVM_DEV_VFIO_FILE_ADD`).
    fn register_file(&self, file: BorrowedFd<'_>) -> Result<(), PortError>;
    /// Undoes [`EventPort::register_file`]; nothing happens for a file that was not registered.
    fn unregister_file(&self, file: BorrowedFd<'_>);
}

/// Everything a VMM gives.
#[derive(Clone)]
pub struct Ports {
    /// The guest's physical address space and I/O ports.
    pub memory: Arc<dyn MemoryPort>,
    /// Interrupts to the guest.
    pub interrupts: Arc<dyn InterruptPort>,
    /// File descriptors that the VMM must know or watch.
    pub events: Arc<dyn EventPort>,
}
