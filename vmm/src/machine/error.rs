//! Why a machine could not be made or run.

use std::io;
use std::sync::Arc;

use passthru::attached::AttachError;
use passthru::host::HostError;
use passthru::host::ppt;
use passthru::host::simulated::SimulatedError;
use passthru::host::vfio::{NoReset, OpenError};
use passthru::pci::Slot;
use passthru::ports::PortError;

use crate::control_socket::SocketError;
use crate::host::device_records::RecordError;
use crate::kvm::KvmError;
use crate::slot_map::SlotMapError;
use crate::vcpu_options::AffinityError;
use crate::{acpi, boot, console, memory};

/// Why a machine could not be made or run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Kernel or initrd.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// The slot map, with everything that is wrong with it.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    SlotMap(Vec<SlotMapError>),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// KVM, through one of the ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// More processors than KVM runs.
    #[error("{wanted} processors: this KVM runs {most} at most")]
    Cpus {
        /// Asked for.
        wanted: u32,
        /// What there can be.
        most: usize,
    },
    /// vCPUs cannot run where they are to.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
    /// A host function cannot be opened.
    #[error("slot {slot}: {source}")]
    Open {
        /// The slot.
        slot: Slot,
        /// Why.
        source: OpenError,
    },
    /// A function of an illumos host cannot be opened.
    #[error("slot {slot}: {source}")]
    Ppt {
        /// The slot.
        slot: Slot,
        /// Why.
        source: ppt::OpenError,
    },
    /// A simulated function cannot be made.
    #[error("slot {slot}: {source}")]
    Simulated {
        /// The slot.
        slot: Slot,
        /// Why.
        source: SimulatedError,
    },
    /// A function cannot be reset.
    #[error(transparent)]
    Reset(HostError),
    /// A function cannot be attached.
    #[error("slot {slot}: {source}")]
    Attach {
        /// The slot.
        slot: Slot,
        /// Why.
        source: AttachError,
    },
    /// It was required that a function can be reset.
    #[error(
        "slot {slot}: {device} cannot be reset: {source}; it would come to the guest as its last user left it; leave out \
         --require-reset to accept that"
    )]
    NoReset {
        /// The slot.
        slot: Slot,
        /// The function.
        device: Arc<str>,
        /// Why not.
        source: WhyNoReset,
    },
    /// A function that was left by a VM that was killed, and that cannot be reset.
    #[error(
        "slot {slot}: {device} is dirty: VM {vm} had it and did not end in order, and it cannot be reset: {source}; it would \
         come to the guest as that one left it; --accept-dirty accepts that"
    )]
    Dirty {
        /// The slot.
        slot: Slot,
        /// The function.
        device: Arc<str>,
        /// Whose it was.
        vm: String,
        /// Why not.
        source: NoReset,
    },
    /// A function is another VM's, or that cannot be known.
    #[error(transparent)]
    Record(RecordError),
    /// ACPI tables.
    #[error(transparent)]
    Acpi(#[from] acpi::Error),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// stdin and stdout.
    #[error(transparent)]
    Console(#[from] console::Error),
    /// Something of this process.
    #[error("{what}: {source}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// errno.
        source: io::Error,
    },
    /// Two devices at one address: a mistake of this program.
    #[error("{0}: {1}")]
    Bus(&'static str, crate::bus::Overlap),
    /// The guest's memory cannot be written.
    #[error("guest memory: {0}")]
    GuestMemory(#[from] vm_memory::GuestMemoryError),
}

/// Why a function cannot be reset.
#[derive(Debug, thiserror::Error)]
pub enum WhyNoReset {
    /// One of this host's.
    #[error(transparent)]
    Vfio(#[from] NoReset),
    /// One of an illumos host's.
    #[error("it has no FLR, and illumos has no other way")]
    Ppt,
}

/// For `map_err`: names what was tried.
pub(super) fn process(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |source| MachineError::Process { what, source }
}
