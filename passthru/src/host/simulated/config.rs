//! The configuration space of the simulated function.

/// Vendor id; not assigned to anybody by the PCI SIG.
pub const VENDOR: u16 = 0x5350;
/// Device id.
pub const DEVICE: u16 = 0x0001;
/// INTA.
pub const PIN: u8 = 1;
/// MSI vectors.
pub const MSI_VECTORS: u16 = 8;
/// MSI-X vectors.
pub const MSIX_VECTORS: u16 = 256;
/// Where the MSI-X table is in BAR 4.
pub const MSIX_TABLE: u32 = 0;
/// Where the pending bits are in BAR 4.
pub const MSIX_PENDING: u32 = 0x8000;

/// Bytes of each BAR, by index.
pub const BAR_SIZES: [u64; 6] = [0x1000, 0x40, 1 << 20, 0, 0x1_0000, 0];

/// A PCI Express endpoint with one BAR of each kind, power management, MSI, MSI-X and a serial number.
pub fn build() -> Vec<u8> {
    let mut config = vec![0; 4096];
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(to) = config.get_mut(offset..offset + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    put(0x00, &VENDOR.to_le_bytes());
    put(0x02, &DEVICE.to_le_bytes());
    put(0x06, &[0x10, 0x00]);
    // Revision 1, a class of its own.
    put(0x08, &[0x01, 0x00, 0x00, 0xff]);
    // BAR 0: 32-bit memory; 1: I/O; 2: 64-bit prefetchable; 4: 64-bit.
    put(0x10, &[0x00]);
    put(0x14, &[0x01]);
    put(0x18, &[0x0c]);
    put(0x20, &[0x04]);
    put(0x2c, &VENDOR.to_le_bytes());
    put(0x2e, &DEVICE.to_le_bytes());
    put(0x34, &[0x40]);
    put(0x3d, &[PIN]);
    // Power management version 3, no PME.
    put(0x40, &[0x01, 0x50, 0x03, 0x00, 0x08, 0x00]);
    // MSI: 64-bit, per-vector masking.
    put(0x50, &[0x05, 0x70, 0x80 | (MSI_VECTORS.ilog2() as u8) << 1, 0x01]);
    put(0x70, &[0x11, 0x80]);
    put(0x72, &(MSIX_VECTORS - 1).to_le_bytes());
    put(0x74, &(MSIX_TABLE | 4).to_le_bytes());
    put(0x78, &(MSIX_PENDING | 4).to_le_bytes());
    // PCI Express version 2 endpoint with function-level reset, 2.5 GT/s, one lane.
    put(0x80, &[0x10, 0x00, 0x02, 0x00, 0x00, 0x80, 0x00, 0x10]);
    put(0x8c, &[0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0x11, 0x00]);
    put(0x100, &[0x03, 0x00, 0x01, 0x00, 0x01, 0, 0, 0, b'S', b'L', b'T', b'P']);
    config
}
