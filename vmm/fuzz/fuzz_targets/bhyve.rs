//! bhyve's descriptions of a VM: a file of bhyve_config(5), and a command line of bhyve(8).
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vmm::bhyve::{args, config};

fuzz_target!(|bytes: &[u8]| {
    let (kind, text) = bytes.split_first().unwrap_or((&0, &[]));
    if kind & 1 == 0 {
        let _ = config::parse(Path::new("vm.cfg"), text);
    } else if let Ok(text) = std::str::from_utf8(text)
        // Files that a command line names are read.
        && !text.contains("-k")
    {
        let _ = args::parse(text);
    }
});
