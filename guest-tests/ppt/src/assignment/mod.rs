//! A function in a VM: who has it, and what the driver has set up for that VM.

#[cfg(test)]
mod interrupt_tests;
mod interrupts;
mod mmio;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use log::{debug, warn};
use passthru::host::{HostError, HostFunction};

use crate::device::Device;
use crate::device::saved_config::{self, SavedConfig};
use crate::errno::{Errno, Result};
use crate::kernel::Interface;
use crate::ports::KernelPorts;
use crate::vmm::VmId;
use interrupts::Interrupts;
use mmio::Segment;

pub use interrupts::is_msi_count;
pub use mmio::are_pages;

/// A function that the driver holds, and the VM that has it.
pub struct Assignment {
    device: Arc<Device>,
    owner: Option<VmId>,
    segments: Vec<Segment>,
    interrupts: Interrupts,
    /// As it was when it was bound.
    pristine: Option<SavedConfig>,
}

impl Assignment {
    /// Nobody's.
    pub fn new(device: Arc<Device>) -> Assignment {
        let (segments, interrupts) = (Vec::new(), Interrupts::None);
        Assignment { device, owner: None, segments, interrupts, pristine: None }
    }

    /// Whether it belongs to this VM.
    pub fn belongs_to(&self, vm: VmId) -> bool {
        self.owner == Some(vm)
    }

    /// The function, which must belong to this VM: nobody's is as busy as another's.
    pub fn of(&mut self, vm: VmId) -> Result<&mut Assignment> {
        if self.belongs_to(vm) { Ok(self) } else { Err(Errno::EBUSY) }
    }

    /// What the host has for its MSI and MSI-X, -1 where it has nothing.
    pub fn limits(&self) -> [i32; 2] {
        [self.device.msi_limit(), self.device.msix_limit()].map(|limit| limit.map_or(-1, i32::from))
    }

    /// Gives the function to a VM, reset.
    pub fn bind(&mut self, vm: VmId, interface: Interface, iommu: bool, ports: &KernelPorts) -> Result<()> {
        let again = interface == Interface::Year2018 && self.belongs_to(vm);
        if self.owner.is_some() && !again {
            return Err(Errno::EBUSY);
        }
        if !iommu {
            return Err(Errno::ENXIO);
        }
        // Nothing of it is on or mapped during a reset. What a VM had mapped that binds it again is there afterwards.
        self.silence()?;
        let places: Vec<_> = self.segments.iter().map(Segment::place).collect();
        self.unmap_all(ports)?;
        self.pristine = Some(self.reset(interface).map_err(|error| failed(Errno::EIO)(error))?);
        self.owner = Some(vm);
        for (gpa, range) in places {
            self.map_segment(gpa, range, ports)?;
        }
        Ok(())
    }

    fn reset(&self, interface: Interface) -> std::result::Result<SavedConfig, HostError> {
        let function = &**self.device.host();
        let before = SavedConfig::save(function)?;
        self.reset_alone();
        before.restore(function)?;
        let pristine = SavedConfig::save(function)?;
        if interface == Interface::Now {
            pristine.enable(function)?;
        }
        Ok(pristine)
    }

    /// A function that cannot be reset, or not without others, is not, without a word to the VM.
    fn reset_alone(&self) {
        let function = &**self.device.host();
        if function.report().resets_alone()
            && let Err(error) = function.reset()
        {
            warn!("{error}");
        }
    }

    /// Takes the function back. After an error it still belongs to the VM, and this can be tried again.
    pub fn unbind(&mut self, ports: &KernelPorts) -> Result<()> {
        self.silence()?;
        self.unmap_all(ports)?;
        self.reset_alone();
        let function = &**self.device.host();
        let pristine = self.pristine.take();
        let restored =
            saved_config::wake(function).and_then(|()| pristine.map_or(Ok(()), |p| p.restore(function)));
        if let Err(error) = restored {
            warn!("{error}");
        }
        self.owner = None;
        Ok(())
    }

    /// No interrupt of it is set up any more.
    fn silence(&mut self) -> Result<()> {
        self.tear_down_msi()?;
        self.disable_msix()
    }

    fn host(&self) -> &Arc<dyn HostFunction> {
        self.device.host()
    }
}

/// For `map_err`: an error of the host is this errno.
fn failed(errno: Errno) -> impl Fn(HostError) -> Errno {
    move |error| {
        debug!("{error}");
        errno
    }
}
