//! Rules for which slots may be taken together, and what follows from them, before any device is opened.

use std::collections::{BTreeMap, BTreeSet};

use passthru::pci::Slot;

use super::ports::{FIRST_BUS, LAST_BUS, PortBuses, root_port_slot};

/// The slot of bus 0's host bridge.
pub const HOST_BRIDGE: Slot = Slot::from_requester_id(0);

/// Why slots cannot be taken together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotConflict {
    /// More than one function at a slot.
    #[error("slot {slot} is given to {times} functions; each needs a slot of its own")]
    Duplicate {
        /// The slot.
        slot: Slot,
        /// How often it is given.
        times: usize,
    },
    /// Slot 0:0:0.
    #[error("slot {HOST_BRIDGE} is the host bridge's; choose another device number, such as 0:1:0")]
    HostBridge,
    /// A device without function 0. A guest asks function 0 whether a device is there and whether it has
    /// others (PCI 3.0 §3.2.2.3.4).
    #[error(
        "slot {slot}: its device has no function 0, so no guest looks for it; give a function to slot {zero}"
    )]
    NoFunctionZero {
        /// The lowest of the device's slots.
        slot: Slot,
        /// Where function 0 belongs.
        zero: Slot,
    },
    /// A bus that no port can have.
    #[error("bus {bus} cannot be behind a root port; buses {FIRST_BUS} to {LAST_BUS} can")]
    NoPortBus {
        /// The bus.
        bus: u8,
    },
    /// One bus both behind a port and with a host bridge of its own.
    #[error(
        "bus {bus} is asked for behind a root port and, with slot {slot}, as a root bus; say of each of its functions \
         that it is behind a port, or of none, or choose another bus"
    )]
    PortAndRoot {
        /// The bus.
        bus: u8,
        /// A slot on it that is not asked for behind a port.
        slot: Slot,
    },
    /// A device other than 0 behind a port, which has a link to one device.
    #[error("slot {slot}: behind a root port there is one device, which is 0; choose slot {}", behind_port(.slot))]
    DeviceBehindPort {
        /// The slot.
        slot: Slot,
    },
    /// A function where a root port is.
    #[error(
        "slot {slot} is on the device of bus {bus}'s root port; choose another device number or another bus"
    )]
    PortDevice {
        /// The slot.
        slot: Slot,
        /// The bus behind the port.
        bus: u8,
    },
    /// A root bus among the buses of bus 0's ports. Bus 0's host bridge has one range of buses from 0 to the last one.
    #[error(
        "bus {bus} is a root bus between bus 0 and bus {last}, which is behind a root port of bus 0; choose a bus above \
         {last}, or put its functions behind a port as well"
    )]
    RootBusAmongPorts {
        /// The root bus.
        bus: u8,
        /// The last bus behind a port.
        last: u8,
    },
}

fn behind_port(slot: &Slot) -> String {
    format!("{}:0:{}", slot.bus(), slot.function())
}

/// The buses that are to be behind root ports: those of the slots for which a port is asked (`true`), and `empty` ones
/// for what is plugged in later. Returns every conflict.
pub fn port_buses(slots: &[(Slot, bool)], empty: &[u8]) -> Result<PortBuses, Vec<SlotConflict>> {
    let wanted: BTreeSet<u8> = slots
        .iter()
        .filter(|(_, port)| *port)
        .map(|(slot, _)| slot.bus())
        .chain(empty.iter().copied())
        .collect();
    let (possible, impossible): (Vec<u8>, Vec<u8>) =
        wanted.iter().partition(|bus| root_port_slot(**bus).is_some());
    let mut conflicts: Vec<SlotConflict> =
        impossible.into_iter().map(|bus| SlotConflict::NoPortBus { bus }).collect();
    let buses = PortBuses::from_iter(possible);
    let mut roots: BTreeMap<u8, Slot> = BTreeMap::new();
    for (slot, _) in slots.iter().filter(|(slot, port)| !port && buses.contains(slot.bus())) {
        roots.entry(slot.bus()).and_modify(|first| *first = (*first).min(*slot)).or_insert(*slot);
    }
    conflicts.extend(roots.into_iter().map(|(bus, slot)| SlotConflict::PortAndRoot { bus, slot }));
    if conflicts.is_empty() { Ok(buses) } else { Err(conflicts) }
}

