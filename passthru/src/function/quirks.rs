//! What is known of single functions and not to be read from their registers: one table by vendor and device, each
//! entry with its reason and where it is documented.
//!
//! Registers behind the MSI-X structures of a page need an entry where the guest reads them: what it writes there is handed on
//! for every function, but what it reads is zero. Those in front of the structures need none.

use std::ops::RangeInclusive;

use crate::host::BarRange;

/// What a function does that its registers do not say, or say wrongly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// It announces a function-level reset that does not work, or hangs it.
    pub no_flr: bool,
    /// Its INTx does not work: its status does not say that it asserts it, so that it cannot share a line.
    pub no_intx: bool,
    /// Its INTx disable bit does not silence it. The host masks its line instead, which it must have for itself.
    pub intx_unmaskable: bool,
    /// Running what is in its expansion ROM hangs a guest.
    pub rom_hangs: bool,
    /// Ranges of its BARs that are its configuration space again.
    pub config_mirror: &'static [Mirror],
    /// Addresses at which its configuration space is reached through a pair of registers, which is the same for all.
    pub config_window: &'static [ConfigWindow],
    /// A pair of registers through which its MSI-X table is reached.
    pub msix_window: Option<MsixWindow>,
    /// It has registers in the 4 KiB that PCI 3.0 §6.8.2 keeps for its MSI-X structures.
    pub msix_shared: bool,
    /// Where its MSI-X pending bits are in their BAR, should its capability name a place beyond the BAR's end.
    pub msix_pending: Option<u64>,
}

/// A range of a BAR whose registers are the configuration space's. A guest must find there what it finds in its own
/// configuration space: addresses of BARs, the MSI capability. Accesses are answered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The BAR.
    pub bar: u8,
    /// First byte in it, which is that of the vendor id.
    pub offset: u64,
    /// Bytes, 256 or 4096.
    pub len: u64,
    /// Writes to the first two bytes of the MSI capability, which change nothing, go to the function as well: its
    /// driver acknowledges interrupts so.
    pub msi_acknowledge: bool,
}

impl Mirror {
    /// Which byte of configuration space is at `offset` of the BAR.
    pub fn config_offset(&self, offset: u64) -> Option<u16> {
        let at = offset.checked_sub(self.offset).filter(|at| *at < self.len)?;
        u16::try_from(at).ok()
    }
}

/// An address register and a data register. While the address is one of a range, the data is configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigWindow {
    /// The BAR, of I/O ports.
    pub bar: u8,
    /// Offset of the address register, a dword.
    pub address: u64,
    /// Offset of the data register, a dword.
    pub data: u64,
    /// The address that stands for the vendor id.
    pub first: u32,
    /// Addresses from there on, 256 or 4096.
    pub len: u32,
}

impl ConfigWindow {
    /// Which byte of configuration space the data is after `address` was written.
    pub fn config_offset(&self, address: u32) -> Option<u16> {
        let at = address.checked_sub(self.first).filter(|at| *at < self.len)?;
        u16::try_from(at).ok()
    }
}

/// A data register and an address register, which starts a read or write of what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixWindow {
    /// The BAR.
    pub bar: u8,
    /// Offset of the data register, a dword.
    pub data: u64,
    /// Offset of the address register, a dword.
    pub address: u64,
}

/// An access to the MSI-X table that an address starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixWindowAccess {
    /// Byte of the table.
    pub offset: u64,
    /// The data is written there, else read.
    pub write: bool,
}

impl MsixWindow {
    /// What writing `address` starts, if it concerns the MSI-X table: bits 30:16 say what the address is of, bit 31
    /// that it is a write, and bits 11:0 where.
    pub fn access(&self, address: u32) -> Option<MsixWindowAccess> {
        (address & 0x7fff_0000 == 0x1_0000)
            .then_some(MsixWindowAccess { offset: u64::from(address & 0xfff), write: address >> 31 != 0 })
    }
}

impl Quirks {
    /// Parts of its BARs that the guest must not reach by itself.
    pub fn trapped(&self) -> Vec<BarRange> {
        let mirrors =
            self.config_mirror.iter().map(|m| BarRange { bar: m.bar, offset: m.offset, len: m.len });
        let register = |bar, offset| BarRange { bar, offset, len: 4 };
        let config =
            self.config_window.iter().flat_map(|w| [register(w.bar, w.address), register(w.bar, w.data)]);
        let msix =
            self.msix_window.iter().flat_map(|w| [register(w.bar, w.address), register(w.bar, w.data)]);
        mirrors.chain(config).chain(msix).collect()
    }
}

