//! Functions of many kinds, each driven by the guest's own driver, whose work is checked outside the guest.

pub mod doorbell;
pub mod interrupt_lines;
pub mod iommufd_kernel;
pub mod message_interrupts;
pub mod older_kernel;
pub mod reboots;
pub mod topology;
pub mod virtual_functions;

use guest_tests::{Check, DiskImage, Failure, GuestReport, expect};

/// MiB that check `disk` of the guest writes.
const WRITTEN_MIB: u64 = 1;
/// Bytes of an image behind which a card can stand: a power of two.
const IMAGE_MIB: u64 = 64;

/// The disk below the guest's function at `bdf` holds on the host what the guest wrote, and interrupts of this kind
/// (`msi`, `msix`, `intx`) told its driver so.
pub fn expect_disk(report: &GuestReport, bdf: &str, kind: &str, image: &DiskImage) -> Result<(), Failure> {
    let check = report.check(&format!("disk@{bdf}"))?;
    let sum = image.sha256_of_first(WRITTEN_MIB)?;
    expect!(check.value("sha256")? == sum, "disk at {bdf}: the guest wrote other data than the image holds");
    expect_interrupts(&check, bdf, kind)
}

/// The guest pinged through its NIC at `bdf`, and fetched the file as the host has it.
pub fn expect_network(report: &GuestReport, bdf: &str, kind: &str, file: &DiskImage) -> Result<(), Failure> {
    let check = report.check(&format!("network@{bdf}"))?;
    let sum = file.sha256()?;
    expect!(check.value("sha256")? == sum, "NIC at {bdf}: the guest fetched other data than the file holds");
    expect_interrupts(&check, bdf, kind)
}

fn expect_interrupts(check: &Check, bdf: &str, kind: &str) -> Result<(), Failure> {
    let found = check.value("kind")?;
    expect!(found == kind, "function at {bdf}: its driver has {found}, not {kind}");
    let chip = check.value("chip")?;
    let right = match kind {
        "msi" => chip.starts_with("PCI-MSI-"),
        "msix" => chip.starts_with("PCI-MSIX-"),
        _ => chip == "IO-APIC",
    };
    expect!(right, "function at {bdf}: {kind} interrupts by way of {chip}");
    expect!(check.number("interrupts")? > 0, "function at {bdf}: no {kind} interrupt came");
    Ok(())
}
