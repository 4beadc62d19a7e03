//! Doctor foresees what run does.

use std::time::Duration;

use guest_tests::{Bdf, Failure, GuestRun, Iommu, Kernel, Machine, Plan, Scenario, expect};

use super::rights_and_room::USER;
use super::told::{Told, run_commands};

/// Whatever is the matter, doctor says that the guest would start if, and only if, it starts.
pub fn agrees(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    agrees_on(Kernel::Usual, iommu, scenario)
}

/// The same where functions are opened by their own files, or by group when the one file or the other is not there.
pub fn agrees_by_iommufd(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    agrees_on(Kernel::Iommufd, iommu, scenario)
}

fn agrees_on(kernel: Kernel, iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(kernel);
    let nvme = plan.nvme("4.0", &image);
    let edu = plan.edu("5.0", None);
    let port = plan.root_port("6.0");
    let config = format!(
        r#"{{"kernel": "{exit}", "cmdline": "poweroff", "pci_devices": [{{"path": "{nvme}", "pci_slot": "SLOT"}}]}}"#
    );
    let good = scenario.file_for_machine("good.json", config.replace("SLOT", "0:8:0").as_bytes())?;
    let bad = scenario.file_for_machine("bad.json", config.replace("SLOT", "0:8:1").as_bytes())?;

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_vfio(&[&nvme, &edu])?;
    let run =
        |device: &str| GuestRun::bare_metal(&exit, "poweroff").option("--slot", &format!("0:8:0={device}"));
    let doctor = |device: &str| GuestRun::slotpass(&["doctor", device]);
    let pair = |device: &str| (doctor(device), run(device));
    let both =
        |pair: (GuestRun, GuestRun), change: &dyn Fn(GuestRun) -> GuestRun| (change(pair.0), change(pair.1));

    // It only reads: nothing of any function is another afterwards.
    let spaces = |machine: &mut Machine<'_>| {
        machine.command(
            "configuration spaces",
            "cd /sys/bus/pci/devices && sha256sum */config */driver_override",
        )
    };
    let before = spaces(&mut machine)?;
    for asked in [&["doctor"][..], &["doctor", nvme.as_str(), edu.as_str()]] {
        Told::of(&mut machine, "doctor alone", &GuestRun::slotpass(asked))?;
    }
    let after = spaces(&mut machine)?;
    expect!(after == before, "before:\n{before}\nafter:\n{after}");

    agree(&mut machine, "a drive", pair(nvme.as_str()), None)?;
    agree(
        &mut machine,
        "a bridge",
        pair(port.bdf().as_str()),
        Some(["it is a bridge", "not bound to vfio-pci"]),
    )?;
    agree(&mut machine, "nothing", pair("0000:00:1e.0"), Some(["there is no PCI function"; 2]))?;
    for (name, file, problem) in
        [("a VM", good, None), ("a bad slot", bad, Some(["problem  slots", "0:8:1"]))]
    {
        let by_config = |command| GuestRun::slotpass(&[command, "--config", &file]);
        agree(&mut machine, name, (by_config("doctor"), by_config("run")), problem)?;
    }
    agree(&mut machine, "no reset", pair(edu.as_str()), None)?;
    let resets = both(pair(edu.as_str()), &|run| run.flag("--require-reset"));
    agree(
        &mut machine,
        "no reset, which is required",
        resets,
        Some(["--require-reset refuses it", "cannot be reset"]),
    )?;

    let pages = both(pair(nvme.as_str()), &|run| run.flag("--hugepages").option("--memory", "64M"));
    let told = agree(&mut machine, "no huge pages", pages.clone(), Some(["32 huge pages", "huge pages"]))?;
    run_commands(&mut machine, "reserve pages", &told.section("problem", "", "memory", &[])?)?;
    agree(&mut machine, "huge pages", pages, None)?;

    let needed: &[&str] = match kernel {
        Kernel::Iommufd => &["/dev/kvm"],
        _ => &["/dev/kvm", "/dev/vfio/vfio"],
    };
    for file in ["/dev/kvm", "/dev/vfio/vfio", "/dev/iommu"] {
        let away = format!("if [ -e {file} ]; then mv {file} /dev/away; fi\n");
        machine.command("take a file away", &away)?;
        let problem = needed.contains(&file).then_some([file; 2]);
        agree(&mut machine, &format!("no {file}"), pair(nvme.as_str()), problem)?;
        let back = format!("if [ -e /dev/away ]; then mv /dev/away {file}; fi\n");
        machine.command("bring it back", &back)?;
    }

    let halt = GuestRun::bare_metal(&exit, "halt").slot("0:8:0", &nvme);
    let running = machine.start_until("a guest has it", &halt, "exit: halt")?;
    let process = format!("process {}", running.pid);
    agree(&mut machine, "in use", pair(nvme.as_str()), Some([&process, "another"]))?;
    machine.command("end the guest", &format!("kill -TERM {}", running.pid))?;
    machine.finish("the guest's end", running, Duration::from_secs(30))?;

    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Two functions in one group, without resets of their own: the guest that has one of them resets both, if VFIO has the other,
