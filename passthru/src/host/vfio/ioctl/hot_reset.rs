//! Reset of everything on a bus or in a slot.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_ptr};
use vmm_sys_util::ioctl_io_nr;

use super::{check, get_u16, get_u32, put_u32};
use crate::pci::{HostAddress, Slot};

ioctl_io_nr!(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, VFIO_TYPE.into(), VFIO_BASE + 12);
ioctl_io_nr!(VFIO_DEVICE_PCI_HOT_RESET, VFIO_TYPE.into(), VFIO_BASE + 13);

/// Bytes before the array of `struct vfio_pci_hot_reset_info` and `struct vfio_pci_hot_reset`.
const HEADER: usize = size_of::<vfio_pci_hot_reset_info>();
const _: () = assert!(HEADER == 12 && HEADER == size_of::<vfio_pci_hot_reset>());
/// Bytes of a `struct vfio_pci_dependent_device`: group or device id, segment, bus, device and function.
const ENTRY: usize = size_of::<vfio_pci_dependent_device>();
const _: () = assert!(ENTRY == 8);

/// No bus and nothing behind it has more functions.
const MOST_FUNCTIONS: usize = 1 << 16;

/// Who may reset a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever has this group.
    Group(u32),
    /// The iommufd of the device that was asked about, or nobody else.
    Caller,
    /// Somebody else, or the host.
    Other,
}

/// A function that a hot reset takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affected {
    /// Where it is in the host.
    pub address: HostAddress,
    /// Who may reset it.
    pub owner: Owner,
}

/// All functions that a reset of this one's slot or bus resets, itself among them. ENODEV where there is no such
/// reset.
pub fn affected(device: &File) -> io::Result<Vec<Affected>> {
    let mut entries = 16;
    // A function may come between two calls (EAGAIN, ENOSPC); not again and again.
    for _ in 0..4 {
        let mut info = vec![0u8; HEADER + ENTRY * entries];
        let argsz = info.len() as u32;
        put_u32(&mut info, 0, argsz);
        // SAFETY: the kernel writes at most `argsz` bytes, which is what the vector holds.
        let asked = check(unsafe {
            ioctl_with_mut_ptr(device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO(), info.as_mut_ptr())
        });
        let count = get_u32(&info, 8) as usize;
        match asked {
            Ok(_) => return Ok(parse(&info, count)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOSPC) => entries = count.min(MOST_FUNCTIONS),
                Some(libc::EAGAIN) => {}
                _ => return Err(error),
            },
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

fn parse(info: &[u8], count: usize) -> Vec<Affected> {
    let by_device = get_u32(info, 4) & VFIO_PCI_HOT_RESET_FLAG_DEV_ID != 0;
    let entries = info.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY).take(count);
    entries
        .map(|entry| {
            let id = get_u32(entry, 0);
            let owner = match by_device {
                false => Owner::Group(id),
                true if id as i32 == VFIO_PCI_DEVID_NOT_OWNED => Owner::Other,
                true => Owner::Caller,
            };
            // Bus, then device and function: a requester id, high byte first.
            let id = entry.get(6..8).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes);
            let slot = Slot::from_requester_id(id);
            Affected { address: HostAddress::new(u32::from(get_u16(entry, 4)), slot), owner }
        })
        .collect()
}

/// Resets the slot or bus of a function and everything behind it. `groups` are those of all functions that it resets, or
/// none when the device was opened without a group.
pub fn reset(device: &File, groups: &[BorrowedFd<'_>]) -> io::Result<()> {
    // struct vfio_pci_hot_reset: argsz, flags, count, group_fds.
    let header = [0, 0, groups.len() as u32];
    let mut request: Vec<u32> =
        header.into_iter().chain(groups.iter().map(|group| group.as_raw_fd() as u32)).collect();
    let bytes = (request.len() * size_of::<u32>()) as u32;
    if let Some(argsz) = request.first_mut() {
        *argsz = bytes;
    }
    // SAFETY: the kernel reads `argsz` bytes, which is what the vector holds.
    check(unsafe { ioctl_with_ptr(device, VFIO_DEVICE_PCI_HOT_RESET(), request.as_ptr()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(flags: u32, entries: &[(u32, u16, u8, u8)]) -> Vec<u8> {
        let mut info = vec![0u8; HEADER];
        put_u32(&mut info, 4, flags);
        for (id, segment, bus, devfn) in entries {
            info.extend(id.to_ne_bytes());
            info.extend(segment.to_ne_bytes());
            info.extend([*bus, *devfn]);
        }
        info
    }

    #[test]
    fn answers_name_functions_and_owners() {
        let info = answer(0, &[(7, 0, 3, 0x08), (9, 1, 0xff, 0xff)]);
        let found = parse(&info, 2);
        assert_eq!(found[0].address.to_string(), "0000:03:01.0");
        assert_eq!(found[0].owner, Owner::Group(7));
        assert_eq!(found[1].address.to_string(), "0001:ff:1f.7");

        let ids = [(0, 0, 1, 0), (5, 0, 1, 1), (u32::MAX, 0, 1, 2)];
        let owners: Vec<Owner> = parse(&answer(3, &ids), 3).iter().map(|affected| affected.owner).collect();
        assert_eq!(owners, [Owner::Caller, Owner::Caller, Owner::Other]);
    }

    #[test]
    fn a_count_beyond_the_answer_gives_what_is_there() {
        assert_eq!(parse(&answer(0, &[(1, 0, 0, 0)]), usize::MAX).len(), 1);
        assert_eq!(parse(&[0; 4], 3), []);
    }
}
