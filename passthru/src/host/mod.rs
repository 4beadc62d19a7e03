//! The host's side: what carries out what a guest asks of a function.
//!
//! [`HostFunction`] speaks in what the guest asked for (*arm vector n with this message*, *map this range of a BAR
//! there*), because not every host kernel works in file descriptors and DMA map calls: illumos' `ppt` delivers
//! vectors itself and has the whole guest memory in its IOMMU domain. What a host cannot do is data, in its
//! [`Report`].

#[cfg(target_os = "linux")]
pub mod eventfd;
mod pending;
pub mod ppt;
#[cfg(target_os = "linux")]
pub mod simulated;
#[cfg(target_os = "linux")]
pub mod vfio;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::pci::registers::VENDOR_ID;
use crate::ports::{MsiMessage, PortError};

pub use crate::pci::bar::{COUNT as BARS, ROM};
pub use pending::PendingBits;

/// What a function is, as its host finds it when it is opened.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Configuration space: 256 bytes, or 4096 when the extended part can be read. Shorter is padded with zeros.
    pub config: Vec<u8>,
    /// The BARs, by index. The upper half of a 64-bit BAR is empty.
    pub bars: [Region; BARS],
    /// The expansion ROM; accesses to it name BAR [`ROM`].
    pub rom: Region,
}

/// The memory or ports behind a BAR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Bytes, 0 when there is nothing.
    pub size: u64,
    /// The ranges that [`HostFunction::map`] can map, page-aligned and ascending. That of a BAR that is smaller than a page
    /// is the whole page, where nothing else of the host is in it.
    pub mappable: Vec<Range<u64>>,
    /// What is not mapped can be read and written by [`HostFunction::bar_read`] and [`HostFunction::bar_write`].
    pub accessible: bool,
}

/// How a function's vectors reach the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The host signals an eventfd; the hypervisor turns that into an interrupt. Masked vectors can be watched.
    Eventfd,
    /// The host's kernel injects the message itself.
    Kernel,
}

/// How the guest's memory comes within reach of a function's DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaReach {
    /// Regions are mapped and unmapped by calls.
    Mapped,
    /// All of the guest's memory, which must be wired, from attach to detach.
    WholeGuest,
    /// The host function runs in this process and reaches memory as the VMM does.
    InProcess,
}

/// How a function is reset. The first that a function has is used, in this order, which is the kernel's
/// (`pci_reset_fn_methods` in `drivers/pci/pci.c`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetMethod {
    /// In a way of its own that the host knows: a device-specific or firmware method, or a simulated function's.
    Own,
    /// Function-level reset by PCI Express (PCIe 6.0 §6.6.2).
    FunctionLevel,
    /// Function-level reset by the Advanced Features capability (PCI SIG ECN "Advanced Capabilities for Conventional
    /// PCI").
    AdvancedFeatures,
    /// By the way from D3hot to D0, which loses the function's state (PCIe 6.0 §5.3.1.4).
    Power,
    /// By its bus, on which it is alone, or by its slot.
    Bus,
    /// By its bus, together with these functions, which belong to the same VM.
    BusWith(Arc<[Arc<str>]>),
    /// By the host itself when it gives the function to a VM and takes it back, and at no other time.
    AtAttach,
}

impl fmt::Display for ResetMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResetMethod::Own => f.write_str("device-specific"),
            ResetMethod::FunctionLevel => f.write_str("FLR"),
            ResetMethod::AdvancedFeatures => f.write_str("AF-FLR"),
            ResetMethod::Power => f.write_str("PM (D3hot to D0)"),
            ResetMethod::Bus => f.write_str("bus"),
            ResetMethod::BusWith(others) => write!(f, "bus, together with {}", others.join(", ")),
            ResetMethod::AtAttach => f.write_str("by the host at attach and detach"),
        }
    }
}

/// What a host can do with a function: for an embedder to print and to branch on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How vectors reach the guest.
    pub delivery: Delivery,
    /// INTx can be delivered.
    pub intx: bool,
    /// MSI vectors there are; 0 without MSI.
    pub msi: u16,
    /// MSI vectors can be masked one by one.
    pub msi_masking: bool,
    /// MSI-X vectors there are; 0 without MSI-X.
    pub msix: u16,
    /// A further MSI-X vector can be armed while others are live.
    pub dynamic_msix: bool,
    /// MSI-X pending bits can be kept where the guest reads them: see [`HostFunction::keep_pending`].
    pub keeps_pending: bool,
    /// How DMA reaches the guest's memory.
    pub dma: DmaReach,
    /// Mappings of BAR ranges that can exist at once; nothing when there is no such limit.
    pub mappings: Option<u32>,
    /// Mappings start and end on multiples of this many bytes.
    pub granularity: u64,
    /// Power states can be passed on: D3hot takes its BARs away, and D0 brings it back with the registers it had.
    pub power_states: bool,
    /// How it can be reset; nothing when it cannot.
    pub reset: Option<ResetMethod>,
    /// The host tells of errors that it finds (AER).
    pub error_events: bool,
    /// The host tells when it wants the function back.
    pub request_events: bool,
}

