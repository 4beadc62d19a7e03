//! What accesses once cost, as ratios to the bare loop: they do not get dearer unnoticed.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use guest_tests::{Failure, Scenario, expect};

/// The ratios that are kept, in the folder of the benches. With `SLOTPASS_BLESS` set they become what is measured.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/ratios-to-floor.json");
/// So much more than was kept is a regression. The figures are instructions, which repeat exactly; another kernel's differ.
const MORE: f64 = 1.02;

#[derive(Default)]
pub struct Ratios(BTreeMap<String, f64>);

impl Ratios {
    pub fn add(&mut self, name: &str, ratio: f64) {
        // As many digits as mean something.
        self.0.insert(name.to_owned(), (ratio * 10_000.0).round() / 10_000.0);
    }

    /// Writes what is measured into the scenario's directory, and holds it against what is kept.
    pub fn compare(&self, scenario: &Scenario) -> Result<(), Failure> {
        let wrong = |error: serde_json::Error| Failure::NotAsExpected(format!("{KEPT}: {error}"));
        let measured = serde_json::to_string_pretty(&self.0).map_err(wrong)? + "\n";
        scenario.file_for_machine("ratios-to-floor.json", measured.as_bytes())?;
        let kept = Path::new(KEPT);
        if env::var_os("SLOTPASS_BLESS").is_some() {
            return fs::write(kept, measured).map_err(Failure::io("write", kept));
        }
        let text = fs::read_to_string(kept).map_err(Failure::io("read", kept))?;
        let kept: BTreeMap<String, f64> = serde_json::from_str(&text).map_err(wrong)?;
        expect!(
            kept.keys().eq(self.0.keys()),
            "{KEPT} has {:?}, and measured is {:?}",
            kept.keys(),
            self.0.keys()
        );
        for ((name, before), now) in kept.iter().zip(self.0.values()) {
            expect!(
                *now <= before * MORE,
                "{name}: {now} times the bare loop, where it once was {before}; if it must be, SLOTPASS_BLESS=1 keeps it"
            );
        }
        Ok(())
    }
}
