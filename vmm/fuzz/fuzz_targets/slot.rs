//! `--slot` and names of devices: what is understood is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::host::physical_path;
use vmm::slot_map::Assignment;

fuzz_target!(|text: &str| {
    if let Ok(assignment) = text.parse::<Assignment>() {
        assert_eq!(assignment.to_string().parse::<Assignment>().as_ref(), Ok(&assignment));
    }
    // Of this host: what a text can lead to is a function or an error.
    if let Err(error) = physical_path::resolve(text) {
        assert!(!error.to_string().is_empty());
    }
});
