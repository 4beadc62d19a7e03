//! `/dev/vmmctl`: VMs are made and destroyed.

use super::memory::GuestMemory;
use super::{Machine, Vm, VmId};
use crate::abi::{Create, Layout, vmmctl};
use crate::errno::{Errno, Result};
use crate::kernel::{Interface, Options};
use crate::ports::KernelPorts;
use crate::user_memory::UserMemory;

/// Most VMs that there can be.
const MOST: usize = 64;

impl Machine {
    /// An ioctl on `/dev/vmmctl`.
    pub fn control(
        &mut self,
        request: i32,
        user: UserMemory,
        options: &Options,
        ports: &KernelPorts,
    ) -> Result<i32> {
        match request {
            vmmctl::CREATE_VM => {
                let create = Create(Layout(user.read()?));
                let bytes = create.name();
                self.create(name(&bytes)?, create.flags())?;
            }
            vmmctl::DESTROY_VM => {
                let bytes: [u8; vmmctl::NAME] = user.read()?;
                self.destroy(name(&bytes)?, ports)?;
            }
            vmmctl::VM_SUPPORTED => {}
            vmmctl::CHECK_IOMMU if options.iommu => {}
            vmmctl::CHECK_IOMMU => return Err(Errno::ENXIO),
            vmmctl::INTERFACE_VERSION if options.interface == Interface::Now => {
                return Ok(vmmctl::CURRENT_INTERFACE);
            }
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }

    fn create(&mut self, name: &[u8], flags: u64) -> Result<()> {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        if self.vms.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if self.vms.len() >= MOST {
            return Err(Errno::ENXIO);
        }
        self.created += 1;
        let vm = Vm { id: VmId(self.created), memory: GuestMemory::default() };
        self.vms.insert(name.to_vec(), vm);
        Ok(())
    }

    /// Its functions are taken back first; if one cannot be, the VM stays.
    pub fn destroy(&mut self, name: &[u8], ports: &KernelPorts) -> Result<()> {
        let vm = self.find(name)?;
        self.unbind_all(vm, ports)?;
        self.vms.remove(name);
        Ok(())
    }

    /// Takes back all functions of a VM.
    pub(super) fn unbind_all(&mut self, vm: VmId, ports: &KernelPorts) -> Result<()> {
        self.assignments.iter_mut().filter(|a| a.belongs_to(vm)).try_for_each(|a| a.unbind(ports))
    }
}

/// The name of a VM, which is also that of its file.
fn name(bytes: &[u8; vmmctl::NAME]) -> Result<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Errno::EINVAL)?;
    let name = bytes.get(..end).unwrap_or_default();
    if name.is_empty() || name.contains(&b'/') { Err(Errno::EINVAL) } else { Ok(name) }
}
