//! illumos' `ppt` driver and the part of `/dev/vmm` that passes functions through, answered in this process.
//!
//! [`IllumosKernel`] is a [`Sys`](passthru::host::ppt::sys::Sys): whoever speaks to illumos through that trait finds here
//! the same files, ioctl numbers, argument layouts, checks and errors, over functions of any other host of this library.
//! It is written from the description of the interface (`abi.json` holds its numbers and layouts) and shares no code with
//! what it is meant to test.
//!
//! ```text
//! let ports = KernelPorts::new(the_vmms_ports);
//! let function = SimulatedFunction::new("demo", slot, ports.ports())?;      // or VfioFunction, over an Ioas of these ports
//! let functions = vec![PptFunction { function: Arc::new(function), slot }]; // the first is /dev/ppt0
//! let kernel = IllumosKernel::new(Options::default(), ports, functions);
//! ```
//!
//! Functions are opened with the ports of the one VMM that is in this process, so that is where a function's interrupts and
//! memory go, whichever VM of `/dev/vmmctl` has bound it: more than one VM is good for finding out who owns what.
//!
//! # Where it differs from illumos
//!
//! * Guest memory is not made here: segments (`VM_ALLOC_MEMSEG`, `VM_MMAP_MEMSEG`) are entries in a book, and DMA reaches
//!   what the VMM's memory port says. No vCPU, no timer, nothing else of `/dev/vmm` is here: ENOTTY.
//! * A function is reset by whatever way its host has that touches no other function, not by FLR only. Without one it is
//!   not reset, as there.
//! * BAR ranges that the host cannot map are trapped, and the accesses carried out one by one: the guest sees no
//!   difference.
//! * A function without MSI has no interrupts: setting its line up as an MSI is ENXIO.
//! * Configuration accesses are subject to what the host filters (VFIO: the command register, BARs, MSI).
//! * Bugs are left out: a negative MSI-X index is EINVAL, offsets in I/O BARs are checked.

mod abi;
mod assignment;
mod device;
mod errno;
mod files;
mod kernel;
mod ports;
#[cfg(test)]
mod test_support;
mod user_memory;
mod vmm;

/// Numbers of the requests that are answered.
pub use abi::{ppt, vm, vmmctl};
pub use kernel::{IllumosKernel, Interface, Options, PptFunction};
pub use ports::KernelPorts;
