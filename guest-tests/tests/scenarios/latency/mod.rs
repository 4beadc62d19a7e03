//! What accesses, interrupts and starts cost, in instructions: exact figures, in a machine whose clocks count them.

mod measured;
mod ratios;
mod starts;
mod vectors;

use std::time::Duration;

use guest_tests::{
    Bdf, DiskImage, Failure, Figure, Figures, GuestRun, Iommu, Machine, Plan, Scenario, Table,
};

use measured::Measured;
use ratios::Ratios;
pub use starts::starts;
pub use vectors::all_2048;

/// Of real time: where instructions are counted they are executed at a tenth of the usual speed.
const LIMIT: Duration = Duration::from_secs(1200);

/// What an access may cost.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Instructions(u64),
    /// The bare loop around KVM_RUN, in the same run.
    ToFloor(f64),
}

use Bound::{Instructions, ToFloor};

const ACCESSES: [(&str, Bound); 13] = [
    ("msix-read", Instructions(10)),
    ("pba-read", Instructions(10)),
    ("ecam-read-absent", Instructions(10)),
    ("bar-read", Instructions(10)),
    ("msix-write-same", ToFloor(1.08)),
    ("cf8-read", ToFloor(1.08)),
    ("cf8-read-absent", ToFloor(1.08)),
    ("cf8-write-address", ToFloor(1.08)),
    ("ecam-read", ToFloor(1.08)),
    ("pio-read", ToFloor(1.08)),
    ("pio-write", ToFloor(1.08)),
    ("mmio-read", ToFloor(1.08)),
    ("mmio-write", ToFloor(1.08)),
];
/// Behind the table of QEMU's NVMe drive, in its page.
const BESIDE_TABLE: (&str, Bound) = ("trapped-read=0:0x2800", ToFloor(1.12));

/// At most so much of what the same takes under QEMU, in the same run.
const INTERRUPTS_OF_A_DRIVE: [(&str, f64); 3] =
    [("msix-mask-unmask", 0.95), ("enable-at-once", 0.8), ("enable-one-by-one", 0.8)];
const INTERRUPTS_OF_AN_EDU: [(&str, f64); 1] = [("interrupt", 1.02)];

/// Beside the one that is measured.
const MANY: usize = 63;
/// Of the same access with one function.
const MORE_WITH_MANY: f64 = 1.02;

fn plan(iommu: Iommu, nvme: &DiskImage) -> (Plan, Bdf, Bdf) {
    let mut plan = Plan::new(iommu);
    plan.count_instructions();
    let nvme = plan.nvme("4.0", nvme);
    let edu = plan.edu("5.0", None);
    (plan, nvme, edu)
}

/// Each access by itself beside the bare loop, with a drive alone and among 63 others; and none is slower than it once was.
pub fn accesses(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let (plan, nvme, _) = plan(iommu, &scenario.blank_image("nvme.img", 16)?);
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme])?;
    let names = ACCESSES.map(|(name, _)| name);
    let of_nvme = format!("0:8:0={nvme}");
    let alone = bench(&mut machine, "a drive", &["--floor"], &names, [of_nvme.clone()])?;
    let trapped = format!("{of_nvme},msix-page=trap");
    let trapped = bench(&mut machine, "its page trapped", &["--floor"], &[BESIDE_TABLE.0], [trapped])?;
    let others = (0..MANY).map(|number| format!("1:{}:{}=sim:demo", number / 8 + 1, number % 8));
    let many = bench(&mut machine, "a drive among many", &[], &names, [of_nvme].into_iter().chain(others))?;
    let mut table = Table::new(
        "Accesses to a drive, beside the same under a bare loop around KVM_RUN; and with 63 further functions.",
        ["slotpass", "bare loop", "/ bare loop", "64 functions", "/ one function"],
    );
    let mut ratios = Ratios::default();
    for (name, bound) in ACCESSES {
        let [own, floor, ratio] = beside_floor(&alone, name, bound)?;
        let (one, all) = (alone.median("slotpass", name)?, many.median("slotpass", name)?);
        let more = Figure::RatioAtMost(all as f64 / one as f64, MORE_WITH_MANY);
        table.row(name, [own, floor, ratio, Figure::Count(all), more]);
        ratios.add(name, alone.ratio("to_floor", name)?);
    }
    let (name, bound) = BESIDE_TABLE;
    let [own, floor, ratio] = beside_floor(&trapped, name, bound)?;
    table.row(name, [own, floor, ratio, Figure::Absent, Figure::Absent]);
    ratios.add(name, trapped.ratio("to_floor", name)?);
    let mut figures = Figures::default();
    figures.add(&table);
    figures.hold(&mut machine)?;
    ratios.compare(machine.scenario())?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// slotpass, the bare loop, and the ratio.
