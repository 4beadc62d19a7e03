//! Why nothing could be measured.

use std::io;
use std::path::PathBuf;

use passthru::ports::PortError;

use super::printed::PrintedError;
use super::qemu::QemuError;
use crate::boot;
use crate::kvm::KvmError;
use crate::machine::MachineError;
use crate::memory;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A call to KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The guest's image.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// The guest's RAM.
    #[error(transparent)]
    Ram(#[from] memory::Error),
    /// Its size.
    #[error(transparent)]
    Size(#[from] memory::InvalidSize),
    /// A memory slot.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Memory for a slot.
    #[error("memory for a read-only slot: {0}")]
    Memory(#[source] io::Error),
    /// An eventfd.
    #[error("eventfd: {0}")]
    Eventfd(#[source] io::Error),
    /// The bare loop met an exit that it does not know.
    #[error("the bare KVM loop cannot go on after the exit {0}")]
    FloorStopped(String),
    /// More than the guest can have to say.
    #[error("the guest that measures sent more than {0} bytes")]
    TooMuchText(usize),
    /// The way on which it is sent.
    #[error("the text of the guest that measures: {0}")]
    Console(#[source] io::Error),
    /// slotpass' own machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Its guest did not come to its end.
    #[error("the guest that measures was stopped: {0}")]
    Stopped(String),
    /// Signals cannot be taken back from the machine.
    #[error("signals: {0}")]
    Signals(#[source] io::Error),
    /// An option with an open file.
    #[error(
        "{0}: a bench opens its functions once for each guest that it starts, and cannot use a file that was opened for it; \
         name the function by its address, and leave out --iommufd or give auto, on or off"
    )]
    HandedOver(String),
    /// A measurement without what it measures.
    #[error("start-kernel needs --kernel FILE")]
    NoKernel,
    /// The same the other way round.
    #[error("--kernel is for start-kernel, which --only leaves out")]
    KernelLeftOut,
    /// A kernel or its RAM disk.
    #[error("{}: {source}", .path.display())]
    KernelFile {
        /// Which.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// The user wants it no more.
    #[error("ended by {0}")]
    Asked(&'static str),
    /// The image of a guest that is started by itself.
    #[error("a file with a guest's image: {0}")]
    Image(#[source] io::Error),
    /// A program that is to start one.
    #[error("starting a guest under {under}: {source}")]
    Start {
        /// Which VMM.
        under: &'static str,
        /// errno.
        source: io::Error,
    },
    /// QEMU.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// What it sent.
    #[error("the guest that measures, under {under}: {source}")]
    Guest {
        /// Which VMM ran it.
        under: &'static str,
        /// What is wrong.
        source: PrintedError,
    },
}
