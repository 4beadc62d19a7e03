//! The registers that a root port has, and what they hold after a reset.

use passthru::pci::registers::{
    CAPABILITIES, COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, DEVICE_ID,
    HEADER_TYPE, INTERRUPT_LINE, REVISION_ID, STATUS, STATUS_CAPABILITIES, VENDOR_ID,
};
use passthru::pci::registers::{capability_id, extended_id};

use super::config_space::Register;
use super::{LINK_SPEED, LINK_WIDTH};

/// Red Hat, who lend their ids to virtual hardware.
const VENDOR: u32 = 0x1b36;
/// Generic PCI Express root port; no driver binds to it but those for any root port.
const DEVICE: u32 = 0x000c;
/// PCI-to-PCI bridge, revision 0 (PCI Code and ID Assignment 1.15 §1.7).
const CLASS_AND_REVISION: u32 = 0x0604_0000;
/// Header of a bridge (PCIe 6.0 §7.5.1.1.9).
const TYPE_1: u32 = 1;

/// Type 1 header (PCIe 6.0 §7.5.1.3).
pub(super) const CACHE_LINE: u16 = 0x0c;
pub(super) const PRIMARY_BUS: u16 = 0x18;
pub(super) const SECONDARY_BUS: u16 = 0x19;
pub(super) const SUBORDINATE_BUS: u16 = 0x1a;
pub(super) const IO_BASE: u16 = 0x1c;
pub(super) const IO_LIMIT: u16 = 0x1d;
pub(super) const MEMORY_BASE: u16 = 0x20;
pub(super) const MEMORY_LIMIT: u16 = 0x22;
pub(super) const PREFETCHABLE_BASE: u16 = 0x24;
pub(super) const PREFETCHABLE_LIMIT: u16 = 0x26;
pub(super) const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
pub(super) const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
pub(super) const BRIDGE_CONTROL: u16 = 0x3e;
/// Secondary bus reset.
pub(super) const BRIDGE_CONTROL_RESET: u16 = 1 << 6;
/// Error messages of functions behind the port are passed on.
pub(super) const BRIDGE_CONTROL_SERR: u16 = 1 << 1;
const BRIDGE_CONTROL_PARITY: u16 = 1 << 0;
const COMMAND_PARITY: u16 = 1 << 6;
const COMMAND_SERR: u16 = 1 << 8;
/// Low bits of prefetchable base and limit: 64-bit addresses.
const PREFETCHABLE_64BIT: u32 = 1;

/// PCI Express capability (PCIe 6.0 §7.5.3).
pub(super) const EXPRESS: u16 = 0x40;
pub(super) const LINK_CONTROL: u16 = EXPRESS + 0x10;
pub(super) const LINK_STATUS: u16 = EXPRESS + 0x12;
pub(super) const SLOT_CONTROL: u16 = EXPRESS + 0x18;
pub(super) const SLOT_STATUS: u16 = EXPRESS + 0x1a;
const EXPRESS_FLAGS: u16 = EXPRESS + 2;
const DEVICE_CAPABILITIES: u16 = EXPRESS + 4;
const DEVICE_CONTROL: u16 = EXPRESS + 8;
const LINK_CAPABILITIES: u16 = EXPRESS + 0xc;
const SLOT_CAPABILITIES: u16 = EXPRESS + 0x14;
const LINK_CAPABILITIES_2: u16 = EXPRESS + 0x2c;
const LINK_CONTROL_2: u16 = EXPRESS + 0x30;

/// Capability version 2, root port, with a slot; its events use message 0.
const FLAGS: u32 = 2 | 4 << 4 | 1 << 8;
/// Role-based error reporting, which every function has since PCIe 1.1. Payloads have up to 128 bytes, so that the
/// size needs no register here: a port takes part in no transfer of the functions behind it.
const ROLE_BASED_ERRORS: u32 = 1 << 15;
/// Error reports: enabled like anywhere, but there are none.
const DEVICE_CONTROL_REPORTS: u32 = 0xf;

/// The link says whether it is up; ASPM optionality compliance, as ASPM is not there.
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
const ASPM_OPTIONALITY: u32 = 1 << 22;
pub(super) const LINK_DISABLE: u16 = 1 << 4;
const LINK_COMMON_CLOCK: u16 = 1 << 6;
const LINK_EXTENDED_SYNCH: u16 = 1 << 7;
pub(super) const LINK_SLOT_CLOCK: u16 = 1 << 12;
pub(super) const LINK_ACTIVE: u16 = 1 << 13;
/// Bits of the link status that a link has only while it is up: speed, width, active.
pub(super) const LINK_UP_BITS: u16 = 0x3ff | LINK_ACTIVE;