impl Report {
    /// [`HostFunction::reset`] works at any time.
    pub fn can_reset(&self) -> bool {
        self.reset.as_ref().is_some_and(|method| *method != ResetMethod::AtAttach)
    }

    /// [`HostFunction::reset`] works at any time and touches no other function.
    pub fn resets_alone(&self) -> bool {
        self.can_reset() && !matches!(self.reset, Some(ResetMethod::BusWith(_)))
    }
}

/// Part of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BarRange {
    /// BAR 0 to 5.
    pub bar: u8,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl fmt::Display for BarRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BAR {} {:#x}..{:#x}", self.bar, self.offset, self.offset.saturating_add(self.len))
    }
}

/// The two kinds of message interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// MSI, 1 to 32 vectors.
    Msi,
    /// MSI-X, 1 to 2048 vectors.
    Msix,
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MessageKind::Msi => "MSI",
            MessageKind::Msix => "MSI-X",
        })
    }
}

/// What a vector is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorState {
    /// Delivered to the guest as this message.
    Armed(MsiMessage),
    /// Was armed; what the function signals now is kept until it is armed again.
    Masked,
}

/// A vector and what it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorChange {
    /// Vector number, from 0.
    pub vector: u16,
    /// What it is to be.
    pub state: VectorState,
}

/// What a host tells of a function by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The function failed in a way that its error reporting calls uncorrectable (AER); what it does now is undefined.
    Error,
    /// The host wants the function back, and waits for it.
    Request,
}

/// Hears of [`HostEvent`]s. Called on the VMM's event loop; takes no lock and returns at once.
pub type Listener = Arc<dyn Fn(HostEvent) + Send + Sync>;

/// A call to the host that failed.
#[derive(Debug, thiserror::Error)]
#[error("{device}: {operation}: {source}")]
pub struct HostError {
    /// The function, as the host names it.
    pub device: Arc<str>,
    /// What was tried.
    pub operation: Operation,
    /// Why it failed.
    #[source]
    pub source: Cause,
}

/// Why a call to the host failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The host's errno.
    #[error(transparent)]
    Host(#[from] io::Error),
    /// The VMM, through one of its ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// It can only be reset together with these functions, not all of which are to be.
    #[error("it can only be reset together with {}", .0.join(", "))]
    OnlyWith(Arc<[Arc<str>]>),
    /// illumos' ppt.
    #[error(transparent)]
    Ppt(ppt::Refusal),
}

impl Cause {
    /// The errno behind it, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Cause::Host(error) | Cause::Port(PortError { source: error, .. }) => error.raw_os_error(),
            Cause::OnlyWith(_) => None,
            Cause::Ppt(refusal) => refusal.source.raw_os_error(),
        }
    }
}

/// What was tried when a [`HostError`] came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Operation {
    /// Reading configuration space.
    #[error("read of {len} bytes of configuration space at {offset:#x}")]
    ConfigRead {
        /// First byte.
        offset: u16,
        /// Bytes.
        len: usize,
    },
    /// Writing configuration space.
    #[error("write of {len} bytes of configuration space at {offset:#x}")]
    ConfigWrite {
        /// First byte.
        offset: u16,
        /// Bytes.
        len: usize,
    },
    /// Reading a BAR.
    #[error("read of {0}")]
    BarRead(BarRange),
    /// Writing a BAR.
    #[error("write of {0}")]
    BarWrite(BarRange),
    /// Mapping part of a BAR into the guest.
    #[error("map of {range} at guest address {guest:#x}")]
    Map {
        /// The part.
        range: BarRange,
        /// Guest-physical address.
        guest: u64,
    },
    /// Unmapping part of a BAR.
    #[error("unmap of {range} from guest address {guest:#x}")]
    Unmap {
        /// The part.
        range: BarRange,
        /// Guest-physical address.
        guest: u64,
    },
    /// Arming or masking a vector.
    #[error("{kind} vector {vector}")]
    Vector {
        /// MSI or MSI-X.
        kind: MessageKind,
        /// The vector.
        vector: u16,
    },
    /// Turning a kind of interrupt off.
    #[error("turning {0} off")]
    DisableVectors(MessageKind),
    /// Turning INTx on or off.
    #[error("turning INTx {}", if *.0 { "on" } else { "off" })]
    Intx(bool),
    /// Resetting the function.
    #[error("reset")]
    Reset,
    /// Listening to what the host tells by itself.
    #[error("listening to {0:?} events")]
    Listen(HostEvent),
}

