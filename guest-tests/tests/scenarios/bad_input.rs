//! What cannot work is refused with one clear message and exit code 1, and nothing stays behind.

use guest_tests::{Failure, GuestRun, Iommu, Machine, Plan, Scenario};

/// Devices that cannot be had.
pub fn devices(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let images = ["a", "b", "c"].map(|name| scenario.blank_image(&format!("{name}.img"), 8));
    let [free, held, offender] = images;
    let mut plan = Plan::new(iommu);
    let free = plan.nvme("4.0", &free?);
    // Two functions of one device without access control services share a group.
    plan.multifunction(true);
    let held = plan.nvme("5.0", &held?);
    let offender = plan.nvme("5.1", &offender?);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_drivers(&[(&free, "nvme"), (&held, "nvme"), (&offender, "nvme")])?;
    let linux = GuestRun::linux_elf(&machine, "check=poweroff");

    let report = machine.run("unknown device", &linux.clone().option("--slot", "0:8:0=0000:00:1e.0"))?;
    report.expect_refusal(&["0000:00:1e.0"])?;
    let report = machine.run("no address at all", &linux.clone().option("--slot", "0:8:0=nvme0"))?;
    report.expect_refusal(&["nvme0"])?;
    let report =
        machine.run("unknown simulated device", &linux.clone().option("--slot", "0:8:0=sim:nonesuch"))?;
    report.expect_refusal(&["nonesuch"])?;
    let report = machine.run("held by its driver", &linux.clone().slot("0:8:0", &free))?;
    report.expect_refusal(&[free.as_str(), "driver nvme", "vfio-pci"])?;
    // The command in the message does what it says.
    let (_, command) = report.messages().split_once("release it with: ").unwrap_or_default();
    machine.command(
        "the command from the message",
        &format!("{command}\n[[ $(readlink /sys/bus/pci/devices/{free}/driver) == */vfio-pci ]]"),
    )?;

    machine.give_to_vfio(&[&held])?;
    let report = machine.run("group not viable", &linux.clone().slot("0:8:0", &held))?;
    report.expect_refusal(&[held.as_str(), offender.as_str(), "nvme", "group"])?;
    // All or nothing: the function that could be had is let go.
    let both = linux.clone().slot("0:8:0", &free).slot("0:8:1", &held);
    machine.run("the second of two", &both)?.expect_refusal(&[offender.as_str()])?;

    machine.expect_nothing_left()?;
    machine.give_to_drivers(&[(&free, "nvme"), (&held, "nvme")])?;
    machine.power_off()
}

/// What the machine does not grant.
pub fn limits(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme])?;
    let linux = GuestRun::linux_elf(&machine, "check=poweroff").slot("0:8:0", &nvme);

    // The limit binds only those who lack CAP_IPC_LOCK.
    let locked = linux.clone().after("ulimit -l 8192").through("setpriv --bounding-set=-ipc_lock");
    machine.run("memory lock limit", &locked)?.expect_refusal(&[
        nvme.as_str(),
        "memory lock limit",
        "ulimit -l",
    ])?;
    machine.expect_nothing_left()?;

    machine.command("take /dev/kvm away", "mv /dev/kvm /dev/kvm.away")?;
    machine.run("no /dev/kvm", &linux)?.expect_refusal(&["/dev/kvm"])?;
    machine.command("bring /dev/kvm back", "mv /dev/kvm.away /dev/kvm")?;

    machine.command("take /dev/vfio/vfio away", "mv /dev/vfio/vfio /dev/vfio.away")?;
    machine.run("no /dev/vfio/vfio", &linux)?.expect_refusal(&["/dev/vfio/vfio"])?;
    machine.command("bring /dev/vfio/vfio back", "mv /dev/vfio.away /dev/vfio/vfio")?;

    machine.expect_nothing_left()?;
    // Nothing of the refused runs hinders the next.
    machine.run("the same run, granted", &linux)?.expect_code(0)?;
    machine.power_off()
}

/// Kernels, files and slots that make no sense; no device is needed to see it.
pub fn files_and_slots(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let other = plan.e1000e("7.0");
    // Together 768 MiB of 32-bit BARs, which have to share the gigabyte below 4 GiB with much else.
    let displays = ["5.0", "6.0", "8.0"].map(|at| plan.display(at, 256));
    let syntax = scenario
        .file_for_machine("syntax.json", b"{\n  \"pci_devices\": [\n    {\"path\" \"x\"}\n  ]\n}\n")?;
    let unknown = scenario.file_for_machine("unknown.json", b"{\n  \"pci_devises\": []\n}\n")?;
    let kind = scenario.file_for_machine(
        "kind.json",
        format!("{{\"pci_devices\": [\n  {{\"path\": \"{nvme}\",\n   \"pci_slot\": [8]}}\n]}}\n").as_bytes(),
    )?;
    let text = scenario.file_for_machine("text", b"This is no kernel.\n".repeat(1000).as_slice())?;
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let empty = scenario.file_for_machine("empty", b"")?;

    let mut machine = Machine::boot(&plan, scenario)?;
    let [first, second, third] = &displays;
    machine.give_to_vfio(&[&nvme, &other, first, second, third])?;
    let linux = GuestRun::linux_elf(&machine, "check=poweroff");

    for (name, kernel) in
        [("missing kernel", "/nonexistent/kernel"), ("not a kernel", &text), ("empty kernel", &empty)]
    {
        let run = GuestRun::slotpass(&["run", "--kernel", kernel]).slot("0:8:0", &nvme);
        machine.run(name, &run)?.expect_refusal(&[kernel])?;
    }
    let run = GuestRun::slotpass(&["run", "--kernel", &exit]).option("--initrd", "/nonexistent/initrd");
    machine.run("missing initrd", &run)?.expect_refusal(&["/nonexistent/initrd"])?;

    for (name, file, words) in [
        ("JSON syntax", &syntax, ["syntax.json:3:", "pci_devices"]),
        ("unknown JSON field", &unknown, ["unknown.json:2:", "pci_devises"]),
        ("wrong kind of JSON value", &kind, ["kind.json:3:", "pci_devices[0].pci_slot"]),
    ] {
        machine.run(name, &linux.clone().option("--config", file))?.expect_refusal(&words)?;
    }

    for (name, slots, word) in [
        ("duplicate slot", &["0:8:0", "0:8:0"][..], "0:8:0"),
        ("function 0 missing", &["0:8:1"], "0:8:0"),
        ("device out of range", &["0:32:0"], "0:32:0"),
        ("function out of range", &["0:8:8"], "0:8:8"),
        ("bus out of range", &["256:8:0"], "256:8:0"),
        ("not a slot", &["eight"], "eight"),
        ("the host bridge's slot", &["0:0:0"], "0:0:0"),
    ] {
        let run =
            slots.iter().zip([&nvme, &other]).fold(linux.clone(), |run, (slot, bdf)| run.slot(slot, bdf));
        machine.run(name, &run)?.expect_refusal(&[word])?;
    }
    let run = linux.clone().slot("0:8:0", &nvme).slot("0:9:0", &nvme);
    machine.run("one function in two slots", &run)?.expect_refusal(&[nvme.as_str()])?;
    let run = linux.clone().slot("0:8:0", first).slot("0:8:1", second).slot("0:9:0", third);
    machine.run("window overflow", &run)?.expect_refusal(&["slot 0:", "BAR 0", "window"])?;

    machine.expect_nothing_left()?;
    machine.power_off()
}
