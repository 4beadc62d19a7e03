//! What a machine is to be, and what became of it.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use super::{EventPolicy, UseIommufd};
use crate::control::Stop;
use crate::host::device_records::DeviceRecords;
use crate::memory::{Backing, RamSize};
use crate::port_options::PortOptions;
use crate::ppt::PptHost;
use crate::slot_map::Assignment;
use crate::stats::Stats;
use crate::vcpu_options::VcpuOptions;

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
    /// How they run on this host.
    pub vcpu_options: VcpuOptions,
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
    /// Who is at the other end of the guest's serial port; stdin and stdout without it.
    pub console: Option<Arc<UnixStream>>,
    /// Where it is recorded which of this host's functions the guest has.
    pub records: Option<Arc<DeviceRecords>>,
    /// Told when the guest is about to run.
    pub running: Option<Arc<dyn Ready>>,
}

/// Who waits for a guest to run.
pub trait Ready: fmt::Debug + Send + Sync {
    /// It is about to, for the first time. False: it is not to, because nobody waits any more.
    fn running(&self) -> bool;
}

/// How a guest ended, and what it did.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub stop: Stop,
    /// What was counted.
    pub stats: Stats,
}