/// Checks a slot list; the host bridge and the root ports of `ports` are there without being listed. Returns every
/// conflict, by slot.
pub fn check(slots: &[Slot], ports: PortBuses) -> Result<(), Vec<SlotConflict>> {
    let mut times: BTreeMap<Slot, usize> = BTreeMap::new();
    for slot in slots {
        *times.entry(*slot).or_default() += 1;
    }

    let mut conflicts = Vec::new();
    let mut root_bus_seen = None;
    let mut device_seen = None;
    for (&slot, &times) in &times {
        if slot == HOST_BRIDGE {
            conflicts.push(SlotConflict::HostBridge);
        } else if times > 1 {
            conflicts.push(SlotConflict::Duplicate { slot, times });
        }
        let bus = slot.bus();
        if ports.contains(bus) && slot.device() != 0 {
            conflicts.push(SlotConflict::DeviceBehindPort { slot });
        }
        if let Some(bus) = ports.iter().find(|bus| root_port_slot(*bus) == Some(slot.with_function(0))) {
            conflicts.push(SlotConflict::PortDevice { slot, bus });
            continue;
        }
        if let Some(last) = ports.last().filter(|last| bus != 0 && bus < *last && !ports.contains(bus))
            && root_bus_seen.replace(bus) != Some(bus)
        {
            conflicts.push(SlotConflict::RootBusAmongPorts { bus, last });
        }
        // Slots are in order: a device's lowest function comes first.
        let zero = slot.with_function(0);
        let first_of_device = device_seen.replace(zero) != Some(zero);
        if first_of_device && slot != zero && zero != HOST_BRIDGE {
            conflicts.push(SlotConflict::NoFunctionZero { slot, zero });
        }
    }
    if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
}

/// Whether the device of `slot` has more than one function among `slots` and the host bridge, so that bit 7
/// of the header type is set in each of them (PCI 3.0 §6.2.1).
pub fn is_multi_function(slots: &[Slot], slot: Slot) -> bool {
    let device = slot.with_function(0);
    let others = |other: &Slot| other.with_function(0) == device && *other != slot;
    slots.iter().any(others) || others(&HOST_BRIDGE)
}

