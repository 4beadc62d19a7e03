//! What `slotpass bench --json` said.

use guest_tests::{Failure, GuestReport};
use serde_json::Value;

pub struct Measured(Value);

impl Measured {
    pub fn read(report: &GuestReport) -> Result<Measured, Failure> {
        report.expect_code(0)?;
        let json = serde_json::from_str(report.serial());
        json.map(Measured).map_err(|error| {
            Failure::NotAsExpected(format!("the report is not JSON: {error}: {}", report.serial()))
        })
    }

    /// Instructions.
    pub fn median(&self, under: &str, name: &str) -> Result<u64, Failure> {
        let median = self.measurement(under, name).and_then(|found| found.pointer("/quantiles/p50"));
        median.and_then(Value::as_u64).ok_or_else(|| self.absent(under, name))
    }

    /// Of slotpass' median, `to_floor` or `to_qemu`.
    pub fn ratio(&self, to: &str, name: &str) -> Result<f64, Failure> {
        let ratio = self.measurement("slotpass", name).and_then(|found| found.get(to)?.get("p50")?.as_f64());
        ratio.ok_or_else(|| self.absent(to, name))
    }

    /// What slotpass' median is held against, which is the sum of several medians of the bare loop's where an access is
    /// several of its.
    pub fn floor(&self, name: &str) -> Result<u64, Failure> {
        // The ratio is that of two whole numbers.
        Ok((self.median("slotpass", name)? as f64 / self.ratio("to_floor", name)?).round() as u64)
    }

    fn measurement(&self, under: &str, name: &str) -> Option<&Value> {
        let find = |list: &'_ Value, field: &str, wanted: &str| {
            list.as_array()?.iter().position(|of| of.get(field).and_then(Value::as_str) == Some(wanted))
        };
        let runs = self.0.get("runs")?;
        let measurements = runs.get(find(runs, "under", under)?)?.get("measurements")?;
        measurements.get(find(measurements, "name", name)?)
    }

    fn absent(&self, of: &str, name: &str) -> Failure {
        Failure::NotAsExpected(format!("no {name} of {of}: {}", self.0))
    }
}
