//! `probe-empty`: what is not there reads as all ones and swallows writes.

use core::fmt;

use runtime::config::{ConfigSpace, Ports};
use runtime::slot::Slot;
use runtime::window::Window;
use runtime::{Boot, Check, ensure_equal, port};

/// Buses whose functions are probed.
const BUSES: u8 = 4;
/// Ports that no PC device of ours has.
const PORTS: [u16; 6] = [0x240, 0x2c0, 0x390, 0x580, 0x6a0, 0xaf00];
/// Below the local APIC, clear of I/O APIC (0xfec00000) and HPET (0xfed00000).
const MEMORY: [u64; 3] = [0xfe80_0000, 0xfec8_0000, 0xfed8_0000];

pub struct Probed {
    by_ports: u32,
    by_ecam: u32,
    addresses: usize,
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (ports, Self { by_ports, by_ecam, addresses }) = (PORTS.len(), self);
        write!(
            f,
            "absent functions: {by_ports} by CF8, {by_ecam} by ECAM; {ports} ports; {addresses} addresses"
        )
    }
}

fn all_ones(config: &impl ConfigSpace, slot: Slot, how: &str) -> Check {
    config.write32(0x10, 0);
    ensure_equal!(config.read8(0x0e), u8::MAX, "{slot} by {how}, header type");
    ensure_equal!(config.read16(0), u16::MAX, "{slot} by {how}, vendor");
    ensure_equal!(config.read32(0x10), u32::MAX, "{slot} by {how}, BAR0");
    ensure_equal!(config.read32(0xfc), u32::MAX, "{slot} by {how}, offset 0xfc");
    Ok(())
}

/// `memory`: addresses as well. Not every hypervisor answers those with all ones.
pub fn probe(boot: &Boot, memory: bool) -> Check<Probed> {
    let mut probed = Probed { by_ports: 0, by_ecam: 0, addresses: 0 };
    let ecam = boot.acpi.as_ref().and_then(|acpi| acpi.ecam());
    for number in 0..u16::from(BUSES) << 8 {
        let slot = Slot::new((number >> 8) as u8, (number >> 3 & 31) as u8, (number & 7) as u8);
        let config = Ports.at(slot);
        let by_ecam = ecam.and_then(|ecam| ecam.at(slot));
        if config.read32(0) != u32::MAX {
            if let Some(by_ecam) = by_ecam {
                ensure_equal!(by_ecam.read32(0), config.read32(0), "{slot} by ECAM, id");
            }
            continue;
        }
        all_ones(&config, slot, "CF8")?;
        probed.by_ports += 1;
        if let Some(config) = by_ecam {
            all_ones(&config, slot, "ECAM")?;
            ensure_equal!(config.read32(0x100), u32::MAX, "{slot} by ECAM, offset 0x100");
            ensure_equal!(config.read32(0xffc), u32::MAX, "{slot} by ECAM, offset 0xffc");
            probed.by_ecam += 1;
        }
    }
    for number in PORTS {
        port::write32(number, 0);
        ensure_equal!(port::read8(number), u8::MAX, "port {number:#x}, 8 bits");
        ensure_equal!(port::read16(number), u16::MAX, "port {number:#x}, 16 bits");
        ensure_equal!(port::read32(number), u32::MAX, "port {number:#x}, 32 bits");
    }
    for address in MEMORY.iter().copied().filter(|_| memory) {
        let window = Window::device(address, 16);
        window.write64(0, 0);
        ensure_equal!(window.read8(1), u8::MAX, "address {address:#x}, 8 bits");
        ensure_equal!(window.read16(2), u16::MAX, "address {address:#x}, 16 bits");
        ensure_equal!(window.read32(4), u32::MAX, "address {address:#x}, 32 bits");
        ensure_equal!(window.read64(8), u64::MAX, "address {address:#x}, 64 bits");
        probed.addresses += 1;
    }
    Ok(probed)
}
