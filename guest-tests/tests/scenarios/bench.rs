//! `slotpass bench` with functions of the machine, beside a bare KVM loop and the machine's own QEMU.

use std::time::Duration;

use guest_tests::{Bdf, Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};
use serde_json::Value;

const EVERYTHING_OF_A_DRIVE: [&str; 21] = [
    "empty",
    "pio-read",
    "mmio-write",
    "cf8-write-address",
    "cf8-read",
    "cf8-read-absent",
    "cf8-write",
    "ecam-read",
    "ecam-read-absent",
    "ecam-read-live",
    "ecam-write",
    "bar-read",
    "msix-read",
    "pba-read",
    "msix-write-same",
    "msix-mask-unmask",
    "enable-at-once=16",
    "enable-one-by-one=16",
    "interrupt",
    "start",
    "dma-map",
];

/// A drive, whose vectors only a driver could raise, and an edu, which raises one on demand; as slotpass and QEMU pass them.
pub fn drive_and_edu(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let edu = plan.edu("5.0", None);
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &edu])?;

    let report = bench(&mut machine, &nvme, &EVERYTHING_OF_A_DRIVE, &[])?;
    for under in ["slotpass", "qemu"] {
        // How QEMU maps memory is not known to the bench.
        for word in EVERYTHING_OF_A_DRIVE.into_iter().filter(|word| under == "slotpass" || *word != "dma-map")
        {
            let measurement = measured(&report, under, word)?;
            if word == "interrupt" {
                expect!(
                    measurement.get("absent").is_some(),
                    "an interrupt of a drive under {under}: {measurement}"
                );
            } else {
                expect!(measurement.pointer("/quantiles/p50").is_some(), "under {under}: {measurement}");
            }
        }
    }
    // What is mapped takes no exit.
    let [mapped, trapped] = [median(&report, "bar-read")?, median(&report, "ecam-read-live")?];
    expect!(mapped < trapped, "a read of a mapped BAR takes {mapped} cycles, one that exits {trapped}");

    let provisioned = machine.scenario().provisioned();
    let linux = [
        ("--kernel", provisioned.vmlinux().display().to_string()),
        ("--initrd", provisioned.guest_initramfs().display().to_string()),
        ("--append", "console=ttyS0 panic=-1".to_owned()),
        ("--until", "Linux version".to_owned()),
    ];
    let names = ["doorbell", "interrupt", "start-kernel"];
    let report = bench(&mut machine, &edu, &names, &linux)?;
    for under in ["slotpass", "qemu"] {
        for name in names {
            let measurement = measured(&report, under, name)?;
            expect!(measurement.pointer("/quantiles/p50").is_some(), "under {under}: {measurement}");
        }
    }
    measured(&report, "floor", "irqfd")?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

fn bench(
    machine: &mut Machine<'_>,
    function: &Bdf,
    only: &[&str],
    kernel: &[(&str, String)],
) -> Result<Value, Failure> {
    let run = GuestRun::slotpass(&["bench", "--json", "--floor", "--against", "qemu", "--iterations", "1"])
        .option("--only", &only.join(","))
        .slot("0:9:0", function)
        .limit(Duration::from_secs(600));
    let run = kernel.iter().fold(run, |run, (option, value)| run.option(option, value));
    let report = machine.run(&format!("bench of {function}"), &run)?;
    report.expect_code(0)?;
    serde_json::from_str(report.serial()).map_err(|error| {
        Failure::NotAsExpected(format!("the report is not JSON: {error}: {}", report.serial()))
    })
}

fn measured<'a>(report: &'a Value, under: &str, name: &str) -> Result<&'a Value, Failure> {
    let find = |list: &'a Value, field: &str, wanted: &str| {
        list.as_array()?.iter().find(|of| of.get(field).is_some_and(|of| of == wanted))
    };
    let run = report.get("runs").and_then(|runs| find(runs, "under", under));
    let measurement = run.and_then(|run| find(run.get("measurements")?, "name", name));
    measurement.ok_or_else(|| Failure::NotAsExpected(format!("no {name} under {under}: {report}")))
}

fn median(report: &Value, name: &str) -> Result<u64, Failure> {
    let median = measured(report, "slotpass", name)?.pointer("/quantiles/p50").and_then(Value::as_u64);
    median.ok_or_else(|| Failure::NotAsExpected(format!("no median of {name}")))
}
