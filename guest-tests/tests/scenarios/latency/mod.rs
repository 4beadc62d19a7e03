//! What accesses, interrupts and starts cost, in instructions: exact figures, in a machine whose clocks count them.

mod measured;
mod ratios;
mod starts;

use std::time::Duration;

use guest_tests::{Bdf, DiskImage, Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use measured::Measured;
use ratios::Ratios;
pub use starts::starts;

/// Of real time: where instructions are counted they are executed at a tenth of the usual speed.
const LIMIT: Duration = Duration::from_secs(1200);

/// What a figure is held against.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Instructions(u64),
    /// The bare loop around KVM_RUN, in the same run.
    ToFloor(f64),
    /// QEMU, in the same run.
    ToQemu(f64),
}

use Bound::{Instructions, ToFloor, ToQemu};

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

const INTERRUPTS_OF_A_DRIVE: [(&str, Bound); 3] =
    [("msix-mask-unmask", ToQemu(0.95)), ("enable-at-once", ToQemu(0.8)), ("enable-one-by-one", ToQemu(0.8))];
const INTERRUPTS_OF_AN_EDU: [(&str, Bound); 1] = [("interrupt", ToQemu(1.02))];

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
    let mut ratios = Ratios::default();
    for (measured, (name, bound)) in
        ACCESSES.iter().map(|bound| (&alone, bound)).chain([(&trapped, &BESIDE_TABLE)])
    {
        hold(measured, name, *bound)?;
        ratios.add(name, measured.ratio("to_floor", name)?);
    }
    ratios.compare(machine.scenario())?;

    let others = (0..MANY).map(|number| format!("1:{}:{}=sim:demo", number / 8 + 1, number % 8));
    let many = bench(&mut machine, "a drive among many", &[], &names, [of_nvme].into_iter().chain(others))?;
    for name in names {
        let (one, all) = (alone.median("slotpass", name)?, many.median("slotpass", name)?);
        let more = all as f64 / one as f64;
        expect!(more <= MORE_WITH_MANY, "{name}: {one} instructions alone, {all} among {MANY} others");
    }
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// What interrupts cost, beside QEMU.
pub fn interrupts(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let (plan, nvme, edu) = plan(iommu, &scenario.blank_image("nvme.img", 16)?);
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &edu])?;
    for (what, function, bounds) in
        [("a drive", &nvme, &INTERRUPTS_OF_A_DRIVE[..]), ("an edu", &edu, &INTERRUPTS_OF_AN_EDU)]
    {
        let names: Vec<&str> = bounds.iter().map(|(name, _)| *name).collect();
        let against = ["--against", "qemu"];
        let measured = bench(&mut machine, what, &against, &names, [format!("0:8:0={function}")])?;
        for (name, bound) in bounds {
            hold(&measured, name, *bound)?;
        }
    }
    machine.expect_nothing_left()?;
    machine.power_off()
}

fn bench(
    machine: &mut Machine<'_>,
    title: &str,
    beside: &[&str],
    names: &[&str],
    slots: impl IntoIterator<Item = String>,
) -> Result<Measured, Failure> {
    let arguments = [&["bench", "--json", "--iterations", "20"], beside].concat();
    let mut run = GuestRun::slotpass(&arguments).option("--only", &names.join(",")).limit(LIMIT);
    for slot in slots {
        run = run.option("--slot", &slot);
    }
    let report = machine.run(&format!("bench of {title}"), &run)?;
    Measured::read(&report)
}

fn hold(measured: &Measured, name: &str, bound: Bound) -> Result<(), Failure> {
    let median = measured.median("slotpass", name)?;
    match bound {
        Instructions(most) => {
            expect!(median <= most, "{name}: {median} instructions, {most} are enough");
        }
        ToFloor(most) => {
            let ratio = measured.ratio("to_floor", name)?;
            expect!(
                ratio <= most,
                "{name}: {median} instructions, {ratio} of the bare loop, more than {most}"
            );
        }
        ToQemu(most) => {
            let ratio = measured.ratio("to_qemu", name)?;
            expect!(ratio <= most, "{name}: {median} instructions, {ratio} of QEMU, more than {most}");
        }
    }
    Ok(())
}
