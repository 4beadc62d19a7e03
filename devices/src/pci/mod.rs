//! The guest's PCI: which function is in which slot, the host bridges' windows, the ways to configuration
//! space.
//!
//! A bus that has functions is a root bus with a host bridge of its own, or lies behind a PCI Express root port on bus
//! 0; there are no other bridges. Only bus 0 shows its host bridge as a function, at [`HOST_BRIDGE`].

mod access;
pub mod cf8;
pub mod ecam;
pub mod host_bridge;
pub mod ports;
pub mod root_port;
pub mod slots;
pub mod topology;
pub mod windows;

pub use cf8::Cf8;
pub use ecam::Ecam;
pub use host_bridge::HostBridge;
pub use ports::{PortBuses, root_port_slot};
pub use root_port::RootPort;
pub use slots::HOST_BRIDGE;
pub use topology::Topology;
