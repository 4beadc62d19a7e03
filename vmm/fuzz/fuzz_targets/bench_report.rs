//! What a guest that measures prints, and a bench's file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::bench::printed::Printed;
use vmm::bench::report::Report;
use vmm::bench::{Run, Under, compare, html, table};

fuzz_target!(|text: &str| {
    let report = match Printed::read(text) {
        Ok(printed) => Run::of(Under::Slotpass, None, &[printed]).map(|run| Report::new("1", vec![run])).ok(),
        Err(_) => Report::parse(text.as_bytes()).ok(),
    };
    if let Some(report) = report {
        let same = compare::with_baseline(&report, &report);
        assert!(same.compared.iter().all(|difference| !difference.is_real), "{same:?}");
        let _ = (table::text(&report), html::page(&report));
    }
});