/// The root buses that a guest with functions at `slots` has: bus 0, and every bus of a function that is not behind a
/// port, in rising order.
pub fn root_buses(slots: &[Slot], ports: PortBuses) -> Vec<u8> {
    let buses = slots.iter().map(|slot| slot.bus()).filter(|bus| !ports.contains(*bus));
    let buses: BTreeSet<u8> = buses.chain([HOST_BRIDGE.bus()]).collect();
    buses.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(texts: &[&str]) -> Vec<Slot> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn slot(text: &str) -> Slot {
        text.parse().unwrap()
    }

    #[test]
    fn lists_that_are_fine() {
        for list in [
            &[][..],
            &["0:8:0"],
            &["0:8:1", "0:8:0"],
            &["0:8:0", "0:8:7"],
            // The host bridge is function 0 of that device.
            &["0:0:1"],
            &["3:0:0", "3:5:0", "255:31:0", "255:31:7"],
        ] {
            assert_eq!(check(&slots(list), PortBuses::default()), Ok(()), "{list:?}");
        }
    }

    #[test]
    fn conflicts_are_all_reported() {
        let duplicate = |text, times| SlotConflict::Duplicate { slot: slot(text), times };
        let no_zero =
            |text: &str| SlotConflict::NoFunctionZero { slot: slot(text), zero: slot(text).with_function(0) };
        for (list, conflicts) in [
            (&["0:0:0"][..], vec![SlotConflict::HostBridge]),
            (&["0:0:0", "0:0:0", "0:0:1"], vec![SlotConflict::HostBridge]),
            (&["0:8:0", "0:8:0"], vec![duplicate("0:8:0", 2)]),
            (&["0:8:2", "0:8:1"], vec![no_zero("0:8:1")]),
            (&["0:8:1", "0:9:0", "3:8:0"], vec![no_zero("0:8:1")]),
            (&["3:0:1"], vec![no_zero("3:0:1")]),
            (
                &["4:1:3", "0:9:0", "0:0:0", "0:9:0", "0:9:0", "0:8:1", "0:8:1"],
                vec![
                    SlotConflict::HostBridge,
                    duplicate("0:8:1", 2),
                    no_zero("0:8:1"),
                    duplicate("0:9:0", 3),
                    no_zero("4:1:3"),
                ],
            ),
        ] {
            assert_eq!(check(&slots(list), PortBuses::default()), Err(conflicts), "{list:?}");
        }
    }

    #[test]
    fn conflicts_say_what_to_do() {
        let conflicts =
            check(&slots(&["0:0:0", "0:8:1", "3:2:0", "3:2:0"]), PortBuses::default()).unwrap_err();
        let texts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        assert!(texts[0].contains("0:0:0 is the host bridge's"), "{texts:?}");
        assert!(texts[1].contains("0:8:1") && texts[1].contains("0:8:0"), "{texts:?}");
        assert!(texts[2].contains("3:2:0 is given to 2 functions"), "{texts:?}");
    }

    #[test]
    fn multi_function_devices() {
        let list = slots(&["0:8:0", "0:8:1", "0:9:0", "3:8:0", "0:0:5"]);
        for (text, multi) in [
            ("0:8:0", true),
            ("0:8:1", true),
            ("0:9:0", false),
            ("3:8:0", false),
            // The host bridge is a function as well.
            ("0:0:5", true),
            ("0:0:0", true),
        ] {
            assert_eq!(is_multi_function(&list, slot(text)), multi, "{text}");
        }
        assert!(!is_multi_function(&[], HOST_BRIDGE));
    }

    #[test]
    fn buses_in_use() {
        let list = slots(&["255:1:0", "3:0:0", "3:5:0", "2:0:0"]);
        for (list, ports, buses) in [
            (&[][..], &[][..], &[0][..]),
            (&[], &[2], &[0]),
            (&list, &[], &[0, 2, 3, 255]),
            (&list, &[2, 4], &[0, 3, 255]),
        ] {
            assert_eq!(root_buses(list, PortBuses::from_iter(ports.iter().copied())), buses);
        }
    }

    #[test]
    fn which_buses_are_behind_ports() {
        let no_bus = |bus| SlotConflict::NoPortBus { bus };
        let both = |text| SlotConflict::PortAndRoot { bus: slot(text).bus(), slot: slot(text) };
        for (behind, roots, empty, want) in [
            (&[][..], &["0:8:0", "3:0:0"][..], &[][..], Ok(&[][..])),
            (&["1:0:0", "1:0:1"], &["0:8:0"], &[2, 2], Ok(&[1, 2])),
            (&["2:0:0"], &[], &[2], Ok(&[2])),
            (&["0:8:0"], &[], &[], Err(vec![no_bus(0)])),
            (&["16:0:0"], &[], &[0], Err(vec![no_bus(0), no_bus(16)])),
            (&["1:0:0"], &["1:0:2", "1:0:1"], &[], Err(vec![both("1:0:1")])),
            (&[], &["4:0:0"], &[4, 200], Err(vec![no_bus(200), both("4:0:0")])),
        ] {
            let list: Vec<(Slot, bool)> = [(behind, true), (roots, false)]
                .into_iter()
                .flat_map(|(texts, port)| texts.iter().map(move |text| (slot(text), port)))
                .collect();
            let want = want.map(|buses| PortBuses::from_iter(buses.iter().copied()));
            assert_eq!(port_buses(&list, empty), want, "{behind:?} {roots:?} {empty:?}");
        }
    }

    #[test]
    fn slots_beside_and_behind_ports() {
        let among = |bus, last| SlotConflict::RootBusAmongPorts { bus, last };
        for (list, ports, conflicts) in [
            (&["1:0:0", "1:0:1", "2:0:0", "0:8:0", "0:19:0", "6:1:0"][..], &[1, 2, 5][..], vec![]),
            (&["1:1:0"], &[1], vec![SlotConflict::DeviceBehindPort { slot: slot("1:1:0") }]),
            (
                &["1:0:1"],
                &[1],
                vec![SlotConflict::NoFunctionZero { slot: slot("1:0:1"), zero: slot("1:0:0") }],
            ),
            (
                &["0:16:0", "0:18:3"],
                &[1, 3],
                vec![
                    SlotConflict::PortDevice { slot: slot("0:16:0"), bus: 1 },
                    SlotConflict::PortDevice { slot: slot("0:18:3"), bus: 3 },
                ],
            ),
            (&["3:0:0", "3:4:0", "4:0:0", "6:0:0"], &[5], vec![among(3, 5), among(4, 5)]),
        ] {
            let ports = PortBuses::from_iter(ports.iter().copied());
            let want = if conflicts.is_empty() { Ok(()) } else { Err(conflicts) };
            assert_eq!(check(&slots(list), ports), want, "{list:?}");
        }
    }

    #[test]
    fn conflicts_of_ports_say_what_to_do() {
        let texts = |conflicts: Vec<SlotConflict>| -> Vec<String> {
            conflicts.iter().map(ToString::to_string).collect()
        };
        let ports = PortBuses::from_iter([1, 4]);
        let texts = texts(check(&slots(&["0:16:0", "1:2:0", "2:0:0"]), ports).unwrap_err());
        assert!(texts[0].contains("0:16:0") && texts[0].contains("bus 1's root port"), "{texts:?}");
        assert!(texts[1].contains("1:2:0") && texts[1].contains("choose slot 1:0:0"), "{texts:?}");
        assert!(texts[2].contains("bus 2") && texts[2].contains("a bus above 4"), "{texts:?}");
    }
}