/// and nobody else gets the other while that guest runs.
pub fn one_group(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    one_group_on(Kernel::Usual, iommu, scenario)
}

/// The same by the functions' own files, of which each has one.
pub fn one_group_by_iommufd(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    one_group_on(Kernel::Iommufd, iommu, scenario)
}

fn one_group_on(kernel: Kernel, iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(kernel);
    let port = plan.root_port("4.0");
    let bus = plan.conventional_bus(&port);
    let first = plan.edu((&bus, "1.0"), None);
    let second = plan.edu((&bus, "2.0"), None);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_vfio(&[&first])?;
    let pair = |function: &Bdf| {
        (
            GuestRun::slotpass(&["doctor", "--require-reset", function.as_str()]),
            GuestRun::bare_metal(&exit, "poweroff").slot("0:8:0", function).flag("--require-reset"),
        )
    };
    let with_it = format!("would also reset {second} (no driver)");
    let problem = Some([with_it.as_str(), "which no driver holds"]);
    let told = agree(&mut machine, "the other is held by nobody", pair(&first), problem)?;
    let told = told.section("problem", first.as_str(), "reset", &[])?;
    run_commands(&mut machine, "reserve the other", &told)?;
    let told = agree(&mut machine, "the other is reserved", pair(&first), None)?;
    expect!(told.text.contains("with its bus, together with"), "no reset of the bus: {}", told.text);

    let halt = GuestRun::bare_metal(&exit, "halt").slot("0:8:0", &second);
    let running = machine.start_until("a guest has the other", &halt, "exit: halt")?;
    let process = format!("process {}", running.pid);
    agree(&mut machine, "the other is in use", pair(&first), Some([&process, "another process"]))?;
    // Who does not see root's processes learns that there is one.
    let by_user = pair(&first).0.through(USER);
    let told = Told::of(&mut machine, "the other is in use, asked by a user", &by_user)?;
    let others = "others have a function of driver vfio-pci open";
    expect!(told.text.contains(others) && !told.text.contains(&process), "not by a user: {}", told.text);
    machine.command("end the guest", &format!("kill -TERM {}", running.pid))?;
    machine.finish("the guest's end", running, Duration::from_secs(30))?;
    let told = Told::of(&mut machine, "nothing is in use, asked by a user", &by_user)?;
    expect!(!told.text.contains("in use"), "nobody has any function: {}", told.text);

    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Doctor and run agree; with `problem` the guest does not start, and doctor says so with the first text, and run with the second.
pub fn agree(
    machine: &mut Machine<'_>,
    name: &str,
    (doctor, run): (GuestRun, GuestRun),
    problem: Option<[&str; 2]>,
) -> Result<Told, Failure> {
    let told = Told::of(machine, &format!("doctor: {name}"), &doctor)?;
    let ran = machine.run(&format!("run: {name}"), &run)?;
    expect!(
        told.code == i32::from(problem.is_some()) && ran.code() == told.code,
        "{name}: doctor's exit code is {}, and run's {}: {}\n{}",
        told.code,
        ran.code(),
        ran.messages(),
        told.text
    );
    if let Some([of_doctor, of_run]) = problem {
        expect!(
            told.text.contains(of_doctor) && ran.messages().contains(of_run),
            "{name}: no {problem:?}: {}\n{}",
            told.text,
            ran.messages()
        );
    }
    Ok(told)
}