const NO_FLR: Quirks = Quirks { no_flr: true, ..NONE };
const NO_INTX: Quirks = Quirks { no_intx: true, ..NONE };
const INTX_UNMASKABLE: Quirks = Quirks { intx_unmaskable: true, ..NONE };
const NONE: Quirks = Quirks {
    no_flr: false,
    no_intx: false,
    intx_unmaskable: false,
    rom_hangs: false,
    config_mirror: &[],
    config_window: &[],
    msix_window: None,
    msix_shared: false,
    msix_pending: None,
};

/// NVIDIA's mirror at 0x88000 of BAR 0, the register block PCI of envytools' documentation. The driver acknowledges MSI
/// by writing to the capability's id there.
const NVIDIA_MIRROR: Mirror = Mirror { bar: 0, offset: 0x88000, len: 0x1000, msi_acknowledge: true };
/// The one of older ones, of 256 bytes; newer ones have something else there.
const NVIDIA_OLD_MIRROR: Mirror = Mirror { bar: 0, offset: 0x1800, len: 0x100, msi_acknowledge: false };
/// The way there by I/O ports, for firmware.
const NVIDIA_WINDOW: ConfigWindow =
    ConfigWindow { bar: 5, address: 0x8, data: 0xc, first: 0x88000, len: 0x1000 };
const NVIDIA_OLD_WINDOW: ConfigWindow = ConfigWindow { first: 0x1800, len: 0x100, ..NVIDIA_WINDOW };

const NVIDIA: Quirks = Quirks { config_mirror: &[NVIDIA_MIRROR], config_window: &[NVIDIA_WINDOW], ..NONE };
const NVIDIA_OLD: Quirks = Quirks {
    config_mirror: &[NVIDIA_MIRROR, NVIDIA_OLD_MIRROR],
    config_window: &[NVIDIA_WINDOW, NVIDIA_OLD_WINDOW],
    ..NONE
};

/// AMD's mirror at 0x4000 of BAR 2 and the way there by the ports of BAR 4.
const RADEON: Quirks = Quirks {
    config_mirror: &[Mirror { bar: 2, offset: 0x4000, len: 0x1000, msi_acknowledge: false }],
    config_window: &[ConfigWindow { bar: 4, address: 0x0, data: 0x4, first: 0x4000, len: 0x1000 }],
    ..NONE
};

struct Entry {
    vendor: u16,
    devices: RangeInclusive<u16>,
    /// Base class, and sub-class where that counts, if only functions of one have the quirk.
    class: Option<Class>,
    quirks: Quirks,
}

/// The upper bits of class codes, without so many low ones.
#[derive(Clone, Copy)]
struct Class(u32, u32);

const fn device(vendor: u16, device: u16, quirks: Quirks) -> Entry {
    devices(vendor, device..=device, quirks)
}

const fn devices(vendor: u16, devices: RangeInclusive<u16>, quirks: Quirks) -> Entry {
    Entry { vendor, devices, class: None, quirks }
}

const fn displays(vendor: u16, devices: RangeInclusive<u16>, quirks: Quirks) -> Entry {
    Entry { vendor, devices, class: Some(DISPLAY), quirks }
}

/// Display controllers: VGA, and those without (3D).
const DISPLAY: Class = Class(0x03, 16);
/// Network controllers that are no Ethernet controllers.
const OTHER_NETWORK: Class = Class(0x0280, 8);

