//! A VM's JSON file, and the check of the slots in it.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vmm::config::VmFile;
use vmm::port_options::PortOptions;
use vmm::slot_map::{Assignment, any_host};

fuzz_target!(|text: &str| {
    match VmFile::parse(Path::new("vm.json"), text) {
        Ok(file) => {
            let assignments: Vec<Assignment> = file.assignments().collect();
            let options =
                PortOptions { empty: file.ports.clone(), window: file.port_window.unwrap_or_default() };
            let _ = any_host::check(&assignments, &options);
        }
        Err(error) => assert!(error.to_string().starts_with("vm.json:")),
    }
});