/// A host's function. Its calls may come from several threads at once, except that those which change a thing come
/// one after the other: vectors under the function's lock, mappings under the address space's.
pub trait HostFunction: Send + Sync {
    /// How the host names it, for messages: `0000:01:00.0`.
    fn name(&self) -> &Arc<str>;
    /// What it is.
    fn description(&self) -> &Description;
    /// What the host can do with it.
    fn report(&self) -> &Report;

    /// Reads 1, 2 or 4 bytes of the physical configuration space.
    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), HostError>;
    /// Writes 1, 2 or 4 bytes of the physical configuration space.
    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError>;
    /// Reads 1 to 8 bytes of a BAR, or of the expansion ROM, which is BAR [`ROM`].
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError>;
    /// Writes 1 to 8 bytes of a BAR.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError>;

    /// Makes part of a memory BAR, inside one of its [`Region::mappable`] ranges, appear at a guest-physical address,
    /// and within reach of other functions' DMA where the IOMMU allows that. After an error nothing of it is there.
    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError>;
    /// Takes away what [`HostFunction::map`] put there. When it returns, no vCPU reaches it any more. After an error it may
    /// still be there, or part of it, such as other functions' way to it, and the call can be made again.
    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError>;

    /// An access to what is mapped of it would be answered: it is there, decodes memory and is in D0.
    fn answers(&self) -> bool {
        let mut vendor = [0xff; 2];
        self.config_read(VENDOR_ID, &mut vendor).is_ok() && vendor != [0xff; 2]
    }

    /// Turns a kind of vectors on, if it is not yet, `count` of them, and makes those that are given what they are to be.
    /// Without any the function's enable bit is set and no vector armed, which a function may well take note of. `count`
    /// stays the same while the kind is on; with MSI it is what the guest has enabled, and the messages of its vectors
    /// differ in the low bits of their data only, which number them. All is done with one commit of routes and as few calls
    /// to the host's kernel as it allows, live when this returns. The errors name the vectors that failed, which then
    /// stay silent; the others are done.
    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError>;
    /// Takes all vectors of a kind down; signals that were kept are dropped.
    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError>;
    /// A masked vector has been signalled. For who reads pending bits by an exit. Vectors that were never armed are not watched: theirs is the function's
    /// own pending bit.
    fn is_pending(&self, kind: MessageKind, vector: u16) -> bool;

    /// Keeps `bits` what [`HostFunction::is_pending`] says of MSI-X vectors from now on: set within a turn of the VMM's event
    /// loop after the signal, and clear by the time that the vector is delivered or taken down. Only where
    /// [`Report::keeps_pending`] says so, once, and before any vector is set. A host that cannot, now or later, says so by
    /// [`PendingBits::give_up`]: then the guest's reads exit.
    fn keep_pending(&self, bits: Arc<PendingBits>) {
        bits.give_up();
    }

    /// Calls to the host's kernel so far that set vectors up or took them down, for measuring.
    fn vector_calls(&self) -> u64 {
        0
    }

    /// Turns INTx on or off; only where [`Report::intx`] says so, and only while no kind of vectors is on. While it is on,
    /// the line that the VMM has for the function's pin is up as long as the function asserts it, except while the
    /// function's own command register disables INTx.
    fn set_intx(&self, on: bool) -> Result<(), HostError>;

    /// Lets `listener` hear of the events that [`Report::error_events`] and [`Report::request_events`] promise, from now
    /// until the function is closed.
    fn listen(&self, listener: Listener) -> Result<(), HostError>;

    /// What is trapped of a BAR answers at this guest address from now on, or, with nothing, does no longer. A host of which
    /// some writes only signal attaches those ([`EventPort::attach_doorbell`](crate::ports::EventPort::attach_doorbell)), and
    /// they take no exit. Told before the BAR goes and after it came.
    fn answers_at(&self, _bar: u8, _guest: Option<u64>) {}

    /// Brings the function to the state it has after power-on, but for configuration registers that the host keeps.
    /// Only where [`Report::can_reset`] says so; takes 100 ms and more (PCIe 6.0 §6.6.2). Nothing of it is mapped
    /// and no vector on meanwhile; calls that come all the same may fail.
    fn reset(&self) -> Result<(), HostError>;

    /// Whether a reset now would change nothing: the host's kernel reset the function when it was opened, as Linux does for
    /// VFIO (`vfio_pci_core_enable`), and nothing was asked of it since. True once at most; asked before it is attached.
    fn is_fresh(&self) -> bool {
        false
    }
}
