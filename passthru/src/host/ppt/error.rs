//! What illumos answers, in words: `ppt` says the same number for different things, depending on what it was asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::abi::MAX_MMIO_SEGMENTS;

/// Why a function could not be opened. Nothing is bound then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path has a zero byte, or the name of a virtual machine is empty or a path.
    #[error("{path}: no file can be called so")]
    Path {
        /// As given.
        path: PathBuf,
    },
    /// A VMM that was given no host of this kind.
    #[error("there is no ppt driver here; it is illumos'")]
    NoHost,
    /// The virtual machine's file.
    #[error("open of {path}: {source}; is there a virtual machine of that name? (ls /dev/vmm)")]
    Vm {
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// The function's file is not there.
    #[error(
        "{path}: there is no such function; reserve it in /etc/ppt_aliases, reboot, and look at what `pptadm list` shows"
    )]
    NotThere {
        /// The file.
        path: PathBuf,
    },
    /// The function's file cannot be opened.
    #[error(
        "open of {path}: {source}; pass-through needs the privileges of the global zone, or the device in this one"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// It cannot be looked at.
    #[error("{device}: {call}: {source}; is that a function of the ppt driver?")]
    Look {
        /// The function.
        device: Arc<str>,
        /// The request.
        call: &'static str,
        /// errno.
        source: io::Error,
    },
    /// Its configuration space reads all-ones.
    #[error("{device}: it does not answer: its vendor id reads 0xffff (is it powered down, or gone?)")]
    NoAnswer {
        /// The function.
        device: Arc<str>,
    },
    /// The guest's memory can be moved away from under a device.
    #[error(
        "{device}: pass-through needs the guest's memory wired: what devices write to must stay where it is"
    )]
    NotWired {
        /// The function.
        device: Arc<str>,
    },
    /// It interrupts by INTx only.
    #[error(
        "{device}: it has neither MSI nor MSI-X, and ppt delivers no INTx: it could not interrupt the guest"
    )]
    NoMessages {
        /// The function.
        device: Arc<str>,
    },
    /// The kernel maps whole pages.
    #[error(
        "{device}: BAR {bar}, {size:#x} bytes at {base:#x} in this host, is not whole pages of 4 KiB, and ppt reaches memory \
         in no other way"
    )]
    Unaligned {
        /// The function.
        device: Arc<str>,
        /// BAR 0 to 5.
        bar: u8,
        /// Where it is in the host.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// The kernel did not give it to the virtual machine.
    #[error("{device}: {source}")]
    Bind {
        /// The function.
        device: Arc<str>,
        /// Why.
        source: Refusal,
    },
}

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {reason} ({source})")]
pub struct Refusal {
    /// The request's name.
    pub call: &'static str,
    /// What it means.
    pub reason: Reason,
    /// errno.
    #[source]
    pub source: io::Error,
}

impl Refusal {
    /// As the kernel would say it of a vector, without being asked.
    pub(super) fn no_vector(errno: i32) -> Refusal {
        Call::Msix.refused(io::Error::from_raw_os_error(errno))
    }

    /// The same once more, for each that it concerns.
    pub(super) fn again(&self) -> Refusal {
        let source = match self.source.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => self.source.kind().into(),
        };
        Refusal { call: self.call, reason: self.reason, source }
    }
}

/// What an errno means, for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// EBUSY of VM_BIND_PPTDEV.
    #[error(
        "a virtual machine has it: another one, this one already, or one that ended and was not destroyed (bhyvectl \
         --destroy --vm=NAME)"
    )]
    OtherVm,
    /// EBUSY of all others that want the function bound.
    #[error("it is not, or no longer, bound to this virtual machine")]
    NotBound,
    /// ENXIO of VM_BIND_PPTDEV.
    #[error(
        "this host has no IOMMU that illumos can use: Intel VT-d must be on in the firmware; there is no driver for AMD's"
    )]
    NoIommu,
    /// ENXIO of others, but for those of vectors.
    #[error("the virtual machine was destroyed, and has no functions any more")]
    VmGone,
    /// EIO of VM_BIND_PPTDEV.
    #[error("its configuration registers could not be saved or restored")]
    Registers,
    /// EBADF.
    #[error(
        "the virtual machine's file or the function's was closed, or the function's is none of the ppt driver's"
    )]
    NotPpt,
    /// ENOSPC of VM_MAP_PPTDEV_MMIO.
    #[error("all {MAX_MMIO_SEGMENTS} mappings that a function can have are in use")]
    NoSegment,
    /// ENOMEM of VM_MAP_PPTDEV_MMIO.
    #[error(
        "something else is at these guest addresses or they are no guest's, or the host is out of memory"
    )]
    NoRoom,
    /// EINVAL of VM_MAP_PPTDEV_MMIO.
    #[error("what was to be mapped is not whole pages of 4 KiB, or not inside one memory BAR")]
    NotInBar,
    /// ENOENT of VM_UNMAP_PPTDEV_MMIO.
    #[error("nothing is mapped at just this range")]
    NotMapped,
    /// EBUSY of VM_PPTDEV_MSI and VM_PPTDEV_MSIX while the function is this machine's.
    #[error("the other kind of vectors is on, or it is no longer bound to this virtual machine")]
    OtherKind,
    /// EINVAL of VM_PPTDEV_MSI and VM_PPTDEV_MSIX.
    #[error("the host does not have this vector for it, or not as many as are wanted")]
    NoVector,
    /// ENXIO of VM_PPTDEV_MSI and VM_PPTDEV_MSIX.
    #[error(
        "the host's interrupt handler could not be added or enabled, or the virtual machine was destroyed"
    )]
    NoHandler,
    /// ENOTTY.
    #[error(
        "there is no such request: this host's kernel is too old, or the file is no virtual machine's in /dev/vmm"
    )]
    OldKernel,
    /// As the errno says.
    #[error("refused")]
    Other,
}

