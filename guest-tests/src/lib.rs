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

mod failure;
mod functions;
mod guest_run;
mod iommu;
mod machine;
mod plan;
mod provisioned;
mod scenario;
mod stats;

pub use failure::Failure;
pub use guest_run::{Check, GuestReport, GuestRun, RunningGuest, Vmm};
pub use iommu::Iommu;
pub use machine::{CommandOutput, Machine};
pub use plan::{Bdf, Plan, RootPort};
pub use provisioned::{Missing, Provisioned};
pub use scenario::{DiskImage, Scenario};
pub use stats::{Piece, Stats};
