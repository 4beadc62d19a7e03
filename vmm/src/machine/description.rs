//! What a machine is to be, and what became of it.

use std::path::PathBuf;
use std::sync::Arc;

use super::{EventPolicy, UseIommufd};
use crate::control::Stop;
use crate::memory::{Backing, RamSize};
use crate::port_options::PortOptions;
use crate::ppt::PptHost;
use crate::slot_map::Assignment;
use crate::stats::Stats;

/// Most processors. Interrupt messages and I/O APIC entries have 8 bits for the local APIC's id (Intel SDM vol. 3A
/// §12.11.1), of which 255 is all of them; KVM takes longer ids only when `KVM_CAP_X2APIC_API` is set up.
pub const MOST_CPUS: u32 = 254;

/// What a guest is booted from.
#[derive(Clone, Debug)]
pub enum Image {
    /// Files of this host.
    Files {
        /// Kernel.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
    },
    /// Part of this program.
    Embedded {
        /// For messages.
        name: &'static str,
        /// An ELF image.
        bytes: &'static [u8],
    },
}

/// What a machine is to be.
#[derive(Clone, Debug)]
pub struct Description {
    /// What it boots.
    pub image: Image,
    /// Kernel command line.
    pub command_line: String,
    /// Size of its memory.
    pub memory: RamSize,
    /// What backs it.
    pub backing: Backing,
    /// Processors, 1 to [`MOST_CPUS`].
    pub cpus: u32,
    /// Which device goes where.
    pub assignments: Vec<Assignment>,
    /// Root ports beside those that the assignments ask for, and their room.
    pub ports: PortOptions,
    /// Refuse functions that cannot be reset.
    pub require_reset: bool,
    /// How functions of this host are opened.
    pub iommufd: UseIommufd,
    /// Where functions named `/dev/pptN` are, if anywhere.
    pub ppt: Option<Arc<dyn PptHost>>,
    /// A reset by the guest ends it.
    pub no_reboot: bool,
    /// What is done about what hosts tell of functions.
    pub events: EventPolicy,
    /// Where the control socket is to be.
    pub control: Option<PathBuf>,
    /// Take the time of accesses to trapped pages, for [`Outcome::stats`].
    pub page_times: bool,
}

/// How a guest ended, and what it did.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub stop: Stop,
    /// What was counted.
    pub stats: Stats,
}