/// Attention button, power controller, attention and power indicator, surprise removal, hot-plug. A command is
/// completed when its write retires, so nothing reports that (no command completed support).
const SLOT_FEATURES: u32 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 18;
/// Slot control: enables of attention button, power fault, presence, hot-plug interrupt, link state.
pub(super) const SLOT_ENABLE_BUTTON: u16 = 1 << 0;
pub(super) const SLOT_ENABLE_FAULT: u16 = 1 << 1;
pub(super) const SLOT_ENABLE_PRESENCE: u16 = 1 << 3;
pub(super) const SLOT_ENABLE_INTERRUPT: u16 = 1 << 5;
pub(super) const SLOT_ENABLE_LINK: u16 = 1 << 12;
/// Both indicators, two bits each: 1 on, 2 blinking, 3 off.
const SLOT_INDICATORS: u16 = 0xf << 6;
pub(super) const SLOT_INDICATORS_OFF: u16 = 0xf << 6;
pub(super) const SLOT_POWER_INDICATOR: u16 = 0x3 << 8;
pub(super) const SLOT_POWER_INDICATOR_BLINKS: u16 = 0x2 << 8;
pub(super) const SLOT_POWER_INDICATOR_OFF: u16 = 0x3 << 8;
/// Power indicator on, attention indicator off.
pub(super) const SLOT_INDICATORS_POWERED: u16 = 0x1 << 8 | 0x3 << 6;
/// Power controller control: power is off.
pub(super) const SLOT_POWER_OFF: u16 = 1 << 10;
/// Slot status.
pub(super) const SLOT_BUTTON: u16 = 1 << 0;
pub(super) const SLOT_PRESENCE_CHANGED: u16 = 1 << 3;
pub(super) const SLOT_PRESENT: u16 = 1 << 6;
pub(super) const SLOT_LINK_CHANGED: u16 = 1 << 8;

/// Message-signalled interrupts, one vector, 64-bit addresses (PCIe 6.0 §7.7.1).
pub(super) const MSI: u16 = 0x80;
pub(super) const MSI_CONTROL: u16 = MSI + 2;
pub(super) const MSI_ADDRESS: u16 = MSI + 4;
pub(super) const MSI_DATA: u16 = MSI + 0xc;
pub(super) const MSI_ENABLE: u16 = 1 << 0;
const MSI_64BIT: u32 = 1 << 7;

/// Power management (PCIe 6.0 §7.5.2): D0 and D3hot, without PME.
const POWER: u16 = 0x90;
pub(super) const POWER_CONTROL: u16 = POWER + 4;
pub(super) const POWER_STATE: u16 = 0x3;
/// Version 3.
const POWER_CAPABILITIES: u32 = 3;
/// No soft reset: registers stay as they are from D3hot to D0.
const POWER_NO_SOFT_RESET: u32 = 1 << 3;

/// Advanced error reporting (PCIe 6.0 §7.8.4), version 2, the last extended capability. The port makes no errors of its
/// own: its status is empty, and masks and severities are as after a reset.
const ERRORS: u16 = 0x100;
const ERRORS_HEADER: u32 = extended_id::AER as u32 | 2 << 16;
const UNCORRECTABLE_SEVERITY: u32 = 0x0046_2030;
const CORRECTABLE_MASK: u32 = 1 << 13;
pub(super) const ROOT_ERROR_COMMAND: u16 = ERRORS + 0x2c;
pub(super) const ROOT_ERROR_STATUS: u16 = ERRORS + 0x30;
/// Who sent the first uncorrectable error.
pub(super) const ROOT_ERROR_SOURCE: u16 = ERRORS + 0x36;
/// Root error command: interrupts for correctable, non-fatal and fatal errors.
pub(super) const REPORT_FATAL: u32 = 1 << 2;
const REPORTS: u32 = 0x7;
/// Root error status: an uncorrectable error was received, and more of them, the first of them fatal, any of them fatal.
/// Errors use message 0.
pub(super) const UNCORRECTABLE_RECEIVED: u32 = 1 << 2;
pub(super) const MULTIPLE_UNCORRECTABLE: u32 = 1 << 3;
pub(super) const FIRST_FATAL: u32 = 1 << 4;
pub(super) const FATAL_RECEIVED: u32 = 1 << 6;
const RECEIVED: u32 = 0x7f;

const fn register(offset: u16, length: u8, value: u32, writable: u32, clearable: u32) -> Register {
    Register { offset, length, value, writable, clearable }
}

const fn constant(offset: u16, length: u8, value: u32) -> Register {
    register(offset, length, value, 0, 0)
}

/// Id and next capability.
const fn capability(offset: u16, id: u8, next: u16) -> Register {
    constant(offset, 2, id as u32 | (next as u32) << 8)
}

