//! What a function's header is like, without a read of configuration space, which wakes the function from D3cold
//! (`pci_config_pm_runtime_get` in `drivers/pci/pci-sysfs.c`).

use std::fs;
use std::path::Path;

/// Header types of bridges (PCIe 6.0 §7.5.1.1.9), and the class of those to CardBus (PCI Code and ID Assignment 1.15 §1.7).
pub const BRIDGE: u8 = 1;
const CARDBUS_BRIDGE: u8 = 2;
const CARDBUS: &str = "0x0607";

/// The header type of the function in this directory of sysfs: 0 for those that are no bridges. Since 4.13 Linux has a file in
/// bridges' directories that others' have not (`pci_bridge_attrs_are_visible`).
pub fn of(directory: &Path) -> u8 {
    if !directory.join("secondary_bus_number").exists() {
        return 0;
    }
    match fs::read_to_string(directory.join("class")) {
        Ok(class) if class.starts_with(CARDBUS) => CARDBUS_BRIDGE,
        _ => BRIDGE,
    }
}

/// It has the capability of PCI Express, and files that tell of its link (`pcie_dev_attrs_are_visible`).
pub fn is_express(directory: &Path) -> bool {
    directory.join("max_link_speed").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_without_configuration_space() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();
        // Read, it would say otherwise.
        write("config", &"\u{1}".repeat(64));
        write("class", "0x060400\n");
        assert_eq!((of(directory.path()), is_express(directory.path())), (0, false));
        write("max_link_speed", "8.0 GT/s PCIe\n");
        write("secondary_bus_number", "1\n");
        for (class, header) in [("0x060400\n", 1), ("0x060700\n", 2), ("0x060800\n", 1)] {
            write("class", class);
            assert_eq!((of(directory.path()), is_express(directory.path())), (header, true), "{class}");
        }
    }
}
