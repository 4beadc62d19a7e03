//! From the start of the program to what a guest does first.

use std::time::Duration;

use guest_tests::{Failure, Figure, Figures, GuestRun, Iommu, Machine, Plan, Scenario, Table, Vmm};

/// Runs of each, of which the quickest counts: the first ones fill caches.
const ROUNDS: usize = 4;
/// A start takes a tenth of that; a machine of which the emulation stands still is not waited for.
const LIMIT: Duration = Duration::from_secs(240);
/// Of slotpass to QEMU.
const FIRST_BYTE: f64 = 0.33;
const LINUX: f64 = 0.62;
/// What `/init` prints first.
const INIT: &str = "pci 0000:00:00.0";

/// To the first byte that a guest of 1 GiB with a drive sends, and to the `/init` of a Linux of 512 MiB with a drive and a NIC;
/// beside QEMU.
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
    let bare = GuestRun::bare_metal("/run/exit.elf", "code=1").option("--memory", "1024M");
    let bare = bare.slot("0:8:0", &nvme).limit(LIMIT);
    let linux = GuestRun::linux(&machine, "check=pci,poweroff").slot("0:8:0", &nvme).slot("0:9:0", &nic);
    let linux = linux.limit(LIMIT);
    let mut table = Table::new(
        "From the start of the program to the first byte of a guest of 1 GiB with a drive, and to the `/init` of a Linux of \
         512 MiB with a drive and a NIC.",
        ["slotpass", "QEMU", "/ QEMU"],
    );
    for (what, run, line, most) in
        [("first byte", &bare, None, FIRST_BYTE), ("Linux to init", &linux, Some(INIT), LINUX)]
    {
        let mut least = |vmm, name: &str| {
            machine.set_vmm(vmm);
            let times: Result<Vec<u64>, Failure> = (0..ROUNDS)
                .map(|round| machine.time_of_start(&format!("{name}, {what}, {round}"), run, line))
                .collect();
            times.map(|times| times.into_iter().min().unwrap_or(u64::MAX))
        };
        let (ours, qemus) = (least(Vmm::Slotpass, "slotpass")?, least(Vmm::Qemu, "QEMU")?);
        let ratio = ours as f64 / qemus as f64;
        table.row(what, [Figure::Count(ours), Figure::Count(qemus), Figure::RatioAtMost(ratio, most)]);
    }
    machine.set_vmm(Vmm::Slotpass);
    let mut figures = Figures::default();
    figures.add(&table);
    figures.hold(&mut machine)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}
