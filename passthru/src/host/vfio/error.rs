//! Why a function could not be opened, and what to do about it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::sysfs::Member;
use crate::pci::HostAddress;
use crate::ports::PortError;

/// Why a function could not be opened through VFIO.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing in the host is called so.
    #[error("there is no PCI function '{name}' in this host; `lspci -D` lists those there are")]
    UnknownDevice {
        /// As given.
        name: String,
    },
    /// The IOMMU does not know it.
    #[error(
        "{address}: it has no IOMMU group: the host's IOMMU is off; turn it on in the firmware and boot with \
         intel_iommu=on (Intel; AMD's is on by default)"
    )]
    NoGroup {
        /// The function.
        address: HostAddress,
    },
    /// Open already.
    #[error(
        "{address}: this guest has it, or has not closed it yet; if it was just removed, try again in a moment"
    )]
    InThisGuest {
        /// The function.
        address: HostAddress,
    },
    /// Held by a driver of the host, or by none.
    #[error("{address}: it is {}, not bound to vfio-pci; release it with: {}", held(.driver), bind_command(*.address, .driver.is_some()))]
    NotBound {
        /// The function.
        address: HostAddress,
        /// Who holds it.
        driver: Option<String>,
    },
    /// Other members of its group are held by drivers of the host.
    #[error("{address}: group {group} is not viable: {}", offenders(.members))]
    GroupNotViable {
        /// The function.
        address: HostAddress,
        /// Its group.
        group: u32,
        /// Those in the way.
        members: Vec<Member>,
    },
    /// The group's file cannot be opened.
    #[error("{address}: open of {path}: {source}{}", open_hint(.source, *.address))]
    Group {
        /// The function.
        address: HostAddress,
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// The container cannot be opened, or is not what it should be.
    #[error("VFIO container /dev/vfio/vfio: {source}; is the module loaded? (modprobe vfio-pci)")]
    Container {
        /// What vfio-ioctls says.
        source: vfio_ioctls::VfioError,
    },
    /// iommufd cannot be opened.
    #[error("/dev/iommu: {source}; is the module loaded (modprobe iommufd), and may this user open it?")]
    Iommufd {
        /// errno.
        source: io::Error,
    },
    /// The kernel has no device file for the function.
    #[error(
        "{address}: it has no device file below /dev/vfio/devices: this kernel's VFIO knows groups only (CONFIG_VFIO_DEVICE_CDEV)"
    )]
    NoDeviceFile {
        /// The function.
        address: HostAddress,
    },
    /// The function's device file cannot be opened.
    #[error("{address}: open of {path}: {source}{}", open_hint(.source, *.address))]
    DeviceFile {
        /// The function.
        address: HostAddress,
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// The function cannot be bound to an iommufd.
    #[error("{address}: VFIO_DEVICE_BIND_IOMMUFD: {source}; {}", bind_hint(.source))]
    Bind {
        /// The function.
        address: HostAddress,
        /// errno.
        source: io::Error,
    },
    /// A device file that is open already, where functions are opened by group.
    #[error("{address}: a device file that is handed over needs iommufd, which is turned off here")]
    DeviceFileInContainer {
        /// The function.
        address: HostAddress,
    },
    /// A file descriptor that is handed over is no VFIO device.
    #[error(
        "file descriptor {fd} is no VFIO device: {source}; it must be an open file of /dev/vfio/devices that this process \
         was started with"
    )]
    NoDevice {
        /// Its number.
        fd: i32,
        /// Why not.
        source: io::Error,
    },
    /// An Intel graphics function that is part of the processor.
    #[error("{address}: {}", super::sysfs::INTEGRATED_GRAPHICS)]
    IntegratedGraphics {
        /// The function.
        address: HostAddress,
    },
    /// A call to VFIO.
    #[error("{address}: {call}: {source}")]
    Call {
        /// The function.
        address: HostAddress,
        /// The ioctl.
        call: &'static str,
        /// errno.
        source: io::Error,
    },
    /// Guest memory cannot be pinned.
    #[error(
        "{address}: pinning {len} bytes of guest memory for DMA: {source}; {}", pin_hint(*.limit)
    )]
    MemoryLock {
        /// The function for which memory was mapped.
        address: HostAddress,
        /// Bytes of the region.
        len: u64,
        /// `RLIMIT_MEMLOCK`.
        limit: u64,
        /// errno.
        source: io::Error,
    },
    /// Guest memory cannot be mapped.
    #[error("{address}: DMA map of guest memory {:#x}..{:#x}: {source}", .range.start, .range.end)]
    DmaMap {
        /// The function for which memory was mapped.
        address: HostAddress,
        /// Guest-physical addresses.
        range: Range<u64>,
        /// errno.
        source: io::Error,
    },
    /// Guest memory lies where the IOMMU cannot translate.
    #[error(
        "{address}: guest memory {:#x}..{:#x} is not within what the IOMMU translates ({}); give the guest less \
         memory", .range.start, .range.end, ranges(.usable)
    )]
    IovaRange {
        /// The function for which memory was mapped.
        address: HostAddress,
        /// Guest-physical addresses.
        range: Range<u64>,
        /// What the IOMMU translates.
        usable: Vec<Range<u64>>,
    },
    /// A port of the VMM failed.
    #[error("{address}: {source}")]
    Port {
        /// The function.
        address: HostAddress,
        /// What the VMM says.
        source: PortError,
    },
    /// The kernel's answer makes no sense.
    #[error("{address}: VFIO says that it is no PCI device")]
    NotPci {
        /// The function.
        address: HostAddress,
    },
}

