//! `slotpass show` tells beforehand what a run finds, and leaves the function as it was.

use guest_tests::{Bdf, Failure, GuestReport, GuestRun, Iommu, Machine, Plan, Scenario, Stats, expect};
use serde_json::Value;

/// In the hands of its driver, of none, and of vfio-pci.
pub fn bound_and_unbound(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let edu = plan.edu("5.0", None);
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_drivers(&[(&nvme, "nvme")])?;
    let before = state(&mut machine, &[&nvme, &edu])?;
    let shown = show(&mut machine, "the drive in use", &nvme)?;
    expect_lines(
        &shown,
        &[
            "0x0..0x2000                  mapped",
            "0x2000..0x3000               reads take no exit, writes are trapped: holds the MSI-X table",
            "0x3000..0x4000               reads take no exit, writes are trapped: holds MSI-X pending bits",
            "note: the registers are as driver nvme of the host has them now",
            &format!("{nvme}  nvme"),
            "FLR",
        ],
    )?;
    let shown = show(&mut machine, "edu without a driver", &edu)?;
    expect_lines(
        &shown,
        &[
            "0x0..0x100000                mapped",
            "note: no driver has it; registers are as firmware or the last driver left them",
            &format!("{edu}  no driver"),
            "MSI    1 vector; the guest has it",
            "MSI-X  none",
            "none of its own: the guest finds it as its last user left it",
        ],
    )?;
    let after = state(&mut machine, &[&nvme, &edu])?;
    expect!(before == after, "showing changed a function:\n{before}\n{after}");

    let nobody = GuestRun::slotpass(&["show", nvme.as_str()]).through("setpriv --reuid 65534 --clear-groups");
    let shown = machine.run("by a user", &nobody)?;
    shown.expect_code(0)?;
    expect!(
        shown.serial().contains("only 64 of 4096 bytes"),
        "no note on what is missing: {}",
        shown.serial()
    );

    machine.give_to_vfio(&[&nvme, &edu])?;
    expect_listed(&mut machine, &[(&nvme, "1b36:10"), (&edu, "1234:11e8")])?;
    let before = state(&mut machine, &[&nvme, &edu])?;
    let mut foreseen = Vec::new();
    for (slot, function) in [("0:8:0", &nvme), ("0:9:0", &edu)] {
        let name = format!("{function} bound to vfio-pci");
        let report = machine.run(&name, &GuestRun::slotpass(&["show", "--json", function.as_str()]))?;
        report.expect_code(0)?;
        let json: Value = serde_json::from_str(report.serial())
            .map_err(|error| Failure::NotAsExpected(format!("{name}: {error}")))?;
        let driver = json.get("driver").and_then(Value::as_str);
        expect!(driver == Some("vfio-pci"), "{name}: driver {driver:?}");
        foreseen.extend(pieces(slot, &json));
    }
    let after = state(&mut machine, &[&nvme, &edu])?;
    expect!(before == after, "showing changed a function:\n{before}\n{after}");
    machine.expect_nothing_left()?;

    // What was foreseen is what a run finds, which opens the functions.
    let run = GuestRun::bare_metal(&exit, "poweroff")
        .slot("0:8:0", &nvme)
        .slot("0:9:0", &edu)
        .flag("--stats=json:/run/scenario/stats.json");
    machine.run("a run with both", &run)?.expect_code(0)?;
    let found: Vec<Part> = Stats::read(machine.scenario(), "stats.json")?
        .pieces()?
        .into_iter()
        .map(|piece| (piece.slot, piece.bar, piece.offset, piece.size, [piece.mapped, piece.read_only]))
        .collect();
    expect!(found == foreseen, "shown were {foreseen:?}, and found {found:?}");
    machine.power_off()
}

/// Slot, BAR, offset, size, and whether it is mapped, or read without an exit.
type Part = (String, u64, u64, u64, [bool; 2]);

fn pieces(slot: &str, shown: &Value) -> Vec<Part> {
    let list = |value: &Value, key| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |value: &Value, key| value.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX);
    let bars = list(shown, "bars").into_iter();
    bars.flat_map(|bar| {
        let index = number(&bar, "bar");
        let pieces = list(&bar, "pieces").into_iter();
        pieces.map(move |piece| {
            let (offset, size) = (number(&piece, "offset"), number(&piece, "size"));
            let is = |key| piece.get(key) == Some(&Value::Bool(true));
            (slot.to_owned(), index, offset, size, [is("mapped"), is("read_only")])
        })
    })
    .collect()
}

fn show(machine: &mut Machine<'_>, name: &str, function: &Bdf) -> Result<GuestReport, Failure> {
    let report = machine.run(name, &GuestRun::slotpass(&["show", function.as_str()]))?;
    report.expect_code(0)?;
    expect!(report.messages().is_empty(), "{name}: {}", report.messages());
    Ok(report)
}

/// `slotpass list` has them, with their nodes; and the physical paths that it shows name them.
fn expect_listed(machine: &mut Machine<'_>, functions: &[(&Bdf, &str)]) -> Result<(), Failure> {
    let list = GuestRun::slotpass(&["list", "-p", "-o", "dev,vendor,device,path"]);
    let listed = machine.run("list", &list)?;
    listed.expect_code(0)?;
    let lines = listed.serial().lines().count();
    expect!(lines == functions.len(), "{lines} functions are listed: {}", listed.serial());
    for (function, ids) in functions {
        let fields = format!(":{ids}:/pci@0,0/");
        let line = listed.serial().lines().find(|line| line.contains(&fields)).unwrap_or_default();
        expect!(
            line.starts_with("/dev/vfio/"),
            "{function} is not listed with its node: {}",
            listed.serial()
        );
        let path = line.rsplit(':').next().unwrap_or_default();
        let shown = machine.run(&format!("show {path}"), &GuestRun::slotpass(&["show", path]))?;
        shown.expect_code(0)?;
        expect!(shown.serial().contains(function.as_str()), "{path} is not {function}: {}", shown.serial());
    }
    Ok(())
}

fn expect_lines(shown: &GuestReport, lines: &[&str]) -> Result<(), Failure> {
    lines.iter().try_for_each(|line| shown.expect_serial_line(line))
}

/// What showing could change: configuration space, driver, and whether the functions are on.
fn state(machine: &mut Machine<'_>, functions: &[&Bdf]) -> Result<String, Failure> {
    let mut script = String::new();
    for function in functions {
        script.push_str(&format!(
            "cd /sys/bus/pci/devices/{function}\n\
             sha256sum <config; cat enable power_state driver_override; readlink driver || true\n"
        ));
    }
    machine.command("look at the functions", &script)
}
