//! Functions made of bytes.

use crate::host::{Delivery, Description, DmaReach, Region, Report, ResetMethod};

pub fn report() -> Report {
    Report {
        delivery: Delivery::Eventfd,
        intx: false,
        msi: 32,
        msi_masking: true,
        msix: 2048,
        dynamic_msix: true,
        keeps_pending: true,
        dma: DmaReach::Mapped,
        mappings: None,
        granularity: 4096,
        reset: Some(ResetMethod::FunctionLevel),
        power_states: true,
        error_events: false,
        request_events: false,
    }
}

pub fn put(config: &mut [u8], offset: usize, bytes: &[u8]) {
    config[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A PCI Express endpoint like an NVMe drive: a 64-bit non-prefetchable BAR 0 of 16 KiB with the MSI-X structures of
/// 65 vectors at 0x2000 and 0x3000, an I/O BAR 2 and a prefetchable 32-bit BAR 3, and capabilities of every kind.
pub fn endpoint() -> Description {
    let mut config = vec![0; 4096];
    put(&mut config, 0x00, &[0x36, 0x1b, 0x10, 0x00]);
    put(&mut config, 0x06, &[0x10, 0x00]);
    put(&mut config, 0x08, &[0x02, 0x02, 0x08, 0x01]);
    put(&mut config, 0x0e, &[0x80]);
    put(&mut config, 0x10, &[0x04]);
    put(&mut config, 0x18, &[0x01]);
    put(&mut config, 0x1c, &[0x08]);
    put(&mut config, 0x2c, &[0xf4, 0x1a, 0x00, 0x11]);
    put(&mut config, 0x30, &[0x01, 0x00, 0xfe, 0xff]);
    put(&mut config, 0x34, &[0x40]);
    put(&mut config, 0x3c, &[0x0b, 0x01]);
    put(&mut config, 0x40, &[0x11, 0x50, 64, 0x00, 0x00, 0x20, 0, 0, 0x00, 0x30, 0, 0]);
    put(&mut config, 0x50, &[0x05, 0x70, 0x86, 0x01]);
    put(&mut config, 0x70, &[0x01, 0x80, 0xc3, 0xc9]);
    put(&mut config, 0x80, &[0x10, 0xc0, 0x02, 0x00, 0x00, 0x80, 0x00, 0x10, 0x10, 0x28]);
    put(&mut config, 0x8c, &[0x11, 0x04, 0x00, 0x00, 0x00, 0x00, 0x11, 0x00]);
    put(&mut config, 0xc0, &[0x13, 0xd0, 0x06, 0x03]);
    put(&mut config, 0xd0, &[0x09, 0xe0, 0x08, 0x00, 0xde, 0xad, 0xbe, 0xef]);
    put(&mut config, 0xe0, &[0x03, 0x00]);
    put(&mut config, 0x100, &[0x10, 0x00, 0x01, 0x14]);
    put(&mut config, 0x140, &[0x01, 0x00, 0x02, 0x20]);
    put(&mut config, 0x200, &[0x03, 0x00, 0x01, 0x00, 1, 2, 3, 4, 5, 6, 7, 8]);
    let mut bars: [Region; 6] = Default::default();
    bars[0] = Region { size: 0x4000, mappable: vec![0..0x4000], accessible: true };
    bars[2] = Region { size: 0x20, mappable: Vec::new(), accessible: true };
    bars[3] = Region { size: 0x10000, mappable: vec![0..0x10000], accessible: true };
    Description { config, bars, rom: Region::default() }
}
