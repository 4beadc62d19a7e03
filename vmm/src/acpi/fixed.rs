//! FADT: ACPI's fixed hardware (ACPI 6.5 §5.2.9).

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout;

/// IA-PC boot architecture flags (table 5.11). There is a serial port, so "legacy devices" is set. There is no
/// keyboard controller to probe, only its reset pulse. Links are the host's: the guest must not change ASPM.
const LEGACY_DEVICES: u16 = 1 << 0;
const VGA_NOT_PRESENT: u16 = 1 << 2;
const PCIE_ASPM_CONTROLS: u16 = 1 << 4;

/// Latencies in microseconds above which a processor has no C2 and no C3.
const NO_C2: u16 = 0xfff;
const NO_C3: u16 = 0xfff;

/// The register block of `width` bytes at `port`, in ACPI's generic form.
fn port_block(port: u16, width: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, width * 8, 0, access, port.into())
}

/// The FADT that leads to the FACS and the DSDT.
pub(super) fn fadt(facs: u32, dsdt: u32) -> FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .firmware_ctrl_32(facs)
        .dsdt_64(dsdt.into())
        // Processors keep caches coherent and have HLT.
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // Clear means that the PM1 registers have the power button. Set means absent: no sleep button and no RTC wake
        // status there.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    // Both fields for guests that read only the older one.
    fadt.dsdt = dsdt.into();

    // SMI_CMD 0 says that the machine is in ACPI mode from the start.
    fadt.sci_int = u16::from(layout::SCI_GSI).into();
    fadt.pm1a_evt_blk = u32::from(layout::PM1_EVENT_PORT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = port_block(layout::PM1_EVENT_PORT, 4, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(layout::PM1_CONTROL_PORT).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = port_block(layout::PM1_CONTROL_PORT, 2, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(layout::PM_TIMER_PORT).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = port_block(layout::PM_TIMER_PORT, 4, AccessSize::DwordAccess);

    fadt.reset_reg = port_block(layout::RESET_PORT, 1, AccessSize::ByteAccess);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.iapc_boot_arch = (LEGACY_DEVICES | VGA_NOT_PRESENT | PCIE_ASPM_CONTROLS).into();
    fadt.finalize()
}
