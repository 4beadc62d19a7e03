//! Kernels into guest memory: bzImage, PVH ELF and multiboot 1, each with command line and initrd.
//!
//! linux-loader gives the structures that Linux and PVH guests are handed. Its loaders are not used: its ELF loader
//! leaves the memory behind a segment's file contents as it is, which after a guest reset is not zero, takes no
//! 32-bit image, lets the last note segment win, and no loader says which of file and guest memory was too small.

mod bzimage;
mod command_line;
mod elf;
mod entry;
mod error;
mod fields;
mod image;
mod kernel;
mod multiboot;
mod placement;
mod pvh;
mod segment;

#[cfg(test)]
mod tests;

pub use entry::Entry;
pub use error::{Defect, Error};
pub use image::Role;
pub use kernel::{Kernel, Protocol};
