//! MSI and MSI-X of a function, as the driver sets them up: the one or the other.
//!
//! A vector of MSI-X that is torn down is masked, not forgotten: the driver masks the entry of the function's table, and
//! the function keeps what it has to signal as its pending bit until the entry is unmasked (PCIe 6.0 §6.1.4.5). Everything
//! that turns the whole kind off drops it.

use log::debug;
use passthru::host::{Cause, HostError, MessageKind, VectorChange, VectorState};
use passthru::ports::{MsiMessage, PortError, PortOperation};

use super::Assignment;
use crate::abi::{MAX_MSI, Msi, Msix};
use crate::errno::{Errno, Result};

/// Bit 0 of a table entry's vector control (PCIe 6.0 §7.7.2.9).
const MASKED: u32 = 1;

/// What is set up.
pub enum Interrupts {
    /// Nothing.
    None,
    /// MSI.
    Msi,
    /// MSI-X, and which vectors are installed.
    Msix(Vec<bool>),
}

impl Assignment {
    /// `VM_PPTDEV_MSI`. Whatever comes of it, the MSI of before is gone.
    pub fn set_msi(&mut self, msi: &Msi) -> Result<()> {
        let wanted = u16::try_from(msi.vectors()).map_err(|_| Errno::EINVAL)?;
        if matches!(self.interrupts, Interrupts::Msix(_)) && wanted > 0 {
            return Err(Errno::EBUSY);
        }
        self.tear_down_msi()?;
        if wanted == 0 {
            return Ok(());
        }
        // illumos would take the function's line here, and inject it as this message.
        let limit = self.device.msi_limit().ok_or(Errno::ENXIO)?;
        if wanted > limit {
            return Err(Errno::EINVAL);
        }
        let changes: Vec<VectorChange> = (0..wanted)
            .map(|vector| VectorChange {
                vector,
                state: VectorState::Armed(message(msi.address(), msi.data().wrapping_add(vector.into()))),
            })
            .collect();
        self.interrupts = Interrupts::Msi;
        self.install(MessageKind::Msi, wanted, &changes).inspect_err(|_| {
            let _ = self.tear_down_msi();
        })
    }

    /// `VM_PPTDEV_MSIX`. The first for a function turns MSI-X on, with all vectors that there are.
    pub fn set_msix(&mut self, msix: &Msix) -> Result<()> {
        let index = usize::try_from(msix.index()).map_err(|_| Errno::EINVAL)?;
        if matches!(self.interrupts, Interrupts::Msi) {
            return Err(Errno::EBUSY);
        }
        let count = self.device.msix_limit().ok_or(Errno::EINVAL)?;
        if matches!(self.interrupts, Interrupts::None) {
            self.install(MessageKind::Msix, count, &[]).map_err(|_| Errno::EINVAL)?;
            self.interrupts = Interrupts::Msix(vec![false; usize::from(count)]);
        }
        let Interrupts::Msix(installed) = &mut self.interrupts else { return Err(Errno::EBUSY) };
        let entry = installed.get_mut(index).ok_or(Errno::EINVAL)?;
        let was_installed = std::mem::take(entry);
        let state = match msix.vector_control() & MASKED {
            0 => VectorState::Armed(message(msix.address(), msix.data())),
            // There is nothing to tear down.
            _ if !was_installed => return Ok(()),
            _ => VectorState::Masked,
        };
        let vector = u16::try_from(index).map_err(|_| Errno::EINVAL)?;
        self.install(MessageKind::Msix, count, &[VectorChange { vector, state }])?;
        if let Interrupts::Msix(installed) = &mut self.interrupts
            && let Some(entry) = installed.get_mut(index)
        {
            *entry = state != VectorState::Masked;
        }
        Ok(())
    }

    /// `VM_PPTDEV_DISABLE_MSIX`; nothing happens while MSI-X is off.
    pub fn disable_msix(&mut self) -> Result<()> {
        if matches!(self.interrupts, Interrupts::Msix(_)) {
            self.host().disable_vectors(MessageKind::Msix).map_err(super::failed(Errno::EIO))?;
            self.interrupts = Interrupts::None;
        }
        Ok(())
    }

    pub(super) fn tear_down_msi(&mut self) -> Result<()> {
        if matches!(self.interrupts, Interrupts::Msi) {
            self.host().disable_vectors(MessageKind::Msi).map_err(super::failed(Errno::EIO))?;
            self.interrupts = Interrupts::None;
        }
        Ok(())
    }

    fn install(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Result<()> {
        let errors = self.host().set_vectors(kind, count, changes);
        let mut failed = false;
        for error in errors {
            debug!("{error}");
            failed |= !is_no_interrupt(&error);
        }
        if failed { Err(Errno::ENXIO) } else { Ok(()) }
    }
}

/// What the driver checks of `VM_PPTDEV_MSI` before it looks at whose function it is.
pub fn is_msi_count(vectors: i32) -> bool {
    (0..=MAX_MSI).contains(&vectors)
}

/// A message that would raise nothing. The driver takes it, and what it would inject with it is lost.
fn is_no_interrupt(error: &HostError) -> bool {
    matches!(error.source, Cause::Port(PortError { operation: PortOperation::Message(_), .. }))
}

/// A function writes 32 bits.
fn message(address: u64, data: u64) -> MsiMessage {
    MsiMessage { address, data: data as u32 }
}
