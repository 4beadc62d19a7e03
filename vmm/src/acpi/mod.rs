//! ACPI tables that describe the guest's machine (ACPI 6.5), as bytes for [`layout::ACPI_TABLES`].
//!
//! RSDP, FACS, DSDT, FADT, MADT, MCFG and XSDT, in this order: the RSDP must be first, and each table needs the
//! addresses of those before it.

mod dsdt;
mod fixed;
mod host_bridge;
mod interrupts;
mod osc;
mod platform;

#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

pub use platform::{Error, HostBridge, IntxPin, Platform};

use crate::layout;
use crate::memory::GuestMemory;

/// Identity in the tables' headers: OEM, table and revision.
const OEM_ID: [u8; 6] = *b"SLOTPA";
const OEM_TABLE_ID: [u8; 8] = *b"SLOTPASS";
const OEM_REVISION: u32 = 1;

/// The tables as they go to guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    bytes: Vec<u8>,
    /// Signature and offset in `bytes` of each table that the RSDP leads to.
    index: Vec<([u8; 4], usize)>,
}

impl Tables {
    /// Describes `platform`.
    pub fn build(platform: &Platform<'_>) -> Result<Self, Error> {
        platform.check()?;
        let mut tables = Tables { bytes: vec![0; Rsdp::len()], index: Vec::new() };
        let facs = tables.add(*b"FACS", &FACS::new());
        let dsdt = tables.add(*b"DSDT", &dsdt::dsdt(platform));
        let fadt = tables.add(*b"FACP", &fixed::fadt(facs as u32, dsdt as u32));
        let madt = tables.add(*b"APIC", &interrupts::madt(platform.cpus));
        let mcfg = tables.add(*b"MCFG", &mcfg(platform));
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        for address in [fadt, madt, mcfg] {
            xsdt.add_entry(address);
        }
        let xsdt = tables.add(*b"XSDT", &xsdt);
        let mut rsdp = Vec::new();
        Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
        tables.bytes.splice(..Rsdp::len(), rsdp);

        let room = layout::ACPI_TABLES.end - layout::ACPI_TABLES.start;
        let size = tables.bytes.len() as u64;
        if size > room { Err(Error::TooLarge { size, room }) } else { Ok(tables) }
    }

    /// Appends a table on a 64-byte boundary, which the FACS needs, and gives its guest address.
    fn add(&mut self, signature: [u8; 4], table: &dyn Aml) -> u64 {
        let offset = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(offset, 0);
        table.to_aml_bytes(&mut self.bytes);
        self.index.push((signature, offset));
        layout::ACPI_TABLES.start + offset as u64
    }

    /// Guest address of the RSDP.
    pub fn rsdp(&self) -> u64 {
        layout::ACPI_TABLES.start
    }

    /// All tables, the first byte for guest address [`layout::ACPI_TABLES`]`.start`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The table with this signature, `FACP` and `APIC` for FADT and MADT.
    pub fn table(&self, signature: [u8; 4]) -> Option<&[u8]> {
        let (_, offset) = self.index.iter().find(|(name, _)| *name == signature)?;
        let table = self.bytes.get(*offset..)?;
        let length = table.get(4..8)?.first_chunk().copied().map(u32::from_le_bytes)?;
        table.get(..length as usize)
    }

    /// Puts the tables into guest memory, at start and at each guest reset.
    pub fn write(&self, memory: &GuestMemory) -> Result<(), GuestMemoryError> {
        memory.write_slice(&self.bytes, GuestAddress(layout::ACPI_TABLES.start))
    }
}

/// ECAM of segment 0 (PCI Firmware Specification 3.3 §4.1.2), up to the last bus of a host bridge.
///
/// ECAM decodes all 256 buses, but Linux searches each bus that is named here for devices, host bridge or not.
fn mcfg(platform: &Platform<'_>) -> MCFG {
    let last_bus = platform.host_bridges.iter().map(HostBridge::last_bus).max().unwrap_or(0);
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM.start, 0, 0, last_bus);
    mcfg
}
