//! DSDT: the devices that cannot be found otherwise.

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::host_bridge::{self, Wirings};
use super::platform::Platform;
use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, osc};
use crate::layout;

/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;

pub(super) fn dsdt(platform: &Platform<'_>) -> Sdt {
    let mut system_bus = Vec::new();
    let mut wirings = Wirings::new();
    let indices: Vec<usize> =
        platform.host_bridges.iter().map(|bridge| wirings.index(bridge, platform.gsi)).collect();
    wirings.to_aml_bytes(&mut system_bus);
    osc::shared_method(&mut system_bus);
    motherboard(&mut system_bus);
    for (bridge, index) in platform.host_bridges.iter().zip(indices) {
        host_bridge::device(bridge, index, &mut system_bus);
    }
    serial_port(&mut system_bus);
    clock(&mut system_bus);
    for id in 0..platform.cpus {
        processor(id, &mut system_bus);
    }

    let mut body = Scope::raw("_SB_".into(), system_bus);
    soft_off(&mut body);
    let mut dsdt = Sdt::new(*b"DSDT", 36, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    dsdt.append_slice(&body);
    dsdt
}

/// `\_S5`: SLP_TYPa and SLP_TYPb of power-off, and two reserved (ACPI 6.5 §7.4.2.6).
fn soft_off(sink: &mut dyn AmlSink) {
    Name::new(Path::new("_S5_"), &Package::new(vec![&layout::SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO]))
        .to_aml_bytes(sink);
}

/// Motherboard resources: what no PCI device may be given. Linux uses ECAM only where it finds it here or reserved
/// in the memory map.
fn motherboard(sink: &mut dyn AmlSink) {
    let ecam =
        Memory32Fixed::new(true, layout::ECAM.start as u32, (layout::ECAM.end - layout::ECAM.start) as u32);
    let fixed = |port: u16, length: u8| IO::new(port, port, 1, length);
    Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &ecam,
                    &fixed(layout::KEYBOARD_COMMAND_PORT, 1),
                    &fixed(layout::DEBUG_EXIT_PORT, 1),
                    &fixed(layout::PM1_EVENT_PORT, 4),
                    &fixed(layout::PM1_CONTROL_PORT, 2),
                    &fixed(layout::PM_TIMER_PORT, 4),
                    &fixed(layout::RESET_PORT, 1),
                ]),
            ),
        ],
    )
    .to_aml_bytes(sink);
}

/// COM1, a 16550A.
fn serial_port(sink: &mut dyn AmlSink) {
    let port = layout::SERIAL_PORT;
    Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &1u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &IO::new(port, port, 1, 8),
                    // An ISA interrupt: edge-triggered, active high, not shared.
                    &Interrupt::new(true, true, false, false, layout::SERIAL_GSI.into()),
                ]),
            ),
        ],
    )
    .to_aml_bytes(sink);
}

/// The RTC, without an interrupt.
fn clock(sink: &mut dyn AmlSink) {
    let port = layout::RTC_PORT;
    Device::new(
        "RTC_".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&IO::new(port, port, 1, 2)])),
        ],
    )
    .to_aml_bytes(sink);
}

/// A processor, which the MADT's _UID refers to (ACPI 6.5 §8.4).
fn processor(id: u32, sink: &mut dyn AmlSink) {
    Device::new(
        Path::new(&format!("C{id:03X}")),
        vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &id)],
    )
    .to_aml_bytes(sink);
}
