//! Which writes to configuration space reach a function. `ppt` lets everything through, to a function that belongs to
//! this host's kernel as well: where its BARs are and where its messages go is not a guest's to say. Linux' VFIO keeps
//! such registers itself.

use std::ops::Range;

use crate::pci::capability::{self, read_u16, read_u32};
use crate::pci::registers::{
    BAR0, CAPABILITIES, COMMAND, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, CONVENTIONAL_SIZE,
    HEADER_TYPE, INTERRUPT_PIN, capability_id,
};

/// Registers that are the kernel's.
#[derive(Clone, Debug)]
pub(super) struct Filter(Vec<Range<u16>>);

impl Filter {
    /// For a function with this configuration space.
    pub(super) fn new(config: &[u8]) -> Filter {
        // Type, BARs, expansion ROM, and what is read-only or the guest's own to the end of the header, but cache line size
        // and latency timer.
        let header = [HEADER_TYPE..BAR0, BAR0..CAPABILITIES, CAPABILITIES..0x40];
        let (list, _) = capability::walk(config);
        let vectors = list
            .iter()
            .filter(|capability| matches!(capability.id, capability_id::MSI | capability_id::MSIX))
            .map(|capability| capability.offset..capability.offset.saturating_add(capability.len));
        Filter(header.into_iter().chain(vectors).collect())
    }

    /// What of a write reaches the function: the bytes that are not the kernel's, each with its offset; nothing where the
    /// write leaves the conventional configuration space.
    pub(super) fn pass(&self, offset: u16, data: &[u8]) -> Option<Vec<(u16, u8)>> {
        let end = usize::from(offset).checked_add(data.len())?;
        if end > CONVENTIONAL_SIZE {
            return None;
        }
        let is_kernels = |at: &u16| self.0.iter().any(|range| range.contains(at));
        let passed = (offset..).zip(data.iter().copied()).filter(|(at, _)| !is_kernels(at));
        Some(passed.map(|(at, byte)| (at, byte | held_on(at))).collect())
    }
}

/// Bits of the command register that stay on in a function, by byte. Decoding, since this process' own mapping of it would
/// meet bus errors otherwise, and what the guest no longer decodes is unmapped from it in any case; and INTx stays disabled,
/// since nobody hears it.
fn held_on(at: u16) -> u8 {
    match at {
        COMMAND => (COMMAND_MEMORY | COMMAND_IO) as u8,
        COMMAND_HIGH => (COMMAND_INTX_DISABLE >> 8) as u8,
        _ => 0,
    }
}

const COMMAND_HIGH: u16 = COMMAND + 1;

/// The function interrupts by INTx and in no other way.
pub(super) fn needs_line(config: &[u8]) -> bool {
    read_u16(config, INTERRUPT_PIN) & 0xff != 0 && !has_messages(config)
}

/// The function has MSI or MSI-X.
pub(super) fn has_messages(config: &[u8]) -> bool {
    let (list, _) = capability::walk(config);
    list.iter().any(|capability| matches!(capability.id, capability_id::MSI | capability_id::MSIX))
}

/// The kernel resets it when it is bound and unbound: it has FLR. Other ways of resetting are not tried.
pub(super) fn has_flr(config: &[u8]) -> bool {
    use crate::pci::registers::express::{DEVICE_CAPABILITIES, FUNCTION_LEVEL_RESET};
    let (list, _) = capability::walk(config);
    list.iter().filter(|capability| capability.id == capability_id::EXPRESS).any(|capability| {
        let at = capability.offset.saturating_add(DEVICE_CAPABILITIES);
        read_u32(config, at) & FUNCTION_LEVEL_RESET != 0
    })
}

/// BAR that holds the MSI-X table (PCIe 6.0 §7.7.2.3).
pub(super) fn table_bar(config: &[u8]) -> Option<u8> {
    msix_structure(config, 4).map(|(bar, _)| bar)
}