fn beside_floor(measured: &Measured, name: &str, bound: Bound) -> Result<[Figure; 3], Failure> {
    let (own, ratio) = (measured.median("slotpass", name)?, measured.ratio("to_floor", name)?);
    let floor = Figure::Count(measured.floor(name)?);
    Ok(match bound {
        Instructions(most) => [Figure::CountAtMost(own, most), floor, Figure::Ratio(ratio)],
        ToFloor(most) => [Figure::Count(own), floor, Figure::RatioAtMost(ratio, most)],
    })
}

/// What interrupts cost, beside QEMU; and, for comparison only, accesses.
pub fn interrupts(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let (plan, nvme, edu) = plan(iommu, &scenario.blank_image("nvme.img", 16)?);
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &edu])?;
    let accesses = ACCESSES.map(|(name, _)| (name, None));
    let bound = |(name, most): (&'static str, f64)| (name, Some(most));
    let of_a_drive = accesses.into_iter().chain(INTERRUPTS_OF_A_DRIVE.map(bound));
    let of_an_edu = INTERRUPTS_OF_AN_EDU.map(bound);
    let mut table = Table::new(
        "Accesses to a drive, its 65 vectors, and an interrupt of an edu.",
        ["slotpass", "QEMU", "/ QEMU"],
    );
    for (what, function, bounds) in
        [("a drive", &nvme, of_a_drive.collect::<Vec<_>>()), ("an edu", &edu, of_an_edu.to_vec())]
    {
        let names: Vec<&str> = bounds.iter().map(|(name, _)| *name).collect();
        let against = ["--against", "qemu"];
        let measured = bench(&mut machine, what, &against, &names, [format!("0:8:0={function}")])?;
        for (name, most) in bounds {
            table.row(name, beside_qemu(&measured, name, most)?);
        }
    }
    let mut figures = Figures::default();
    figures.add(&table);
    figures.hold(&mut machine)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// slotpass, QEMU, and the ratio.
fn beside_qemu(measured: &Measured, name: &str, most: Option<f64>) -> Result<[Figure; 3], Failure> {
    let ratio = measured.ratio("to_qemu", name)?;
    let of = |under| measured.median(under, name).map(Figure::Count);
    let ratio = most.map_or(Figure::Ratio(ratio), |most| Figure::RatioAtMost(ratio, most));
    Ok([of("slotpass")?, of("qemu")?, ratio])
}

fn bench(
    machine: &mut Machine<'_>,
    of: &str,
    beside: &[&str],
    names: &[&str],
    slots: impl IntoIterator<Item = String>,
) -> Result<Measured, Failure> {
    let options = [&["--iterations", "20"], beside].concat();
    measure(machine, &format!("bench of {of}"), &options, names, slots)
}

fn measure(
    machine: &mut Machine<'_>,
    title: &str,
    options: &[&str],
    names: &[&str],
    slots: impl IntoIterator<Item = String>,
) -> Result<Measured, Failure> {
    let arguments = [&["bench", "--json"], options].concat();
    let mut run = GuestRun::slotpass(&arguments).option("--only", &names.join(",")).limit(LIMIT);
    for slot in slots {
        run = run.option("--slot", &slot);
    }
    let report = machine.run(title, &run)?;
    Measured::read(&report)
}