/// The first entry that fits counts.
#[rustfmt::skip]
const TABLE: &[Entry] = &[
    // FLR hangs the function, or leaves it as it was (Linux drivers/pci/quirks.c, quirk_no_flr).
    device(0x1022, 0x1487, NO_FLR), // AMD Starship and Matisse HD Audio
    device(0x1022, 0x148c, NO_FLR), // AMD Starship USB 3.0
    device(0x1022, 0x149c, NO_FLR), // AMD Matisse USB 3.0
    device(0x1022, 0x7901, NO_FLR), // AMD FCH AHCI: drives are not found after it
    device(0x8086, 0x1502, NO_FLR), // Intel 82579LM
    device(0x8086, 0x1503, NO_FLR), // Intel 82579V
    device(0x14c3, 0x0616, NO_FLR), // MediaTek MT7922: does not answer after it

    // The status bit never says that INTx is asserted (Linux drivers/vfio/pci/vfio_pci_core.c, vfio_pci_nointx).
    device(0x8086, 0x1563, NO_INTX), // Intel X550
    device(0x8086, 0x1572, NO_INTX), // Intel X710 and its kin
    device(0x8086, 0x1574, NO_INTX),
    devices(0x8086, 0x1580..=0x1581, NO_INTX),
    devices(0x8086, 0x1583..=0x158b, NO_INTX),
    devices(0x8086, 0x37d0..=0x37d2, NO_INTX),

    // INTx disable does not work (Linux drivers/pci/quirks.c, quirk_broken_intx_masking and mellanox_broken_intx_devs).
    device(0x1425, 0x0030, INTX_UNMASKABLE), // Chelsio T310
    device(0x1814, 0x0601, INTX_UNMASKABLE), // Ralink RT2800
    device(0x1b7c, 0x0004, INTX_UNMASKABLE), // Ceton InfiniTV 4
    device(0x1102, 0x000b, INTX_UNMASKABLE), // Creative EMU20k2
    device(0x10ec, 0x8169, INTX_UNMASKABLE), // Realtek RTL8169
    device(0x15b3, 0x6340, INTX_UNMASKABLE), // Mellanox ConnectX
    device(0x15b3, 0x634a, INTX_UNMASKABLE),
    device(0x15b3, 0x6354, INTX_UNMASKABLE),
    device(0x15b3, 0x6368, INTX_UNMASKABLE),
    device(0x15b3, 0x6372, INTX_UNMASKABLE),
    device(0x15b3, 0x6732, INTX_UNMASKABLE),
    device(0x15b3, 0x673c, INTX_UNMASKABLE),
    device(0x15b3, 0x6746, INTX_UNMASKABLE),
    device(0x15b3, 0x6750, INTX_UNMASKABLE),
    device(0x15b3, 0x675a, INTX_UNMASKABLE),
    device(0x15b3, 0x6764, INTX_UNMASKABLE),
    device(0x15b3, 0x676e, INTX_UNMASKABLE), // ConnectX-2
    device(0x15b3, 0x1003, INTX_UNMASKABLE), // ConnectX-3
    device(0x15b3, 0x1007, INTX_UNMASKABLE), // ConnectX-3 Pro

    // Configuration space again in BAR 0 (QEMU hw/vfio/pci-quirks.c, vfio_probe_nvidia_bar0_quirk). The ids below 0x400
    // but for 0x190 to 0x19f are of NV4x and older, which have the old mirror.
    displays(0x10de, 0x0190..=0x019f, NVIDIA),
    displays(0x10de, 0x0000..=0x03ff, NVIDIA_OLD),
    displays(0x10de, 0x0400..=0xffff, NVIDIA),

    // Configuration space again in BAR 2, which later Radeons use for doorbells (QEMU hw/vfio/pci-quirks.c,
    // vfio_probe_ati_bar2_quirk and vfio_probe_ati_bar4_quirk, seen on HD 5450 and HD 7850).
    displays(0x1002, 0x6600..=0x663f, RADEON), // Oland
    displays(0x1002, 0x6700..=0x679f, RADEON), // Cayman, Barts, Turks, Caicos, Tahiti
    displays(0x1002, 0x6800..=0x683f, RADEON), // Pitcairn, Cape Verde
    displays(0x1002, 0x6880..=0x68ff, RADEON), // Cypress, Juniper, Redwood, Cedar

    // The driver reaches the MSI-X table through registers (QEMU hw/vfio/pci-quirks.c, vfio_probe_rtl8168_bar2_quirk).
    device(0x10ec, 0x8168, Quirks {
        msix_window: Some(MsixWindow { bar: 2, data: 0x70, address: 0x74 }), ..NONE
    }),

    // Causes and masks of the vectors are 0x800 behind the table's start (Linux drivers/net/wireless/intel/iwlwifi/iwl-csr.h,
    // CSR_MSIX_FH_INT_CAUSES_AD), and the driver reads them with each interrupt.
    Entry {
        vendor: 0x8086,
        devices: 0..=0xffff,
        class: Some(OTHER_NETWORK),
        quirks: Quirks { msix_shared: true, ..NONE },
    }, // Intel Wi-Fi

    // The capability has the pending bits beyond the BAR's end (QEMU hw/vfio/pci.c, vfio_msix_early_setup).
    devices(0x1425, 0x5800..=0x58ff, Quirks { msix_pending: Some(0x1000), ..NONE }), // Chelsio T5's virtual functions
    device(0x1d22, 0x3685, Quirks { msix_pending: Some(0xb400), ..NONE }), // Baidu Kunlun's virtual functions

    // The ROM hangs its guest (QEMU hw/vfio/pci-quirks.c, rom_denylist).
    device(0x14e4, 0x168e, Quirks { rom_hangs: true, ..NONE }), // Broadcom BCM57810
];

