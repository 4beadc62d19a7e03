//! How vCPUs run on the host: on which of its CPUs, and what they do when the guest waits.

mod affinity;
mod disabled_exits;

pub use affinity::{Affinity, AffinityError, Pin, PinError, merge};
pub use disabled_exits::{DisabledExits, DisabledExitsError};

/// How vCPUs run on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuOptions {
    /// Which vCPU runs on which of the host's CPUs; others run anywhere.
    pub pins: Vec<Pin>,
    /// Nanoseconds at most that KVM looks for an interrupt before a vCPU that has halted sleeps; without it as long as the
    /// host's KVM is set up for.
    pub halt_poll: Option<u32>,
    /// What the guest does without KVM's help while it waits.
    pub disabled_exits: DisabledExits,
}