/// All registers of the port of `number`, which is its slot's physical number and its link's. Windows are closed: base
/// above limit.
pub(super) fn registers(number: u8) -> impl Iterator<Item = Register> {
    let number = u32::from(number);
    let command = COMMAND_IO
        | COMMAND_MEMORY
        | COMMAND_BUS_MASTER
        | COMMAND_PARITY
        | COMMAND_SERR
        | COMMAND_INTX_DISABLE;
    let header = [
        constant(VENDOR_ID, 2, VENDOR),
        constant(DEVICE_ID, 2, DEVICE),
        register(COMMAND, 2, 0, command.into(), 0),
        constant(STATUS, 2, STATUS_CAPABILITIES.into()),
        constant(REVISION_ID, 4, CLASS_AND_REVISION),
        register(CACHE_LINE, 1, 0, 0xff, 0),
        constant(HEADER_TYPE, 1, TYPE_1),
        register(PRIMARY_BUS, 1, 0, 0xff, 0),
        register(SECONDARY_BUS, 1, 0, 0xff, 0),
        register(SUBORDINATE_BUS, 1, 0, 0xff, 0),
        // 16-bit ports: the low bits of both are 0.
        register(IO_BASE, 1, 0xf0, 0xf0, 0),
        register(IO_LIMIT, 1, 0, 0xf0, 0),
        register(MEMORY_BASE, 2, 0xfff0, 0xfff0, 0),
        register(MEMORY_LIMIT, 2, 0, 0xfff0, 0),
        register(PREFETCHABLE_BASE, 2, 0xfff0 | PREFETCHABLE_64BIT, 0xfff0, 0),
        register(PREFETCHABLE_LIMIT, 2, PREFETCHABLE_64BIT, 0xfff0, 0),
        register(PREFETCHABLE_BASE_UPPER, 4, u32::MAX, u32::MAX, 0),
        register(PREFETCHABLE_LIMIT_UPPER, 4, 0, u32::MAX, 0),
        constant(CAPABILITIES, 1, EXPRESS.into()),
        register(INTERRUPT_LINE, 1, 0, 0xff, 0),
        register(
            BRIDGE_CONTROL,
            2,
            0,
            (BRIDGE_CONTROL_PARITY | BRIDGE_CONTROL_SERR | BRIDGE_CONTROL_RESET).into(),
            0,
        ),
    ];
    let (speed, width) = (u32::from(LINK_SPEED), u32::from(LINK_WIDTH));
    let link_control = LINK_DISABLE | LINK_COMMON_CLOCK | LINK_EXTENDED_SYNCH;
    let slot_control = SLOT_ENABLE_BUTTON
        | SLOT_ENABLE_FAULT
        | SLOT_ENABLE_PRESENCE
        | SLOT_ENABLE_INTERRUPT
        | SLOT_ENABLE_LINK
        | SLOT_INDICATORS
        | SLOT_POWER_OFF;
    let express = [
        capability(EXPRESS, capability_id::EXPRESS, MSI),
        constant(EXPRESS_FLAGS, 2, FLAGS),
        constant(DEVICE_CAPABILITIES, 4, ROLE_BASED_ERRORS),
        register(DEVICE_CONTROL, 2, 0, DEVICE_CONTROL_REPORTS, 0),
        constant(
            LINK_CAPABILITIES,
            4,
            speed | width << 4 | LINK_ACTIVE_REPORTING | ASPM_OPTIONALITY | number << 24,
        ),
        register(LINK_CONTROL, 2, 0, link_control.into(), 0),
        constant(LINK_STATUS, 2, LINK_SLOT_CLOCK.into()),
        constant(SLOT_CAPABILITIES, 4, SLOT_FEATURES | number << 19),
        register(SLOT_CONTROL, 2, (SLOT_INDICATORS_OFF | SLOT_POWER_OFF).into(), slot_control.into(), 0),
        register(SLOT_STATUS, 2, 0, 0, (SLOT_BUTTON | SLOT_PRESENCE_CHANGED | SLOT_LINK_CHANGED).into()),
        // A bit for each speed up to the greatest, from bit 1.
        constant(LINK_CAPABILITIES_2, 4, ((1 << speed) - 1) << 1),
        register(LINK_CONTROL_2, 2, speed, 0xf, 0),
    ];
    let others = [
        capability(MSI, capability_id::MSI, POWER),
        register(MSI_CONTROL, 2, MSI_64BIT, MSI_ENABLE.into(), 0),
        register(MSI_ADDRESS, 4, 0, !0x3, 0),
        register(MSI_ADDRESS + 4, 4, 0, u32::MAX, 0),
        register(MSI_DATA, 2, 0, 0xffff, 0),
        capability(POWER, capability_id::POWER, 0),
        constant(POWER + 2, 2, POWER_CAPABILITIES),
        register(POWER_CONTROL, 2, POWER_NO_SOFT_RESET, POWER_STATE.into(), 0),
    ];
    let errors = [
        constant(ERRORS, 4, ERRORS_HEADER),
        constant(ERRORS + 0xc, 4, UNCORRECTABLE_SEVERITY),
        constant(ERRORS + 0x14, 4, CORRECTABLE_MASK),
        register(ROOT_ERROR_COMMAND, 4, 0, REPORTS, 0),
        register(ROOT_ERROR_STATUS, 4, 0, 0, RECEIVED),
    ];
    header.into_iter().chain(express).chain(others).chain(errors)
}
