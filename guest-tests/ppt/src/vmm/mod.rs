//! The virtual machines that there are, and what `/dev/vmmctl` and `/dev/vmm/<name>` answer.

mod control;
mod memory;
#[cfg(test)]
mod misuse_tests;
#[cfg(test)]
mod tests;
pub mod vm;

use std::collections::BTreeMap;

use crate::assignment::Assignment;
use crate::errno::{Errno, Result};
use memory::GuestMemory;

/// Names a VM; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmId(u64);

/// Everything that one lock guards, as in illumos one mutex does for all of `ppt`.
pub struct Machine {
    vms: BTreeMap<Vec<u8>, Vm>,
    created: u64,
    /// By instance of the driver.
    assignments: Vec<Assignment>,
}

struct Vm {
    id: VmId,
    memory: GuestMemory,
}

impl Machine {
    /// No VM, and these functions.
    pub fn new(assignments: Vec<Assignment>) -> Machine {
        Machine { vms: BTreeMap::new(), created: 0, assignments }
    }

    /// The VM of this name.
    pub fn find(&self, name: &[u8]) -> Result<VmId> {
        self.vms.get(name).map(|vm| vm.id).ok_or(Errno::ENOENT)
    }

    /// The guest addresses and bytes of a VM's wired memory.
    pub fn wired(&self, name: &[u8]) -> Vec<(u64, u64)> {
        self.vms.get(name).map_or_else(Vec::new, |vm| vm.memory.wired())
    }

    /// The names of all VMs.
    pub fn names(&self) -> Vec<Vec<u8>> {
        self.vms.keys().cloned().collect()
    }

    /// The VM, if it has not been destroyed.
    fn vm(&mut self, id: VmId) -> Result<&mut Vm> {
        self.vms.values_mut().find(|vm| vm.id == id).ok_or(Errno::ENXIO)
    }

    fn assignment(&mut self, function: usize) -> Result<&mut Assignment> {
        self.assignments.get_mut(function).ok_or(Errno::EBADF)
    }
}
