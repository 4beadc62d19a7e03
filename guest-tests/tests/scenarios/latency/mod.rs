//! What accesses and interrupts cost, in instructions: exact figures, in a machine whose clocks count them.

mod figures;

use std::time::Duration;

use guest_tests::{Failure, GuestRun, Iommu, Machine, Plan, Scenario, Vmm, expect};

use figures::Figures;

/// Of real time, in which counted instructions are executed at a tenth of the usual speed.
const LIMIT: Duration = Duration::from_secs(1200);

/// Each access by itself, by slotpass and by QEMU.
pub fn accesses(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 16)?;
    let kernel = scenario.file_for_machine("bench.elf", guest::BENCH)?;
    let mut plan = Plan::new(iommu);
    plan.count_instructions();
    let nvme = plan.nvme("4.0", &image);
    let edu = plan.function("5.0", "edu");
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &edu])?;
    let mut all = Vec::new();
    for (vmm, name) in [(Vmm::Slotpass, "slotpass"), (Vmm::Qemu, "QEMU")] {
        machine.set_vmm(vmm);
        let of_nvme =
            GuestRun::bare_metal(&kernel, "slot=0:8:0 iterations=200 repeats=3").slot("0:8:0", &nvme);
        let report = machine.run(&format!("{name}, NVMe"), &of_nvme.limit(LIMIT))?;
        let mut figures = Figures::read(report.serial())?;
        let of_edu = GuestRun::bare_metal(&kernel, "slot=0:8:0 iterations=200 bar-read doorbell interrupt");
        let report = machine.run(&format!("{name}, edu"), &of_edu.slot("0:8:0", &edu).limit(LIMIT))?;
        figures.add(Figures::read(report.serial())?);
        all.push((name, figures));
    }
    let table = figures::table(&all);
    machine.scenario().file_for_machine("latency.txt", table.as_bytes())?;
    machine.power_off()
}

/// From the start of the program to the first byte that the guest sends, and with Linux as guest to its `/init`.
pub fn starts(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 16)?;
    scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    plan.memory_mib(3072);
    plan.count_instructions();
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    // Each access to the scenario's directory asks the host, which takes time.
    machine.command("fetch the guest", "cp /run/scenario/exit.elf /run\n")?;
    let mut table = String::new();
    for (vmm, name) in [(Vmm::Slotpass, "slotpass"), (Vmm::Qemu, "QEMU")] {
        machine.set_vmm(vmm);
        let bare = GuestRun::bare_metal("/run/exit.elf", "code=0").option("--memory", "1024M");
        let bare = bare.slot("0:8:0", &nvme).limit(LIMIT);
        let linux = GuestRun::linux(&machine, "check=pci,poweroff").slot("0:8:0", &nvme).slot("0:9:0", &nic);
        for (what, run, line) in
            [("first byte", &bare, None), ("Linux to /init", &linux.limit(LIMIT), Some("pci 0000:00:08.0"))]
        {
            let mut times = Vec::new();
            // The first run fills the caches.
            for round in 0..5 {
                times.push(machine.time_of_start(&format!("{name}, {what}, {round}"), run, line)?);
            }
            table.push_str(&format!("{name:10} {what:16} {times:?}\n"));
        }
    }
    machine.scenario().file_for_machine("starts.txt", table.as_bytes())?;
    expect!(!table.is_empty(), "nothing was measured");
    machine.power_off()
}
