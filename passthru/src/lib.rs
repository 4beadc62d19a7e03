//! PCI pass-through for any VMM.
pub mod attached;
pub mod function;
pub mod host;
pub mod pci;
pub mod ports;
pub mod space;
