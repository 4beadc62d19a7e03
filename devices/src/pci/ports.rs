//! Which buses are behind root ports, and where the ports are.

use std::fmt;

use passthru::pci::Slot;

/// Buses that can be behind a root port.
pub const FIRST_BUS: u8 = 1;
/// See [`FIRST_BUS`].
pub const LAST_BUS: u8 = 15;
/// The device of bus 0 that the port of bus 0 would be.
const DEVICE_0: u8 = 15;

/// Where the root port of `bus` is: device 15 + bus of bus 0. Nothing for a bus that no port can have.
pub const fn root_port_slot(bus: u8) -> Option<Slot> {
    if bus < FIRST_BUS || bus > LAST_BUS { None } else { Slot::new(0, DEVICE_0 + bus, 0) }
}

/// The buses behind root ports.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PortBuses(u16);

impl PortBuses {
    /// Whether `bus` is behind a root port.
    pub const fn contains(self, bus: u8) -> bool {
        bus <= LAST_BUS && self.0 >> bus & 1 == 1
    }

    /// The buses, in rising order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (FIRST_BUS..=LAST_BUS).filter(move |bus| self.contains(*bus))
    }

    /// The last one.
    pub fn last(self) -> Option<u8> {
        self.iter().last()
    }

    /// There are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The device of bus 0 that an INTx pin of the function at `slot` is an input of: its own, or the root port's
    /// before it. Each bridge rotates pins by the device number (PCIe 6.0 §2.2.8.1), and behind a port that is 0.
    pub fn wired_device(self, slot: Slot) -> u8 {
        let port = root_port_slot(slot.bus()).filter(|_| self.contains(slot.bus()));
        port.unwrap_or(slot).device()
    }
}

impl FromIterator<u8> for PortBuses {
    /// Buses that no port can have are left out.
    fn from_iter<I: IntoIterator<Item = u8>>(buses: I) -> PortBuses {
        let bits = buses.into_iter().filter(|bus| root_port_slot(*bus).is_some());
        PortBuses(bits.fold(0, |bits, bus| bits | 1 << bus))
    }
}

impl fmt::Debug for PortBuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_devices_16_to_30_of_bus_0() {
        for (bus, slot) in [(0, None), (1, Some("0:16:0")), (15, Some("0:30:0")), (16, None), (255, None)] {
            assert_eq!(root_port_slot(bus).map(|slot| slot.to_string()).as_deref(), slot, "{bus}");
        }
    }

    #[test]
    fn buses_of_ports() {
        let buses = PortBuses::from_iter([3, 1, 0, 16, 255, 3, 15]);
        assert_eq!(buses.iter().collect::<Vec<_>>(), [1, 3, 15]);
        assert_eq!((buses.last(), PortBuses::default().last()), (Some(15), None));
        assert!(!buses.contains(0) && !buses.contains(16) && !buses.contains(19) && !buses.is_empty());
    }

    #[test]
    fn pins_behind_a_port_are_the_ports() {
        let buses = PortBuses::from_iter([1]);
        for (slot, device) in [("1:0:0", 16), ("1:0:3", 16), ("0:16:0", 16), ("2:5:0", 5), ("0:8:1", 8)] {
            assert_eq!(buses.wired_device(slot.parse().unwrap()), device, "{slot}");
        }
    }
}
