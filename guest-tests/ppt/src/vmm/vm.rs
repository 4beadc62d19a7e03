//! `/dev/vmm/<name>`: a VM takes functions and sets them up.

use super::{Machine, VmId};
use crate::abi::{
    Layout, Limits, MAX_CPUS, MemoryMap, MemorySegment, MemoryUnmap, Mmio, Msi, Msix, vm, vmmctl,
};
use crate::assignment::{Assignment, are_pages, is_msi_count};
use crate::errno::{Errno, Result};
use crate::files::FileTable;
use crate::kernel::{Interface, Options};
use crate::ports::KernelPorts;
use crate::user_memory::UserMemory;

/// Who asks, and what of the kernel it takes to answer.
pub struct Caller<'a> {
    /// The VM.
    pub vm: VmId,
    /// The open files of the caller.
    pub files: &'a FileTable,
    /// What the kernel is.
    pub options: &'a Options,
    /// Where guest memory and traps are.
    pub ports: &'a KernelPorts,
}

/// What is not in the interface of 2018.
fn is_new(request: i32) -> bool {
    let new = [vm::UNMAP_PPTDEV_MMIO, vm::MUNMAP_MEMSEG, vm::PPTDEV_DISABLE_MSIX, vmmctl::INTERFACE_VERSION];
    new.contains(&request)
}

impl Machine {
    /// An ioctl on a VM's file.
    pub fn vm_ioctl(&mut self, caller: &Caller<'_>, request: i32, user: UserMemory) -> Result<i32> {
        if caller.options.interface == Interface::Year2018 && is_new(request) {
            return Err(Errno::ENOTTY);
        }
        if request == vmmctl::INTERFACE_VERSION {
            return Ok(vmmctl::CURRENT_INTERFACE);
        }
        self.vm(caller.vm)?;
        match request {
            vm::BIND_PPTDEV | vm::UNBIND_PPTDEV | vm::PPTDEV_DISABLE_MSIX => {
                let pptfd = i32::from_le_bytes(user.read()?);
                self.ownership(caller, request, pptfd)?;
            }
            vm::MAP_PPTDEV_MMIO | vm::UNMAP_PPTDEV_MMIO => {
                let mmio = Mmio(Layout(user.read()?));
                self.mmio(caller, request, &mmio)?;
            }
            vm::PPTDEV_MSI => {
                check_vcpu(user)?;
                let msi = Msi(Layout(user.read()?));
                if !is_msi_count(msi.vectors()) {
                    return Err(Errno::EINVAL);
                }
                self.owned(caller, msi.pptfd())?.set_msi(&msi)?;
            }
            vm::PPTDEV_MSIX => {
                check_vcpu(user)?;
                let msix = Msix(Layout(user.read()?));
                self.owned(caller, msix.pptfd())?.set_msix(&msix)?;
            }
            vm::GET_PPTDEV_LIMITS => {
                let mut limits = Limits(Layout(user.read()?));
                let [msi, msix] = self.owned(caller, limits.pptfd())?.limits();
                limits.set_limits(msi, msix);
                user.write(&limits.0.0)?;
            }
            vm::REINIT => {
                let _flags: [u8; 8] = user.read()?;
                self.unbind_all(caller.vm, caller.ports)?;
            }
            vm::ALLOC_MEMSEG => {
                let segment = MemorySegment(Layout(user.read()?));
                self.vm(caller.vm)?.memory.allocate(&segment)?;
            }
            vm::MMAP_MEMSEG => {
                let map = MemoryMap(Layout(user.read()?));
                self.vm(caller.vm)?.memory.map(&map)?;
            }
            vm::MUNMAP_MEMSEG => {
                let unmap = MemoryUnmap(Layout(user.read()?));
                self.vm(caller.vm)?.memory.unmap(&unmap)?;
            }
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }

    fn ownership(&mut self, caller: &Caller<'_>, request: i32, pptfd: i32) -> Result<()> {
        let Options { interface, iommu } = *caller.options;
        let function = self.assignment(caller.files.ppt(pptfd)?)?;
        match request {
            vm::BIND_PPTDEV => function.bind(caller.vm, interface, iommu, caller.ports),
            vm::UNBIND_PPTDEV => function.of(caller.vm)?.unbind(caller.ports),
            _ => function.of(caller.vm)?.disable_msix(),
        }
    }

    fn mmio(&mut self, caller: &Caller<'_>, request: i32, mmio: &Mmio) -> Result<()> {
        let (gpa, hpa, len) = (mmio.gpa(), mmio.hpa(), mmio.len());
        if request == vm::UNMAP_PPTDEV_MMIO {
            return self.owned(caller, mmio.pptfd())?.unmap_mmio(gpa, len, caller.ports);
        }
        if !are_pages(gpa, hpa, len) {
            return Err(Errno::EINVAL);
        }
        // Of whichever VM: all have the address space of the one VMM.
        let taken = self.assignments.iter().any(|function| function.is_at(gpa, len));
        let function = self.owned(caller, mmio.pptfd())?;
        function.map_mmio(gpa, hpa, len, taken, caller.ports)
    }

    /// The function whose node is open as this number, which must belong to the caller.
    fn owned(&mut self, caller: &Caller<'_>, pptfd: i32) -> Result<&mut Assignment> {
        self.assignment(caller.files.ppt(pptfd)?)?.of(caller.vm)
    }
}

/// The first `int` names a vCPU, whose lock is all it is for. One more than there are is let through, as there.
fn check_vcpu(user: UserMemory) -> Result<()> {
    let vcpu = i32::from_le_bytes(user.read()?);
    if (0..=MAX_CPUS).contains(&vcpu) { Ok(()) } else { Err(Errno::EINVAL) }
}
