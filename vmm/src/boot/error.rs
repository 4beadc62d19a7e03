//! What can be wrong with a kernel, its initrd or its command line.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use vm_memory::GuestMemoryError;

use super::image::Role;

/// Why a kernel cannot be opened or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, examined or read.
    #[error("{role} {}: cannot {operation}: {source}", .path.display())]
    File { role: Role, path: PathBuf, operation: &'static str, source: io::Error },
    /// A directory, device, pipe or socket; only a file can be read again at a guest reset.
    #[error("{role} {}: not a regular file", .path.display())]
    NotRegular { role: Role, path: PathBuf },
    /// An initrd without content.
    #[error("{role} {}: the file is empty", .path.display())]
    Empty { role: Role, path: PathBuf },
    /// No known format.
    #[error("kernel {} is neither bzImage, PVH ELF nor multiboot 1", .path.display())]
    NotAKernel { path: PathBuf },
    /// A known format with something in it that cannot be right, or is not supported.
    #[error("kernel {}: {defect}", .path.display())]
    Defective { path: PathBuf, defect: Defect },
    /// The kernel needs memory above the guest's.
    #[error(
        "kernel {}: needs RAM up to {:#x}, but the guest's RAM below 4 GiB ends at {ram_end:#x}; give the guest more \
         memory",
        .path.display(), .range.end
    )]
    DoesNotFit { path: PathBuf, range: Range<u64>, ram_end: u64 },
    /// The kernel wants to be where there is no RAM for it on any guest.
    #[error(
        "kernel {}: must load at {:#x} to {:#x}, where a guest has no RAM or the boot data",
        .path.display(), .range.start, .range.end.saturating_sub(1)
    )]
    NotLoadable { path: PathBuf, range: Range<u64> },
    /// No room for the initrd above the kernel.
    #[error(
        "initrd {}: {size} bytes do not fit between the kernel's end {:#x} and {:#x}; give the guest more memory",
        .path.display(), .room.start, .room.end
    )]
    InitrdTooLarge { path: PathBuf, size: u64, room: Range<u64> },
    /// The command line is longer than the kernel or the space for it allows.
    #[error("kernel command line: {length} bytes are too long; {limiter} takes at most {limit}")]
    CommandLineTooLong { length: usize, limit: usize, limiter: &'static str },
    /// The command line has a zero byte, which would end it.
    #[error("kernel command line: a zero byte at offset {offset}")]
    CommandLineZero { offset: usize },
    /// A file that no longer has what it had when it was opened, or that cannot be read.
    #[error("{role} {}: cannot be read into guest memory (was the file changed?): {source}", .path.display())]
    Copy { role: Role, path: PathBuf, source: GuestMemoryError },
    /// Boot data cannot be written.
    #[error("{what} cannot be written to guest memory: {source}")]
    Memory { what: &'static str, source: GuestMemoryError },
}

/// What is wrong with a kernel image of a known format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    #[error("the file ends before what its headers announce")]
    Truncated,
    #[error("boot protocol {}.{:02} is too old; 2.06 or later is needed", .0 >> 8, .0 & 0xff)]
    OldProtocol(u16),
    #[error("a zImage, which loads below 640 KiB; a bzImage is needed")]
    LoadsLow,
    #[error("the ELF image is not for x86 in little-endian order")]
    OtherArchitecture,
    #[error("addresses or sizes of a segment that contradict each other")]
    ProgramHeader,
    #[error("no loadable segment")]
    NoSegments,
    #[error("the entry point lies outside what is loaded")]
    EntryOutside,
    #[error("the PVH entry note does not hold a 32-bit address")]
    PvhNote,
    #[error("the multiboot header's addresses contradict each other")]
    MultibootAddresses,
    #[error("the multiboot header demands features unknown to multiboot 1 (flags {0:#x})")]
    MultibootFlags(u32),
}
