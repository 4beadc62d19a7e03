//! Rules for which slots may be taken together, and what follows from them, before any device is opened.

use std::collections::{BTreeMap, BTreeSet};

use passthru::pci::Slot;

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
}

/// Checks a slot list; the host bridge is there without being listed. Returns every conflict, by slot.
pub fn check(slots: &[Slot]) -> Result<(), Vec<SlotConflict>> {
    let mut times: BTreeMap<Slot, usize> = BTreeMap::new();
    for slot in slots {
        *times.entry(*slot).or_default() += 1;
    }

    let mut conflicts = Vec::new();
    let mut device_seen = None;
    for (&slot, &times) in &times {
        if slot == HOST_BRIDGE {
            conflicts.push(SlotConflict::HostBridge);
        } else if times > 1 {
            conflicts.push(SlotConflict::Duplicate { slot, times });
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

/// The buses that a guest with functions at `slots` has: bus 0, and every bus of a function, in rising order.
pub fn buses(slots: &[Slot]) -> Vec<u8> {
    let buses: BTreeSet<u8> = slots.iter().map(|slot| slot.bus()).chain([HOST_BRIDGE.bus()]).collect();
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
            assert_eq!(check(&slots(list)), Ok(()), "{list:?}");
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
            assert_eq!(check(&slots(list)), Err(conflicts), "{list:?}");
        }
    }

    #[test]
    fn conflicts_say_what_to_do() {
        let conflicts = check(&slots(&["0:0:0", "0:8:1", "3:2:0", "3:2:0"])).unwrap_err();
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
        assert_eq!(buses(&[]), [0]);
        assert_eq!(buses(&slots(&["255:1:0", "3:0:0", "3:5:0"])), [0, 3, 255]);
    }
}
