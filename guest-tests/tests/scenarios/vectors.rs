//! All 2048 vectors of one function.

use std::time::Duration;

use guest_tests::{
    Bdf, Failure, GuestReport, GuestRun, Iommu, Machine, Piece, Plan, Scenario, Stats, expect,
};

const VECTORS: u64 = 2048;
/// A processor has this many vectors for devices at most; the machine's own functions have some.
const OF_ONE_PROCESSOR: u64 = 224;
/// Calls for the rest of a run: the routes of the pins, vectors off at the end, the reset.
const OTHER_CALLS: u64 = 16;

struct Setup<'m> {
    machine: Machine<'m>,
    kernel: String,
    nvme: Bdf,
}

fn setup<'m>(iommu: Iommu, scenario: &'m mut Scenario, cpus: u8) -> Result<Setup<'m>, Failure> {
    let image = scenario.blank_image("nvme.img", 16)?;
    let kernel = scenario.file_for_machine("vectors.elf", guest::VECTORS)?;
    let mut plan = Plan::new(iommu);
    plan.cpus(cpus);
    let nvme = plan.nvme_with("4.0", &image, &format!(",msix_qsize={VECTORS}"));
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme])?;
    Ok(Setup { machine, kernel, nvme })
}

/// With several processors this machine gives a guest about one interrupt in a thousand twice. That each comes once is
/// seen on real processors, by the tests of `vmm`.
const TWICE: &str = "twice=20";

impl Setup<'_> {
    /// One step of the guest's, with what was counted.
    fn step(&mut self, step: &str, more: &str) -> Result<(GuestReport, Stats), Failure> {
        let file = format!("{step}.json");
        let run = GuestRun::bare_metal(&self.kernel, &format!("{step} {more} {TWICE}"))
            .slot("0:8:0", &self.nvme)
            .flag(&format!("--stats=json:/run/scenario/{file}"))
            .limit(Duration::from_secs(300));
        let report = self.machine.run(step, &run)?;
        report.expect_code(0)?;
        let stats = Stats::read(self.machine.scenario(), &file)?;
        Ok((report, stats))
    }
}

/// The calls that make interrupts of vectors: of each kind at most so many.
fn expect_calls(step: &str, stats: &Stats, most: u64) -> Result<(), Failure> {
    for call in ["set_gsi_routing", "set_irqs"] {
        let calls = stats.calls(call)?;
        expect!(calls <= most, "{step}: {calls} calls of {call}, {most} are enough");
    }
    Ok(())
}

/// The host has a vector for each: all of them work, with few calls.
pub fn enough_for_all(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let mut setup = setup(iommu, scenario, 12)?;
    let all = |step: &str| format!("ok {step} {VECTORS} vectors, delivered {VECTORS}");
    let (report, stats) = setup.step("at-once", "")?;
    report.expect_serial_line(&all("at-once"))?;
    // One of each arms them all.
    expect_calls("at-once", &stats, OTHER_CALLS)?;
    let (report, stats) = setup.step("one-by-one", "")?;
    report.expect_serial_line(&all("one-by-one"))?;
    expect_calls("one-by-one", &stats, VECTORS + OTHER_CALLS)?;
    let (report, stats) = setup.step("pending", "")?;
    report.expect_serial_start("ok pending ")?;
    // A table of 32 KiB and its pending bits, which the guest looked at all the time.
    let read: Vec<Piece> = stats.pieces()?.into_iter().filter(|piece| piece.read_only).collect();
    let exits: u64 = read.iter().map(|piece| piece.reads).sum();
    expect!(read.len() == 2 && exits == 0, "reads of table and pending bits took {exits} exits: {read:?}");
    setup.machine.expect_nothing_left()?;
    setup.machine.power_off()
}

/// The host runs out of vectors: a warning, and those that it gave work.
pub fn more_than_the_host_has(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let mut setup = setup(iommu, scenario, 1)?;
    for step in ["at-once", "one-by-one"] {
        let (report, _) = setup.step(step, "some")?;
        let line = report.expect_serial_start(&format!("ok {step} {VECTORS} vectors, delivered "))?;
        let delivered = line.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        expect!((100..=OF_ONE_PROCESSOR).contains(&delivered), "{step}: {delivered} vectors work");
        report.expect_message(&[setup.nvme.as_str(), "No space left on device"])?;
        let lines = report.messages().lines().count();
        expect!(lines <= 8, "{step}: {lines} lines of warnings: {}", report.messages());
    }
    let (report, _) = setup.step("pending", "vectors=100")?;
    report.expect_serial_start("ok pending ")?;
    setup.machine.expect_nothing_left()?;
    setup.machine.power_off()
}
