//! The library as an embedder uses it: ports and hosts that are not this workspace's VMM.

mod attach;
mod kernel_delivered;
mod vmm;
