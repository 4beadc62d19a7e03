//! What a guest finds beside its passed-through functions.
//!
//! * [`pci`]: which function is in which slot, the host bridges' windows, and the two ways to configuration
//!   space.
//! * Devices at I/O ports, each a [`PortDevice`]: [`serial`], [`rtc`], [`acpi_pm`], [`reset`],
//!   [`debug_exit`].
//!
//! No device knows its own base port or guest-physical address: offsets come in, and whoever dispatches
//! accesses knows the map. What ends or restarts the machine goes to an [`EventSink`].

pub mod acpi_pm;
pub mod debug_exit;
pub mod event;
pub mod pci;
pub mod port;
pub mod reset;
pub mod rtc;
pub mod serial;

pub use event::{EventSink, MachineEvent};
pub use port::PortDevice;
