//! `/dev/vmm/<name>`: a virtual machine of bhyve's, as far as it takes functions in.

use std::path::Path;
use std::sync::Arc;

use super::abi::*;
use super::device::Device;
use super::error::{Call, OpenError, Refusal};
use super::file::File;
use super::sys::Sys;
use crate::ports::MsiMessage;

/// How the guest's memory is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestMemory {
    /// It stays where it is (`VM_MEMMAP_F_WIRED`; bhyve's `-S` and `memory.wired=true`). All of it is within reach of the
    /// functions' DMA.
    Wired,
    /// It may be moved or paged out.
    Pageable,
}

/// What the host's kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// That of the first version, of 2018: it unmaps nothing until the function is unbound, and nothing of a function's memory
    /// can be mapped in this process.
    First,
    /// Later, by its own number.
    Version(u32),
}

/// A virtual machine to which functions can be given.
pub struct Vm<S: Sys> {
    file: File<S>,
    memory: GuestMemory,
    interface: Interface,
}

impl<S: Sys> Vm<S> {
    /// Opens the virtual machine of this name, which somebody else made.
    pub fn open(sys: Arc<S>, name: &str, memory: GuestMemory) -> Result<Arc<Vm<S>>, OpenError> {
        let path = Path::new("/dev/vmm").join(name);
        if name.is_empty() || name.contains('/') {
            return Err(OpenError::Path { path });
        }
        let file = File::open(sys, &path)?.map_err(|source| OpenError::Vm { path, source })?;
        Ok(Vm::new(file, memory))
    }

    /// A virtual machine that is open already; `fd` stays so as long as this lives.
    pub fn with_file(sys: Arc<S>, fd: i32, memory: GuestMemory) -> Arc<Vm<S>> {
        Vm::new(File::borrowed(sys, fd), memory)
    }

    fn new(file: File<S>, memory: GuestMemory) -> Arc<Vm<S>> {
        let interface = match file.call(VMM_INTERFACE_VERSION, &mut ()) {
            Ok(version) => Interface::Version(version.unsigned_abs()),
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Interface::First,
            // It has the request, whatever became of it.
            Err(_) => Interface::Version(0),
        };
        Arc::new(Vm { file, memory, interface })
    }

    /// What the host's kernel can do.
    pub fn interface(&self) -> Interface {
        self.interface
    }

    pub(super) fn memory(&self) -> GuestMemory {
        self.memory
    }

    pub(super) fn sys(&self) -> &Arc<S> {
        self.file.sys()
    }

    /// Gives the function to the virtual machine. The kernel resets it (FLR, where it has that), and brings the guest's
    /// wired memory within its reach.
    pub(super) fn bind(&self, device: &Device<S>) -> Result<(), Refusal> {
        let mut argument = Pptdev { pptfd: device.fd() };
        self.call(Call::Bind, VM_BIND_PPTDEV, &mut argument)
    }

    /// Takes it back. The kernel resets it, unmaps its memory, and ends its interrupts.
    pub(super) fn unbind(&self, device: &Device<S>) -> Result<(), Refusal> {
        let mut argument = Pptdev { pptfd: device.fd() };
        self.call(Call::Unbind, VM_UNBIND_PPTDEV, &mut argument)
    }

    /// Vectors of MSI and of MSI-X that the host has for it; nothing where the function has none.
    pub(super) fn limits(&self, device: &Device<S>) -> Result<(Option<u16>, Option<u16>), Refusal> {
        let mut limits = PptdevLimits { pptfd: device.fd(), ..PptdevLimits::default() };
        self.call(Call::Limits, VM_GET_PPTDEV_LIMITS, &mut limits)?;
        let count = |limit| u16::try_from(limit).ok();
        Ok((count(limits.msi_limit), count(limits.msix_limit)))
    }

    /// Makes host-physical memory of a BAR appear in the guest.
    pub(super) fn map(&self, device: &Device<S>, gpa: u64, hpa: u64, len: u64) -> Result<(), Refusal> {
        let mut mmio = PptdevMmio { pptfd: device.fd(), gpa, hpa, len, ..PptdevMmio::default() };
        self.call(Call::Map, VM_MAP_PPTDEV_MMIO, &mut mmio)
    }

    /// Takes away what was mapped at exactly this range.
    pub(super) fn unmap(&self, device: &Device<S>, gpa: u64, len: u64) -> Result<(), Refusal> {
        let mut mmio = PptdevMmio { pptfd: device.fd(), gpa, len, ..PptdevMmio::default() };
        self.call(Call::Unmap, VM_UNMAP_PPTDEV_MMIO, &mut mmio)
    }

    /// Turns MSI on with `count` vectors, 1 to 32, whose messages are `first` and those whose data is one more each; or off,
    /// with 0.
    pub(super) fn msi(&self, device: &Device<S>, count: u16, first: MsiMessage) -> Result<(), Refusal> {
        let mut msi = PptdevMsi {
            vcpu: LOCKED,
            pptfd: device.fd(),
            numvec: count.into(),
            msg: first.data.into(),
            addr: first.address,
            ..PptdevMsi::default()
        };
        let call = if count == 0 { Call::DisableMsi } else { Call::Msi };
        self.call(call, VM_PPTDEV_MSI, &mut msi)
    }

    /// Delivers an MSI-X vector as this message, or not at all.
    pub(super) fn msix(
        &self,
        device: &Device<S>,
        vector: u16,
        message: Option<MsiMessage>,
    ) -> Result<(), Refusal> {
        let MsiMessage { address, data } = message.unwrap_or_default();
        let mut msix = PptdevMsix {
            vcpu: LOCKED,
            pptfd: device.fd(),
            idx: vector.into(),
            msg: data.into(),
            vector_control: if message.is_some() { 0 } else { VECTOR_MASKED },
            addr: address,
            ..PptdevMsix::default()
        };
        self.call(Call::Msix, VM_PPTDEV_MSIX, &mut msix)
    }

    /// Takes all MSI-X vectors down.
    pub(super) fn disable_msix(&self, device: &Device<S>) -> Result<(), Refusal> {
        let mut argument = Pptdev { pptfd: device.fd() };
        self.call(Call::DisableMsix, VM_PPTDEV_DISABLE_MSIX, &mut argument)
    }

    fn call<T>(&self, call: Call, request: Request<T>, argument: &mut T) -> Result<(), Refusal> {
        self.file.call(request, argument).map(drop).map_err(|source| call.refused(source))
    }
}

/// The vCPU that the kernel stops while it changes vectors. Which one makes no difference to them, and the first is always
/// there.
const LOCKED: i32 = 0;
