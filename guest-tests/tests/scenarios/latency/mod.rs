//! What accesses, interrupts and starts cost, in instructions: exact figures, in a machine whose clocks count them.

mod measured;
mod starts;

use std::time::Duration;

use guest_tests::{Bdf, Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use measured::Measured;
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

const OF_A_DRIVE: [(&str, Bound); 12] = [
    ("msix-read", Instructions(10)),
    ("pba-read", Instructions(10)),
    ("ecam-read-absent", Instructions(10)),
    ("bar-read", Instructions(10)),
    ("msix-write-same", ToFloor(1.08)),
    ("msix-mask-unmask", ToQemu(0.95)),
    ("cf8-read", ToFloor(1.08)),
    ("ecam-read", ToFloor(1.08)),
    ("pio-read", ToFloor(1.08)),
    ("mmio-read", ToFloor(1.08)),
    ("enable-at-once", ToQemu(0.8)),
    ("enable-one-by-one", ToQemu(0.8)),
];

const OF_AN_EDU: [(&str, Bound); 1] = [("interrupt", ToQemu(1.02))];

/// Behind the table of QEMU's NVMe drive, in its page.
const BESIDE_TABLE: &str = "trapped-read=0:0x2800";

/// As many functions as one device after the other has room for on a root bus.
const MANY: usize = 63;
/// Of the same access with one function.
const MORE_WITH_MANY: f64 = 1.02;

/// Each access by itself, beside the bare loop and QEMU; then in a guest with 64 functions.
pub fn accesses(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 16)?;
    let mut plan = Plan::new(iommu);
    plan.count_instructions();
    let nvme = plan.nvme("4.0", &image);
    let edu = plan.edu("5.0", None);
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &edu])?;

    let alone = bench(&mut machine, "a drive", &nvme, "", &OF_A_DRIVE.map(|(name, _)| name))?;
    let interrupt = bench(&mut machine, "an edu", &edu, "", &OF_AN_EDU.map(|(name, _)| name))?;
    let trapped = bench(&mut machine, "its page trapped", &nvme, ",msix-page=trap", &[BESIDE_TABLE])?;
    for (measured, bounds) in [
        (&alone, &OF_A_DRIVE[..]),
        (&interrupt, &OF_AN_EDU[..]),
        (&trapped, &[("trapped-read", ToFloor(1.12))]),
    ] {
        for (name, bound) in bounds {
            hold(measured, name, *bound)?;
        }
    }

    let mut many = GuestRun::slotpass(&["bench", "--json", "--iterations", "20"])
        .option("--only", &accesses_of(&OF_A_DRIVE))
        .slot("0:8:0", &nvme);
    for number in 0..MANY {
        many = many.option("--slot", &format!("{}:{}:{}=sim:demo", 1, number / 8 + 1, number % 8));
    }
    let many = machine.run("a drive among many", &many.limit(LIMIT))?;
    let many = Measured::read(&many)?;
    for name in accesses_of(&OF_A_DRIVE).split(',') {
        let (one, all) = (alone.median("slotpass", name)?, many.median("slotpass", name)?);
        let more = all as f64 / one as f64;
        expect!(more <= MORE_WITH_MANY, "{name}: {one} instructions alone, {all} among {MANY} others");
    }
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Those of single accesses.
fn accesses_of(bounds: &[(&'static str, Bound)]) -> String {
    let names = bounds.iter().map(|(name, _)| *name).filter(|name| !name.starts_with("enable"));
    names.collect::<Vec<_>>().join(",")
}

fn bench(
    machine: &mut Machine<'_>,
    title: &str,
    function: &Bdf,
    options: &str,
    names: &[&str],
) -> Result<Measured, Failure> {
    let arguments = ["bench", "--json", "--floor", "--against", "qemu", "--iterations", "20"];
    let run = GuestRun::slotpass(&arguments)
        .option("--only", &names.join(","))
        .option("--slot", &format!("0:8:0={function}{options}"))
        .limit(LIMIT);
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
