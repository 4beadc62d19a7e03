//! MADT: processors and interrupt controllers (ACPI 6.5 §5.2.12).
//!
//! Written by hand on a plain table because acpi_tables has neither x2APIC structures nor interrupt source overrides
//! nor NMI structures, and cannot set the flags.

use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout;

/// Flag: there is also a pair of 8259s, as KVM's in-kernel interrupt controllers have.
const PCAT_COMPAT: u32 = 1;
/// Flag of a processor: to be used.
const ENABLED: u32 = 1;
/// Local APIC ids that fit the 8-bit structure; 255 is the broadcast.
const XAPIC_IDS: u32 = 255;
/// MPS INTI flags: polarity active high, trigger mode level.
const ACTIVE_HIGH: u16 = 0b01;
const LEVEL: u16 = 0b11 << 2;
/// The PIT's ISA interrupt and the I/O APIC pin that it has on every PC: pin 0 is the 8259's.
const PIT_IRQ: u8 = 0;
const PIT_GSI: u32 = 2;
/// Local interrupt input of NMI.
const LINT1: u8 = 1;

pub(super) fn madt(cpus: u32) -> Sdt {
    let mut madt = Sdt::new(*b"APIC", 36, 5, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    madt.append_slice(&(layout::LOCAL_APIC as u32).to_le_bytes());
    madt.append_slice(&PCAT_COMPAT.to_le_bytes());
    let mut structures = Vec::new();
    for id in 0..cpus {
        structures.extend(match u8::try_from(id) {
            Ok(short) if id < XAPIC_IDS => local_apic(short),
            _ => local_x2apic(id),
        });
    }
    structures.extend(io_apic());
    structures.extend(source_override(PIT_IRQ, PIT_GSI, 0));
    structures.extend(source_override(layout::SCI_GSI, layout::SCI_GSI.into(), ACTIVE_HIGH | LEVEL));
    structures.extend(local_apic_nmi());
    if cpus > XAPIC_IDS {
        structures.extend(local_x2apic_nmi());
    }
    madt.append_slice(&structures);
    madt
}

/// A structure of the MADT: type, length, contents.
fn structure(kind: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let mut bytes = vec![kind, contents.len() as u8 + 2];
    bytes.extend(contents);
    bytes
}

/// §5.2.12.2; the processor's _UID is its id.
fn local_apic(id: u8) -> Vec<u8> {
    structure(0, &[&[id, id], &ENABLED.to_le_bytes()])
}

/// §5.2.12.12: reserved, id, flags, _UID.
fn local_x2apic(id: u32) -> Vec<u8> {
    structure(9, &[&[0, 0], &id.to_le_bytes(), &ENABLED.to_le_bytes(), &id.to_le_bytes()])
}

/// §5.2.12.3: id 0, reserved, address, first GSI 0.
fn io_apic() -> Vec<u8> {
    structure(1, &[&[0, 0], &(layout::IO_APIC as u32).to_le_bytes(), &0u32.to_le_bytes()])
}

/// §5.2.12.5: bus ISA.
fn source_override(irq: u8, gsi: u32, flags: u16) -> Vec<u8> {
    structure(2, &[&[0, irq], &gsi.to_le_bytes(), &flags.to_le_bytes()])
}

/// §5.2.12.7, of all processors.
fn local_apic_nmi() -> Vec<u8> {
    structure(4, &[&[u8::MAX, 0, 0, LINT1]])
}

/// §5.2.12.13, of all processors.
fn local_x2apic_nmi() -> Vec<u8> {
    structure(10, &[&[0, 0], &u32::MAX.to_le_bytes(), &[LINT1, 0, 0, 0]])
}
