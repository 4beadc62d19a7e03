//! A driver, a group, a limit and a page: each is in the way until doctor's commands were run.

use guest_tests::{Bdf, Failure, GuestRun, Iommu, Machine, Plan, Scenario, Stats, expect};

use super::told::run_commands;
use super::{Subject, WITHOUT_IPC_LOCK, drivers};

/// A driver that has the function, another member of its group, a limit, and BARs that share a page.
pub fn mends(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let cards = ["a", "b"].map(|name| scenario.blank_image(&format!("{name}.img"), 64));
    let [first_card, second_card] = cards;
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let port = plan.root_port("5.0");
    let bus = plan.conventional_bus(&port);
    let grouped = plan.edu((&bus, "1.0"), None);
    let offender = plan.virtio_network((&bus, "2.0"));
    let sharing = plan.sdhci("8.0", &first_card?);
    let neighbour = plan.sdhci("9.0", &second_card?);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_drivers(&[(&nvme, "nvme")])?;
    let before = drivers(&mut machine)?;
    let run = |function: &Bdf| GuestRun::bare_metal(&exit, "poweroff").slot("0:8:0", function);

    let subject = Subject { function: &nvme, before: "", wrapper: "" };
    let told = subject.refused(&mut machine, &run(&nvme), "driver", &["driver nvme of the host holds it"])?;
    run_commands(&mut machine, "take the drive from its driver", &told)?;
    subject.starts(&mut machine, &run(&nvme))?;

    machine.give_to_vfio(&[&grouped])?;
    let subject = Subject { function: &grouped, before: "", wrapper: "" };
    let words = [offender.as_str(), "virtio-pci"];
    let told = subject.refused(&mut machine, &run(&grouped), "group", &words)?;
    run_commands(&mut machine, "take the other of the group from its driver", &told)?;
    subject.starts(&mut machine, &run(&grouped))?;

    let subject = Subject { function: &nvme, before: "ulimit -l 8192", wrapper: WITHOUT_IPC_LOCK };
    let told = subject.refused(&mut machine, &run(&nvme), "memory lock", &["512 MiB are needed", "8 MiB"])?;
    let raised = format!("ulimit -l 8192\n{}", told.commands.join("\n"));
    Subject { before: &raised, ..subject }.starts(&mut machine, &run(&nvme))?;

    share_page(&mut machine, &sharing, &neighbour)?;
    machine.give_to_vfio(&[&sharing])?;
    let subject = Subject { function: &sharing, before: "", wrapper: "" };
    let told = subject.doctor(&mut machine, "a page that is shared")?;
    expect!(told.code == 0, "a BAR that is trapped is no reason to refuse: {}", told.text);
    let shared = told.section("note", sharing.as_str(), "bars", &["BAR 0", "which is not its own"])?;
    expect!(!is_mapped(&mut machine, &run(&sharing))?, "a BAR that shares its page is mapped");
    run_commands(&mut machine, "give the BAR a page", &shared)?;
    let told = subject.refused(&mut machine, &run(&sharing), "driver", &["no driver holds it"])?;
    run_commands(&mut machine, "give it to vfio-pci again", &told)?;
    let told = subject.starts(&mut machine, &run(&sharing))?;
    expect!(told.text.contains("all of them are mapped for the guest"), "still trapped: {}", told.text);
    expect!(is_mapped(&mut machine, &run(&sharing))?, "the BAR has a page and is not mapped");

    machine.command("undo the alignment", "echo >/sys/bus/pci/resource_alignment\n")?;
    let release = GuestRun::slotpass(&["release", nvme.as_str(), offender.as_str(), sharing.as_str()]);
    machine.run("give back what was reserved", &release)?.expect_code(0)?;
    leave_without_driver(&mut machine, &grouped)?;
    let after = drivers(&mut machine)?;
    expect!(before == after, "drivers before:\n{before}\nand after:\n{after}");
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Takes a function from vfio-pci that no driver had before.
fn leave_without_driver(machine: &mut Machine<'_>, function: &Bdf) -> Result<(), Failure> {
    machine.command(
        "take it from vfio-pci",
        &format!(
            "cd /sys/bus/pci/devices/{function}\necho >driver_override\necho {function} >driver/unbind\n"
        ),
    )?;
    Ok(())
}

/// Lets the kernel place two BARs anew: it packs those of less than a page.
fn share_page(machine: &mut Machine<'_>, sharing: &Bdf, neighbour: &Bdf) -> Result<(), Failure> {
    machine.command(
        "put two BARs into one page",
        &format!(
            "cd /sys/bus/pci/devices\n\
             for function in {neighbour} {sharing}; do\n\
               echo 1 >$function/remove\n\
               echo 1 >/sys/bus/pci/rescan\n\
             done\n\
             read -r first rest <{neighbour}/resource\n\
             read -r second rest <{sharing}/resource\n\
             ((first / 4096 == second / 4096 && second % 4096 > 0))\n"
        ),
    )?;
    Ok(())
}

/// All of the function's BARs are mapped for the guest.
fn is_mapped(machine: &mut Machine<'_>, run: &GuestRun) -> Result<bool, Failure> {
    let run = run.clone().flag("--stats=json:/run/scenario/stats.json");
    machine.run("is the BAR mapped", &run)?.expect_code(0)?;
    let pieces = Stats::read(machine.scenario(), "stats.json")?.pieces()?;
    Ok(pieces.iter().all(|piece| piece.mapped))
}
