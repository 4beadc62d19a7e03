//! Which eventfds a device signals: for the vectors of MSI and MSI-X, and for INTx.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vfio_bindings::bindings::vfio::*;

use super::config::Config;
use super::ioctl::irqs;
use crate::host::MessageKind;
use crate::host::eventfd::{LineTriggers, Refused, Triggers};

pub struct VfioTriggers {
    pub device: Arc<File>,
    pub dynamic_msix: bool,
}

fn index(kind: MessageKind) -> u32 {
    match kind {
        MessageKind::Msi => VFIO_PCI_MSI_IRQ_INDEX,
        MessageKind::Msix => VFIO_PCI_MSIX_IRQ_INDEX,
    }
}

impl Triggers for VfioTriggers {
    fn set(&self, kind: MessageKind, first: u16, events: &[Option<BorrowedFd<'_>>]) -> Result<(), Refused> {
        irqs::set_eventfds(&self.device, index(kind), first, events)
    }

    fn disable(&self, kind: MessageKind) -> io::Result<()> {
        irqs::disable_irqs(&self.device, index(kind))
    }

    fn is_dynamic(&self, kind: MessageKind) -> bool {
        kind == MessageKind::Msix && self.dynamic_msix
    }
}

/// INTx. The kernel takes one kind of interrupt at a time: it is connected when no vectors are on.
pub struct VfioLine {
    pub device: Arc<File>,
    pub config: Arc<Config>,
}

impl LineTriggers for VfioLine {
    fn connect(&self, trigger: BorrowedFd<'_>, unmask: Option<BorrowedFd<'_>>) -> io::Result<()> {
        irqs::set_eventfd(&self.device, VFIO_PCI_INTX_IRQ_INDEX, trigger)?;
        // The kernel takes this eventfd only when INTx is on. A signal on it in between is counted, and unmasks.
        let connected = match unmask {
            Some(unmask) => irqs::set_unmask_eventfd(&self.device, unmask),
            None => Ok(()),
        };
        // Last: up to here the function has not been allowed to assert INTx.
        connected.and_then(|()| self.config.set_intx_connected(true)).inspect_err(|_| {
            let _ = self.disconnect();
        })
    }

    fn unmask(&self) -> io::Result<()> {
        irqs::unmask_intx(&self.device)
    }

    fn disconnect(&self) -> io::Result<()> {
        // The function first: what it asserts without anybody taking it would be lost interrupts to those that share
        // the line in the host, until the host's kernel turns the line off.
        let silenced = self.config.set_intx_connected(false);
        irqs::disable_irqs(&self.device, VFIO_PCI_INTX_IRQ_INDEX).and(silenced)
    }
}
