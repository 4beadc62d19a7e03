//! Whose rights do not suffice, what has no place, and what others are told of it.

use guest_tests::{Bdf, Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use super::agrees::agree;
use super::drivers;
use super::told::{Told, run_commands};

/// A user without rights, a BAR without a place, and the file that a user sends to others.
pub fn rights_and_room(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    let before = drivers(&mut machine)?;
    let pair = (
        GuestRun::slotpass(&["doctor", nvme.as_str()]),
        GuestRun::bare_metal(&exit, "poweroff").slot("0:8:0", &nvme),
    );
    let addresses = machine.command("the NIC's address", "cat /sys/class/net/*/address\n")?;
    report_for_others(&mut machine, &nic, addresses.trim())?;
    let told = Told::of(&mut machine, "held by its driver", &pair.0)?;
    run_commands(&mut machine, "reserve", &told.section("problem", nvme.as_str(), "driver", &[])?)?;
    by_a_user(&mut machine, &nvme, &pair)?;
    without_room(&mut machine, &nvme, &pair)?;
    let after = drivers(&mut machine)?;
    expect!(before == after, "drivers before:\n{before}\nand after:\n{after}");
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// It may read the program, which is in root's directories, and open no device.
pub const USER: &str = "setpriv --reuid 1000 --regid 1000 --clear-groups \
                    --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search";

/// Somebody who has no rights gets them by the commands, which root carries out.
fn by_a_user(
    machine: &mut Machine<'_>,
    function: &Bdf,
    (doctor, run): &(GuestRun, GuestRun),
) -> Result<(), Failure> {
    let limit = "ulimit -l 64";
    let user = |run: &GuestRun, before: &str| run.clone().after(before).through(USER);
    machine.command("files that are root's", "chmod 600 /dev/kvm /dev/vfio/vfio\n")?;
    let refused = (user(doctor, limit), user(run, limit));
    let told = agree(
        machine,
        "by a user",
        refused,
        Some(["may not open /dev/vfio/", "/dev/kvm: Permission denied"]),
    )?;
    let mut commands = vec!["sudo() { \"$@\"; }".to_owned(), limit.to_owned()];
    for (subject, check) in [("", "kvm"), ("", "vfio"), (function.as_str(), "access"), ("", "memory lock")] {
        commands.extend(told.section("problem", subject, check, &[])?.commands);
    }
    let before = commands.join("\n");
    agree(machine, "by a user who may", (user(doctor, &before), user(run, &before)), None)?;
    Ok(())
}

/// A BAR for which the host has no room: it is told to align it to more than there is.
fn without_room(
    machine: &mut Machine<'_>,
    function: &Bdf,
    (doctor, run): &(GuestRun, GuestRun),
) -> Result<(), Failure> {
    let again = format!("echo 1 >/sys/bus/pci/devices/{function}/remove\necho 1 >/sys/bus/pci/rescan\n");
    let alignment = "/sys/bus/pci/resource_alignment";
    machine.command("leave no room for its BAR", &format!("echo 50@{function} >{alignment}\n{again}"))?;
    machine.give_to_vfio(&[function])?;
    // The guest starts, and does not see the BAR.
    let told = agree(machine, "no room", (doctor.clone(), run.clone()), None)?;
    machine.command("there is room again", &format!("echo >{alignment}\n"))?;
    let told = told.section("note", function.as_str(), "bars", &["BAR 0", "has no address in the host"])?;
    run_commands(machine, "let the kernel place it anew", &told)?;
    let told = Told::of(machine, "placed anew", doctor)?;
    run_commands(machine, "reserve it", &told.section("problem", function.as_str(), "driver", &[])?)?;
    agree(machine, "room", (doctor.clone(), run.clone()), None)?;
    let release = GuestRun::slotpass(&["release", function.as_str()]);
    machine.run("give it back", &release)?.expect_code(0)
}

/// The file that is sent to others has what they need, and nothing that is nobody's business.
fn report_for_others(machine: &mut Machine<'_>, nic: &Bdf, addresses: &str) -> Result<(), Failure> {
    let doctor = GuestRun::slotpass(&["doctor", "--report", "/run/scenario/report.txt", nic.as_str()]);
    machine.run("a report", &doctor)?.expect_code(1)?;
    let report = machine.scenario().text_of("report.txt")?;
    let space = format!("== configuration space of {nic}\n00: 86 80 d3 10 ");
    for part in ["unit dmar0: Intel", "== modules\nkvm:", "driver e1000e", "problem  driver", &space] {
        expect!(report.contains(part), "no {part:?} in the report:\n{report}");
    }
    let host = machine.command("the machine's name", "uname -n")?;
    // In a serial number the address is reversed, with two bytes in the middle.
    let own = addresses.lines().filter(|line| *line != "00:00:00:00:00:00");
    let reversed = own.clone().map(|line| line.rsplit(':').take(3).collect::<Vec<_>>().join(" "));
    let secrets: Vec<String> =
        own.map(str::to_owned).chain(reversed).chain([host.trim().to_owned()]).collect();
    expect!(secrets.len() > 2, "no address of a NIC: {addresses:?}");
    for secret in secrets.iter().filter(|secret| *secret != "(none)") {
        expect!(!report.contains(secret.as_str()), "{secret:?} is in the report:\n{report}");
    }
    Ok(())
}