/// What is known of the functions with these ids. `class` is the class code: base class in bits 23:16, sub-class in
/// 15:8, interface in 7:0.
pub fn of(vendor: u16, device: u16, class: u32) -> Quirks {
    TABLE
        .iter()
        .find(|entry| {
            entry.vendor == vendor
                && entry.devices.contains(&device)
                && entry.class.is_none_or(|Class(code, without)| class >> without == code)
        })
        .map_or(NONE, |entry| entry.quirks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VGA: u32 = 0x03_0000;

    #[test]
    fn functions_without_an_entry_have_none() {
        assert_eq!(of(0x1b36, 0x0010, 0x01_0802), Quirks::default());
        assert_eq!(of(0x10de, 0x10f0, 0x04_0300), Quirks::default(), "a graphics card's sound");
        assert_eq!(of(0x1002, 0x7300, VGA), Quirks::default(), "doorbells are in BAR 2");
    }

    #[test]
    fn functions_are_found_by_vendor_device_and_class() {
        assert!(of(0x1022, 0x149c, 0x0c_0330).no_flr);
        assert!(of(0x8086, 0x1584, 0x02_0000).no_intx && !of(0x8086, 0x1582, 0x02_0000).no_intx);
        assert!(of(0x10ec, 0x8169, 0x02_0000).intx_unmaskable);
        assert!(of(0x14e4, 0x168e, 0x02_0000).rom_hangs);
        assert_eq!(of(0x1425, 0x5807, 0x02_0000).msix_pending, Some(0x1000));
        assert_eq!([0x02_8000, 0x02_0000].map(|class| of(0x8086, 0x2723, class).msix_shared), [true, false]);
        for (device, mirrors) in [(0x1d13, 1), (0x0191, 1), (0x01d1, 2), (0x0326, 2)] {
            assert_eq!(of(0x10de, device, VGA).config_mirror.len(), mirrors, "{device:#x}");
        }
        assert_eq!(of(0x10de, 0x1eb8, 0x03_0200).config_mirror.len(), 1, "without a display");
        assert_eq!(of(0x1002, 0x68f9, VGA).config_window.len(), 1);
    }

    #[test]
    fn mirrors_and_windows_cover_what_they_say() {
        let nvidia = of(0x10de, 0x1d13, VGA);
        let offsets = [0x87fff, 0x88000, 0x88068, 0x88fff, 0x89000, 0, u64::MAX];
        assert_eq!(
            offsets.map(|offset| nvidia.config_mirror[0].config_offset(offset)),
            [None, Some(0), Some(0x68), Some(0xfff), None, None, None]
        );
        let window = of(0x1002, 0x68f9, VGA).config_window[0];
        assert_eq!(
            [0x3fff, 0x4010, 0x5000, u32::MAX].map(|at| window.config_offset(at)),
            [None, Some(0x10), None, None]
        );
        let window = of(0x10ec, 0x8168, 0x02_0000).msix_window.unwrap();
        let access = |offset, write| Some(MsixWindowAccess { offset, write });
        assert_eq!(
            [0x1f000, 0x8001_f010, 0x2f000, 0x8000_0000].map(|at| window.access(at)),
            [access(0, false), access(0x10, true), None, None]
        );
    }

    #[test]
    fn all_windows_of_a_function_are_behind_the_same_registers() {
        for entry in TABLE {
            let registers = |w: &ConfigWindow| (w.bar, w.address, w.data);
            let windows = entry.quirks.config_window;
            assert!(windows.iter().all(|window| registers(window) == registers(&windows[0])));
        }
    }

    #[test]
    fn no_entry_hides_behind_another() {
        for (index, entry) in TABLE.iter().enumerate() {
            let class = entry.class.map_or(0, |Class(code, without)| code << without);
            assert!(
                entry.devices.clone().any(|device| {
                    TABLE.iter().position(|e| e.vendor == entry.vendor && e.devices.contains(&device))
                        == Some(index)
                        && of(entry.vendor, device, class) == entry.quirks
                }),
                "{:04x}:{:04x}",
                entry.vendor,
                entry.devices.start()
            );
        }
    }
}
