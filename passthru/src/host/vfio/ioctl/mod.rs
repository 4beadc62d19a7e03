//! VFIO's and iommufd's calls (`linux/vfio.h`, `linux/iommufd.h`), with the errno that they give and none of their
//! pointers.
//!
//! Those of vfio-ioctls and iommufd-ioctls are used for DMA mappings; the others lose errnos, skip regions, always start at
//! vector 0, or are not there.

pub mod device;
pub mod group;
pub mod hot_reset;
pub mod iommufd;
pub mod irqs;

use std::io;
use std::os::fd::AsRawFd;

use vmm_sys_util::ioctl::ioctl_with_mut_ptr;

/// No call answers with more than this; a region's sparse areas and the IOVA ranges of an IOMMU take a few hundred
/// bytes.
const MOST_INFO: usize = 1 << 16;

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Asks twice: the first answer tells how many bytes the whole one has (`argsz`).
fn query(file: &impl AsRawFd, request: libc::c_ulong, header: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut info = header.clone();
    // SAFETY: the kernel writes at most `argsz` bytes, which the header says is its own length.
    check(unsafe { ioctl_with_mut_ptr(file, request, info.as_mut_ptr()) })?;
    let whole = get_u32(&info, 0) as usize;
    if whole > info.len() && whole <= MOST_INFO {
        info = header;
        info.resize(whole, 0);
        put_u32(&mut info, 0, whole as u32);
        // SAFETY: as above, with the length that the first answer asked for.
        check(unsafe { ioctl_with_mut_ptr(file, request, info.as_mut_ptr()) })?;
    }
    Ok(info)
}

/// Id and offset of each capability in an answer (`struct vfio_info_cap_header`: id, version, next).
fn info_capabilities(info: &[u8], first: u32) -> Vec<(u16, usize)> {
    let mut found: Vec<(u16, usize)> = Vec::new();
    let mut at = first as usize;
    while at != 0 && at + 8 <= info.len() && found.iter().all(|(_, seen)| *seen != at) {
        found.push((get_u32(info, at) as u16, at));
        at = get_u32(info, at + 4) as usize;
    }
    found
}

fn get_u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(to) = bytes.get_mut(at..at + 4) {
        to.copy_from_slice(&value.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_answers_are_walked_within_bounds() {
        let mut info = vec![0u8; 64];
        put_u32(&mut info, 32, 1 | 1 << 16);
        put_u32(&mut info, 36, 48);
        put_u32(&mut info, 48, 2);
        assert_eq!(info_capabilities(&info, 32), [(1, 32), (2, 48)]);
        put_u32(&mut info, 52, 32);
        assert_eq!(info_capabilities(&info, 32), [(1, 32), (2, 48)], "a cycle ends");
        assert_eq!(info_capabilities(&info, 60), [], "a header that does not fit");
        assert_eq!(info_capabilities(&info, u32::MAX), []);
    }
}