/// The requests whose errors mean different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Bind,
    Unbind,
    Limits,
    Map,
    Unmap,
    Msi,
    /// No vectors: MSI-X may be on meanwhile.
    DisableMsi,
    Msix,
    DisableMsix,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Call::Bind => "VM_BIND_PPTDEV",
            Call::Unbind => "VM_UNBIND_PPTDEV",
            Call::Limits => "VM_GET_PPTDEV_LIMITS",
            Call::Map => "VM_MAP_PPTDEV_MMIO",
            Call::Unmap => "VM_UNMAP_PPTDEV_MMIO",
            Call::Msi | Call::DisableMsi => "VM_PPTDEV_MSI",
            Call::Msix => "VM_PPTDEV_MSIX",
            Call::DisableMsix => "VM_PPTDEV_DISABLE_MSIX",
        }
    }

    fn meaning(self, errno: i32) -> Reason {
        use libc::{EBADF, EBUSY, EINVAL, EIO, ENOENT, ENOMEM, ENOSPC, ENOTTY, ENXIO};
        match (self, errno) {
            (_, EBADF) => Reason::NotPpt,
            (Call::Bind, EBUSY) => Reason::OtherVm,
            (Call::Bind, ENXIO) => Reason::NoIommu,
            (Call::Bind, EIO) => Reason::Registers,
            (Call::Map, ENOSPC) => Reason::NoSegment,
            (Call::Map, ENOMEM) => Reason::NoRoom,
            (Call::Map, EINVAL) => Reason::NotInBar,
            (Call::Unmap, ENOENT) => Reason::NotMapped,
            (_, ENOTTY) => Reason::OldKernel,
            (Call::Msi | Call::Msix, EBUSY) => Reason::OtherKind,
            (Call::Msi | Call::Msix, EINVAL) => Reason::NoVector,
            (Call::Msi | Call::Msix, ENXIO) => Reason::NoHandler,
            (_, EBUSY) => Reason::NotBound,
            (_, ENXIO) => Reason::VmGone,
            _ => Reason::Other,
        }
    }

    /// For `map_err`: what this request's error means.
    pub(super) fn refused(self, source: io::Error) -> Refusal {
        let reason = source.raw_os_error().map_or(Reason::Other, |errno| self.meaning(errno));
        Refusal { call: self.name(), reason, source }
    }
}

#[cfg(test)]
mod tests {
    use libc::{EBADF, EBUSY, EFAULT, EINVAL, EIO, ENOENT, ENOMEM, ENOSPC, ENOTTY, ENXIO};

    use super::*;

    #[test]
    fn what_a_number_means_depends_on_what_was_asked() {
        for (call, errno, reason) in [
            (Call::Bind, EBUSY, Reason::OtherVm),
            (Call::Bind, ENXIO, Reason::NoIommu),
            (Call::Bind, EIO, Reason::Registers),
            (Call::Bind, EBADF, Reason::NotPpt),
            (Call::Bind, EFAULT, Reason::Other),
            (Call::Unbind, EBUSY, Reason::NotBound),
            (Call::Limits, EBUSY, Reason::NotBound),
            (Call::Map, EBUSY, Reason::NotBound),
            (Call::Map, EINVAL, Reason::NotInBar),
            (Call::Map, ENOSPC, Reason::NoSegment),
            (Call::Map, ENOMEM, Reason::NoRoom),
            (Call::Unmap, ENOENT, Reason::NotMapped),
            (Call::Unmap, ENXIO, Reason::VmGone),
            (Call::Unmap, ENOTTY, Reason::OldKernel),
            (Call::Msi, EBUSY, Reason::OtherKind),
            (Call::Msi, EINVAL, Reason::NoVector),
            (Call::DisableMsi, EBUSY, Reason::NotBound),
            (Call::Msix, ENXIO, Reason::NoHandler),
            (Call::Msix, EBADF, Reason::NotPpt),
            (Call::DisableMsix, ENOTTY, Reason::OldKernel),
            (Call::DisableMsix, EBUSY, Reason::NotBound),
        ] {
            let refusal = call.refused(io::Error::from_raw_os_error(errno));
            assert_eq!(refusal.reason, reason, "{call:?} {errno}");
            assert!(refusal.to_string().starts_with(call.name()), "{refusal}");
            assert_eq!(refusal.source.raw_os_error(), Some(errno));
        }
    }
}
