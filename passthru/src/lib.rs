//! PCI pass-through for any VMM: everything between a host kernel's pass-through driver and a guest's view of a PCI
//! function.
//!
//! A VMM implements three traits, its [`ports`]: the guest's address space, its interrupts, and file descriptors that
//! must be known or watched. A [`host`] opens a function of the machine (Linux VFIO, illumos [`host::ppt`]) or makes one up
//! ([`host::simulated`]; on Linux). [`attached::Attached`] puts the one into the other, at the [`pci::Slot`] that was asked for;
//! from then on the VMM hands configuration accesses to [`pci::ConfigAccess`] and accesses to trapped ranges of BARs to
//! [`ports::BarAccess`], and everything else happens by itself.
//!
//! | module | what lives there | does I/O |
//! |---|---|---|
//! | [`pci`] | what the specifications say: addresses, registers, capability lists, BARs | no |
//! | [`function`] | a function as the guest sees it: accesses go in, values and effects come out | no |
//! | [`space`] | which BAR answers where, for all functions of a VM | through [`ports`] |
//! | [`host`] | functions of the machine, and what a host can do with them | yes |
//! | [`attached`] | a host's function in a guest: carries the effects out | through the others |
//! | [`ports`] | what a VMM gives | by the VMM |
//!
//! `tests/embedding` has a VMM that only keeps book, as the smallest example of the ports; `examples/illumos_vmm.rs` is all
//! that a VMM on illumos needs.
#![warn(missing_docs)]

pub mod attached;
pub mod function;
pub mod host;
pub mod pci;
pub mod ports;
pub mod space;
