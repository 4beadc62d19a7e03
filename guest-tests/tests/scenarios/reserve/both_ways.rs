use guest_tests::{Bdf, Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use super::{AT_BOOT, UNTIL_OFF, done, expect_drivers, path_of, slotpass, state};

/// A drive and a NIC, with all that says how long and by which names; each time everything is as before in the end.
pub fn drive_and_nic(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    let (nvme_name, nic_name) = (nvme.as_str(), nic.as_str());
    let nvme_path = path_of(&mut machine, &nvme)?;
    let before = state(&mut machine)?;

    let said = done(&mut machine, "reserve", &["reserve", nvme_name, nic_name])?;
    for line in [
        format!("{AT_BOOT}: +ppt \"{nvme_path}\""),
        format!("{nvme}: reserved for guests (was with nvme)"),
        format!("{nic}: reserved for guests (was with e1000e)"),
    ] {
        expect!(said.lines().any(|found| found == line), "no {line:?} in:\n{said}");
    }
    expect_drivers(&mut machine, &[(&nvme, "vfio-pci"), (&nic, "vfio-pci")])?;
    let reserved = state(&mut machine)?;
    let again = done(&mut machine, "reserve again", &["reserve", nvme_name, nic_name])?;
    expect!(again == "nothing to change\n", "the second time it said:\n{again}");
    let silent = done(&mut machine, "apply what is applied", &["apply"])?;
    expect!(silent.is_empty(), "apply said:\n{silent}");

    let run = GuestRun::bare_metal(&exit, "halt").slot("0:8:0", &nvme).slot("0:9:0", &nic);
    let running = machine.start_until("a guest has them", &run, "exit: halt")?;
    let report = slotpass(&mut machine, "release what a guest has", &["release", nvme_name])?;
    report.expect_refusal(&[nvme_name, "process", &running.pid.to_string(), "has it open"])?;
    machine.command("end the guest", &format!("kill -TERM {}", running.pid))?;
    machine.finish("the guest's end", running, std::time::Duration::from_secs(30))?;
    expect!(state(&mut machine)? == reserved, "a refusal changed something");

    done(&mut machine, "release", &["release", nvme_name, nic_name])?;
    let after = state(&mut machine)?;
    expect!(after == before, "before:\n{before}\nafter:\n{after}");
    let read = machine.sha256_through_nvme_driver(&nvme, 8)?;
    expect!(read == image.sha256_of_first(8)?, "the machine's own driver reads other data from the drive");

    // By its path, and only until the machine is switched off.
    let devices_path = format!("/devices{nvme_path}");
    done(&mut machine, "only now", &["reserve", "--now", &devices_path])?;
    expect_drivers(&mut machine, &[(&nvme, "vfio-pci"), (&nic, "e1000e")])?;
    let files = machine.command("the files", &format!("cat {UNTIL_OFF}; [ ! -e {AT_BOOT} ]"))?;
    expect!(files == format!("ppt \"{nvme_path}\"\n"), "{UNTIL_OFF}:\n{files}");
    done(&mut machine, "release by path", &["release", &nvme_path])?;
    expect!(state(&mut machine)? == before, "--now left something");

    // Only the file, which apply reads. By its directory in sysfs.
    let directory = format!("/sys/bus/pci/devices/{nic}");
    done(&mut machine, "only the file", &["reserve", "--boot", &directory])?;
    expect_drivers(&mut machine, &[(&nic, "e1000e")])?;
    let said = done(&mut machine, "apply", &["apply"])?;
    expect!(said == format!("{nic}: reserved for guests (was with e1000e)\n"), "apply said:\n{said}");
    expect_drivers(&mut machine, &[(&nic, "vfio-pci")])?;
    done(&mut machine, "release by directory", &["release", &directory])?;
    expect!(state(&mut machine)? == before, "--boot left something");

    // By ids: the file has those of the NIC.
    done(&mut machine, "by ids", &["reserve", "--by-id", nic_name])?;
    let file = machine.command("the file", &format!("cat {AT_BOOT}"))?;
    expect!(file == "ppt \"pciex8086,10d3\"\n", "{AT_BOOT}:\n{file}");
    done(&mut machine, "release what ids mean", &["release", nic_name])?;
    expect!(state(&mut machine)? == before, "--by-id left something");

    // A device that cannot be is an error before anything of the others is done.
    let report = slotpass(&mut machine, "one of two", &["reserve", nvme_name, "0000:7f:00.0"])?;
    report.expect_refusal(&["0000:7f:00.0"])?;
    expect!(state(&mut machine)? == before, "a refusal changed something");

    // A line for what is not there, between lines of a person.
    machine.command("a line for an absent card", &format!(
        "printf '# mine\\nppt \"/pci@0,0/pci8086,1@1e/display@0\" \"pciex1234,5678\" # two\\nnvme \"pci1,2\"\\n' >{AT_BOOT}"
    ))?;
    let report = slotpass(&mut machine, "apply with nothing there", &["apply"])?;
    report.expect_code(0)?;
    report.expect_message(&[
        "warn: ",
        "line 2",
        "/pci@0,0/pci8086,1@1e/display@0",
        "line 3",
        "names driver 'nvme', not ppt",
    ])?;
    done(&mut machine, "release the absent", &["release", "/devices/pci@0,0/pci8086,1@1e/display@0"])?;
    let file = machine.command("the file then", &format!("cat {AT_BOOT}; rm {AT_BOOT}"))?;
    expect!(file == "# mine\nppt \"pciex1234,5678\" # two\nnvme \"pci1,2\"\n", "{AT_BOOT}:\n{file}");

    printed_commands(&mut machine, &nvme, &nic, &before, &reserved)?;
    machine.power_off()
}

/// What `--dry-run` prints changes nothing by itself, and does the same when a shell carries it out.
fn printed_commands(
    machine: &mut Machine<'_>,
    nvme: &Bdf,
    nic: &Bdf,
    before: &str,
    reserved: &str,
) -> Result<(), Failure> {
    let both = [nvme.as_str(), nic.as_str()];
    for (command, start, end) in [("reserve", before, reserved), ("release", reserved, before)] {
        let script = done(machine, "print it", &[&[command, "--dry-run"], &both[..]].concat())?;
        expect!(state(machine)? == start, "{command} --dry-run changed something");
        machine.command(
            "do as printed",
            &format!("cat >/run/printed <<'PRINTED'\n{script}PRINTED\nsh /run/printed\n"),
        )?;
        let after = state(machine)?;
        expect!(after == end, "{command}: wanted:\n{end}\nfound:\n{after}\nafter:\n{script}");
    }
    done(machine, "the file only", &["reserve", "--boot", nvme.as_str(), nic.as_str()])?;
    let script = done(machine, "print apply", &["apply", "--dry-run"])?;
    expect_drivers(machine, &[(nvme, "nvme"), (nic, "e1000e")])?;
    machine.command("do as apply printed", &script)?;
    expect!(state(machine)? == reserved, "apply's commands did something else:\n{script}");
    done(machine, "release both", &["release", nvme.as_str(), nic.as_str()])?;
    expect!(state(machine)? == before, "not as before");
    Ok(())
}
