//! What can be said of a slot map without its host: on another machine, or before the devices are there.

use std::collections::BTreeMap;

use devices::pci::slots::{self, SlotConflict};
use passthru::pci::{HostAddress, Slot};

use super::{Assignment, DeviceName, SlotMapError};
use crate::host::physical_path;
use crate::port_options::PortOptions;

/// Checks that the slots go together and that no function is in two of them, and gives every reason against it. Whether
/// the functions are there, can be opened and fit is not asked.
pub fn check(assignments: &[Assignment], options: &PortOptions) -> Result<(), Vec<SlotMapError>> {
    let mut errors: Vec<SlotMapError> =
        conflicts(assignments, options).into_iter().map(SlotMapError::from).collect();
    let mut seen = BTreeMap::new();
    for Assignment { slot, device, .. } in assignments {
        let (DeviceName::Host(name) | DeviceName::Ppt(name)) = device else { continue };
        // One address or path can be written in several ways.
        let name = physical_path::without_devices(name).to_owned();
        let function = name.parse().map_or_else(|_| name.clone(), |address: HostAddress| address.to_string());
        if let Some(first) = seen.insert(function.clone(), *slot)
            // Else the slot itself is given twice, which was said.
            && first != *slot
        {
            errors.push(SlotMapError::Twice { device: function, first, second: *slot });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn conflicts(assignments: &[Assignment], options: &PortOptions) -> Vec<SlotConflict> {
    let wanted: Vec<(Slot, bool)> = assignments.iter().map(|a| (a.slot, a.port)).collect();
    let slots: Vec<Slot> = wanted.iter().map(|(slot, _)| *slot).collect();
    slots::port_buses(&wanted, &options.empty)
        // Without the ports these would be further conflicts of the same slots.
        .and_then(|ports| slots::check(&slots, ports))
        .err()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_functions_that_do_not_go_together() {
        for (texts, reasons) in [
            (&["0:8:0=/dev/ppt0", "0:8:1=0000:01:00.0", "1:0:0=sim:demo,port"][..], &[][..]),
            (&["0:8:0=sim:demo", "0:9:0=sim:demo"], &[]),
            (&["0:8:0=fd:5", "0:9:0=sim:none"], &[]),
            (
                &["0:8:0=01:00.0", "0:9:0=0000:01:00.0"],
                &["0000:01:00.0 is assigned to slot 0:8:0 and to slot 0:9:0"],
            ),
            (
                &["0:8:0=/dev/ppt1", "0:9:0=/dev/ppt1"],
                &["/dev/ppt1 is assigned to slot 0:8:0 and to slot 0:9:0"],
            ),
            (&["0:8:0=/dev/ppt1", "0:8:0=/dev/ppt1"], &["slot 0:8:0 is given to 2 functions"]),
            (&["0:0:0=/dev/ppt1", "0:9:1=/dev/ppt2"], &["0:0:0 is the host bridge's", "no function 0"]),
            (&["0:8:0=/dev/ppt1,port"], &["bus 0 cannot be behind a root port"]),
        ] {
            let assignments: Vec<Assignment> = texts.iter().map(|text| text.parse().unwrap()).collect();
            let errors = check(&assignments, &PortOptions::default()).err().unwrap_or_default();
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(errors.len(), reasons.len(), "{texts:?}: {errors:?}");
            for (error, reason) in errors.iter().zip(reasons) {
                assert!(error.contains(reason), "{error}");
            }
        }
    }
}
