//! `renumber`: a function behind a root port is on whichever bus the port is told, and on no other.

use runtime::config::{ConfigSpace, Ecam, Ports};
use runtime::slot::Slot;
use runtime::{Boot, Check, ensure_equal, fail};

/// Bus numbers that the port gets, one after the other; 0 for none.
const BUSES: [u8; 9] = [5, 200, 6, 5, 0, 255, 254, 0, 1];
/// Primary, secondary and subordinate bus of a bridge.
const BUS_NUMBERS: u16 = 0x18;

/// Gives how often the bus was moved.
pub fn buses(boot: &Boot) -> Check<usize> {
    let Some(ecam) = boot.acpi.as_ref().and_then(|acpi| acpi.ecam()) else {
        fail!("no ECAM in the ACPI tables");
    };
    let root = (0..32).map(|device| Slot::new(0, device, 0));
    let mut found = None;
    for port in root.filter(|slot| Ports.at(*slot).read8(0x0e) & 0x7f == 1) {
        let secondary = Ports.at(port).read8(BUS_NUMBERS + 1);
        let id = Ports.at(Slot::new(secondary, 0, 0)).read32(0);
        if secondary != 0 && id != u32::MAX {
            found = Some((Ports.at(port), id));
            break;
        }
    }
    let Some((port, id)) = found else {
        fail!("no root port with a function behind it");
    };
    let mut now = port.read8(BUS_NUMBERS + 1);
    for bus in BUSES {
        let old = core::mem::replace(&mut now, bus);
        port.write32(BUS_NUMBERS, u32::from(bus) << 8 | u32::from(bus) << 16);
        for (place, expected) in [(old, if old == bus { id } else { u32::MAX }), (bus, id)] {
            // Bus 0 has functions of its own.
            if place != 0 {
                there(&ecam, Slot::new(place, 0, 0), expected)?;
                there(&ecam, Slot::new(place, 0, 1), u32::MAX)?;
            }
        }
    }
    Ok(BUSES.len())
}

fn there(ecam: &Ecam, slot: Slot, id: u32) -> Check {
    ensure_equal!(Ports.at(slot).read32(0), id, "{slot} by CF8");
    if let Some(config) = ecam.at(slot) {
        ensure_equal!(config.read32(0), id, "{slot} by ECAM");
        let command = config.read16(4);
        config.write16(4, command);
        ensure_equal!(config.read16(4), command, "{slot} by ECAM, command");
    }
    Ok(())
}