/// BAR and offset of the MSI-X pending bits (PCIe 6.0 §7.7.2.4).
pub(super) fn pending_bits(config: &[u8]) -> Option<(u8, u64)> {
    msix_structure(config, 8)
}

fn msix_structure(config: &[u8], register: u16) -> Option<(u8, u64)> {
    let (list, _) = capability::walk(config);
    let msix = list.iter().find(|capability| capability.id == capability_id::MSIX && capability.intact)?;
    let value = read_u32(config, msix.offset.saturating_add(register));
    let bar = u8::try_from(value & 7).ok().filter(|bar| usize::from(*bar) < crate::pci::bar::COUNT)?;
    Some((bar, u64::from(value & !7)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MSI at 0x50 (64-bit, with masks, 24 bytes), MSI-X at 0x70, PCI Express with FLR at 0x80.
    fn config() -> Vec<u8> {
        let mut config = vec![0; 256];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &[0x86, 0x80, 0xd2, 0x37]);
        put(0x06, &[0x10]);
        put(0x34, &[0x50]);
        put(0x3d, &[1]);
        put(0x50, &[0x05, 0x70, 0x80, 0x01]);
        put(0x70, &[0x11, 0x80, 0x07, 0x00, 0x03]);
        put(0x80, &[0x10, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x10]);
        config
    }

    #[test]
    fn what_is_the_kernels_stays_its_own() {
        let filter = Filter::new(&config());
        for (offset, data, passed) in [
            (0x04, &[0, 0][..], &[(0x04, 3), (0x05, 4)][..]),
            (0x04, &[4], &[(0x04, 7)]),
            (0x05, &[1], &[(0x05, 5)]),
            (0x06, &[0xff, 0xff], &[(0x06, 0xff), (0x07, 0xff)]),
            (0x0c, &[1, 2, 3, 4], &[(0x0c, 1), (0x0d, 2)]),
            (0x10, &[1, 2, 3, 4], &[]),
            (0x24, &[1, 2, 3, 4], &[]),
            (0x30, &[1, 2, 3, 4], &[]),
            (0x3c, &[1], &[]),
            (0x40, &[1], &[(0x40, 1)]),
            (0x50, &[1, 2, 3, 4], &[]),
            (0x64, &[1, 2, 3, 4], &[]),
            (0x68, &[9], &[(0x68, 9)]),
            (0x70, &[1, 2, 3, 4], &[]),
            (0x7b, &[1], &[]),
            (0x7c, &[1, 2, 3, 4], &[(0x7c, 1), (0x7d, 2), (0x7e, 3), (0x7f, 4)]),
            (0x88, &[1, 2], &[(0x88, 1), (0x89, 2)]),
            (0xff, &[1], &[(0xff, 1)]),
        ] {
            assert_eq!(filter.pass(offset, data).as_deref(), Some(passed), "{offset:#x}");
        }
        for (offset, data) in [(0xff, &[1, 2][..]), (0x100, &[1]), (u16::MAX, &[1, 2, 3, 4])] {
            assert_eq!(filter.pass(offset, data), None, "{offset:#x}");
        }
    }

    #[test]
    fn what_a_function_has_is_in_its_capabilities() {
        let all = config();
        assert_eq!((needs_line(&all), has_flr(&all), table_bar(&all)), (false, true, Some(3)));
        for (at, byte, line, flr, bar) in [
            (0x87, 0x00, false, false, Some(3)),
            (0x74, 0x07, false, true, None),
            (0x06, 0x00, true, false, None),
            (0x70, 0x09, false, true, None),
            (0x50, 0x09, false, true, Some(3)),
        ] {
            let mut config = all.clone();
            config[at] = byte;
            assert_eq!(
                (needs_line(&config), has_flr(&config), table_bar(&config)),
                (line, flr, bar),
                "{at:#x}"
            );
        }
        // One that never interrupts needs none.
        let mut config = all;
        (config[0x06], config[0x3d]) = (0, 0);
        assert!(!needs_line(&config));
    }
}
