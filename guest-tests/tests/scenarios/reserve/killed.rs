use guest_tests::{Failure, Iommu, Machine, Plan, Scenario, expect};

use super::{AT_BOOT, path_of, state};

/// How often the three commands are killed together.
const KILLS: u32 = 200;
const KILLING: &str = include_str!("killing.sh");

/// Whenever the commands are killed, no file is torn and no function lost.
pub fn at_any_time(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_drivers(&[(&nvme, "nvme")])?;
    let path = path_of(&mut machine, &nvme)?;
    let before = state(&mut machine)?;
    let program = machine.scenario().provisioned().slotpass().display().to_string();
    let script = format!(
        "slotpass='{program}' nvme={nvme} file={AT_BOOT} kills={KILLS}\nline='ppt \"{path}\"'\n{KILLING}"
    );
    let output = machine.attempt("kill them", &script, 900)?;
    expect!(output.code == 0, "{}\n{}", output.out.trim(), output.err.trim());
    let between = output.out.split("kills, ").nth(1).and_then(|rest| rest.split(' ').next());
    expect!(between.is_some_and(|count| count != "0"), "never between two drivers: {}", output.out);
    expect!(state(&mut machine)? == before, "not as before");
    machine.power_off()
}