fn held(driver: &Option<String>) -> impl fmt::Display {
    match driver {
        Some(driver) => format!("held by driver {driver}"),
        None => "held by no driver".to_owned(),
    }
}

/// What binds a function to vfio-pci by hand, when a driver has it or when none has.
pub fn bind_command(address: HostAddress, is_held: bool) -> String {
    let device = format!("/sys/bus/pci/devices/{address}");
    let unbind = if is_held { format!("echo {address} > {device}/driver/unbind; ") } else { String::new() };
    format!("echo vfio-pci > {device}/driver_override; {unbind}echo {address} > /sys/bus/pci/drivers_probe")
}

fn offenders(members: &[Member]) -> impl fmt::Display {
    if members.is_empty() {
        return "a member of it is in use by the host".to_owned();
    }
    let one = |m: &Member| {
        let driver = m.driver.as_deref().unwrap_or("no driver");
        format!(
            "{} is bound to {driver}; release it with: {}",
            m.address,
            bind_command(m.address, m.driver.is_some())
        )
    };
    members.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn open_hint(source: &io::Error, address: HostAddress) -> String {
    match source.raw_os_error() {
        Some(libc::EBUSY) => "; another process holds the group: another VM with this function?".to_owned(),
        Some(libc::EACCES | libc::EPERM) => "; run as root or give this user the file (chown)".to_owned(),
        Some(libc::ENOENT) => format!("; bind the function: {}", bind_command(address, true)),
        _ => String::new(),
    }
}

fn bind_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EBUSY) => {
            "another process has the function or a member of its group: another VM, or one that opened the group's file?"
        }
        Some(libc::EINVAL) => {
            "its file is open elsewhere, in another VM or a program that hands it over, or the host's IOMMU is one that \
             iommufd cannot use; by group and container it may work"
        }
        _ => "by group and container it may work",
    }
}

fn pin_hint(limit: u64) -> String {
    match limit {
        libc::RLIM_INFINITY => {
            "the host has too little memory free, or a control group's limit is reached".to_owned()
        }
        limit => format!(
            "the memory lock limit is {limit} bytes: raise it above the guest's memory (ulimit -l, or LimitMEMLOCK= in a \
             systemd unit), or give the process CAP_IPC_LOCK"
        ),
    }
}

fn ranges(usable: &[Range<u64>]) -> impl fmt::Display {
    usable.iter().map(|r| format!("{:#x}..{:#x}", r.start, r.end)).collect::<Vec<_>>().join(", ")
}
