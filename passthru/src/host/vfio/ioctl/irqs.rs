//! A device's interrupts: INTx, vectors of MSI and MSI-X, and the kernel's own events.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ptr};
use vmm_sys_util::ioctl_io_nr;

use super::check;
use crate::host::eventfd::Refused;

ioctl_io_nr!(VFIO_DEVICE_GET_IRQ_INFO, VFIO_TYPE.into(), VFIO_BASE + 9);
ioctl_io_nr!(VFIO_DEVICE_SET_IRQS, VFIO_TYPE.into(), VFIO_BASE + 10);

/// Vectors of an interrupt index (`VFIO_PCI_MSI_IRQ_INDEX`, ...) and its flags; none when the device lacks it.
pub fn irq_info(device: &File, index: u32) -> (u16, u32) {
    let mut info =
        vfio_irq_info { argsz: size_of::<vfio_irq_info>() as u32, index, ..vfio_irq_info::default() };
    // SAFETY: the kernel writes at most `argsz` bytes, the size of the struct.
    match check(unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_GET_IRQ_INFO(), &mut info) }) {
        Ok(_) => (u16::try_from(info.count).unwrap_or(u16::MAX), info.flags),
        Err(_) => (0, 0),
    }
}

/// Points the vectors from `first` on at eventfds, or at nothing.
pub fn set_eventfds(
    device: &File,
    index: u32,
    first: u16,
    events: &[Option<BorrowedFd<'_>>],
) -> Result<(), Refused> {
    let fds: Vec<i32> = events.iter().map(|event| event.map_or(-1, |event| event.as_raw_fd())).collect();
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    match set_irqs(device, index, flags, first, fds.len() as u32, &fds)? {
        0 => Ok(()),
        // As many vectors as the host can set up, which is fewer than asked for.
        available => Err(Refused {
            source: io::Error::from_raw_os_error(libc::ENOSPC),
            available: u16::try_from(available).ok(),
        }),
    }
}

/// Lets an interrupt that has no number, such as INTx, signal `event`.
pub fn set_eventfd(device: &File, index: u32, event: BorrowedFd<'_>) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    set_irqs(device, index, flags, 0, 1, &[event.as_raw_fd()]).map(drop)
}

/// Lets INTx be unmasked by a signal on `event`; one that it counts already unmasks it now.
pub fn set_unmask_eventfd(device: &File, event: BorrowedFd<'_>) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK;
    set_irqs(device, VFIO_PCI_INTX_IRQ_INDEX, flags, 0, 1, &[event.as_raw_fd()]).map(drop)
}

/// Unmasks INTx.
pub fn unmask_intx(device: &File) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;
    set_irqs(device, VFIO_PCI_INTX_IRQ_INDEX, flags, 0, 1, &[]).map(drop)
}

/// Turns an interrupt index off.
pub fn disable_irqs(device: &File, index: u32) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    set_irqs(device, index, flags, 0, 0, &[]).map(drop)
}

fn set_irqs(device: &File, index: u32, flags: u32, first: u16, count: u32, fds: &[i32]) -> io::Result<i32> {
    // struct vfio_irq_set: argsz, flags, index, start, count, data.
    let header = [0, flags, index, u32::from(first), count];
    let mut set: Vec<u32> = header.into_iter().chain(fds.iter().map(|fd| *fd as u32)).collect();
    let bytes = (set.len() * size_of::<u32>()) as u32;
    if let Some(argsz) = set.first_mut() {
        *argsz = bytes;
    }
    // SAFETY: the kernel reads `argsz` bytes, which is what the vector holds.
    check(unsafe { ioctl_with_ptr(device, VFIO_DEVICE_SET_IRQS(), set.as_ptr()) })
}
