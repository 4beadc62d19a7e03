//! What the guest finds, in lines for a person.

use core::fmt;

use runtime::acpi::Acpi;
use runtime::capability::{self, Capability};
use runtime::config::ConfigSpace;
use runtime::function::{Function, Id};
use runtime::msi::Msi;
use runtime::{Boot, msix, print, println, time};

/// Bytes, in the largest unit that divides them.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self(bytes) = *self;
        match bytes {
            _ if bytes != 0 && bytes.is_multiple_of(1 << 30) => write!(f, "{:>4} GiB", bytes >> 30),
            _ if bytes != 0 && bytes.is_multiple_of(1 << 20) => write!(f, "{:>4} MiB", bytes >> 20),
            _ if bytes != 0 && bytes.is_multiple_of(1 << 10) => write!(f, "{:>4} KiB", bytes >> 10),
            _ => write!(f, "{bytes:>4} B  "),
        }
    }
}

pub fn machine(boot: &Boot, vcpus: usize) {
    println!("\nmachine");
    // The hole below 1 MiB and the firmware's pages are less than one.
    println!("  memory        {} MiB", boot.memory.total().div_ceil(1 << 20));
    println!("  vCPUs         {vcpus}");
    println!("  time stamps   {} MHz", time::cycles_per_microsecond());
    match boot.acpi.as_ref().and_then(Acpi::ecam) {
        Some(ecam) => {
            let (first, last) = ecam.buses();
            println!("  ECAM          {:#x}, buses {first:02x} to {last:02x}", ecam.base());
        }
        None => println!("  ECAM          none"),
    }
}

pub fn function(function: &Function) {
    println!("\nfunction {}", function.slot());
    let class = function.read32(8);
    println!(
        "  id            {}, revision {:02x}, class {:06x}",
        Id(function.id()),
        class & 0xff,
        class >> 8
    );
    for bar in function.bars().into_iter().flatten() {
        println!("  BAR{}          {:<29}{} at {:#x}", bar.index, bar.kind, Size(bar.size), bar.address);
    }
    for Capability { offset, id } in function.capabilities() {
        print!("  capability    {offset:02x}  {}", capability::name(id));
        details(function, id, u16::from(offset));
        println!();
    }
}

fn details(function: &Function, id: u8, offset: u16) {
    match id {
        capability::MSI => {
            if let Ok(msi) = Msi::of(function) {
                let width = if msi.is_64_bit() { "64-bit" } else { "32-bit" };
                let maskable = if msi.is_maskable() { ", maskable" } else { "" };
                print!(", {} vectors, {width}{maskable}", msi.vectors());
            }
        }
        capability::MSIX => {
            let (vectors, table, pending) = msix::describe(function, offset);
            print!(", {vectors} vectors, table in BAR{} at {:#x}", table.bar, table.offset);
            print!(", pending bits in BAR{} at {:#x}", pending.bar, pending.offset);
        }
        capability::PCI_EXPRESS => match function.read16(offset + 2) >> 4 & 0xf {
            0 => print!(", endpoint"),
            9 => print!(", root-complex integrated endpoint"),
            other => print!(", device type {other}"),
        },
        _ => {}
    }
}
