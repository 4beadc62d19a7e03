//! The emulated test machine and what a scenario needs to use it.
//!
//! Three computers are stacked in a scenario, and the names here say which one is meant:
//!
//! * **host**: the computer that runs the tests. It needs no KVM, no IOMMU and no PCI device.
//! * **machine** (L1): a PC that QEMU emulates on the host ([`Plan`], [`Machine`]). It has AMD-V, an IOMMU and PCI
//!   functions, and runs the distribution's kernel with real `/dev/kvm` and `/dev/vfio`.
//! * **guest** (L2): what the VMM under test runs inside the machine ([`GuestRun`], [`GuestReport`]).
//!
//! `README.md` beside this package says how to run the scenarios and where their logs are.

mod etc;
mod events;
mod failure;
mod figures;
mod functions;
mod guest_report;
mod guest_run;
mod iommu;
mod ivshmem;
mod machine;
mod monitor;
mod plan;
mod provisioned;
mod resident;
mod scenario;
mod stats;
mod system_drive;

pub use failure::Failure;
pub use figures::{Figure, Figures, Table};
pub use guest_report::{Check, GuestReport};
pub use guest_run::{GuestRun, LINUX_WORDS, PPT_TRACE, RunningGuest, Vmm};
pub use iommu::Iommu;
pub use ivshmem::{DoorbellPeer, Rings};
pub use machine::{CommandOutput, Machine};
pub use plan::{Bdf, ConventionalBus, Emulator, FETCHED, Kernel, Place, Plan, Port};
pub use provisioned::{Missing, Provisioned};
pub use resident::Resident;
pub use scenario::{DiskImage, Scenario};
pub use stats::{Piece, Stats};
pub use system_drive::SystemDrive;
