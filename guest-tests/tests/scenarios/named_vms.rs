//! VMs by name, with functions of the machine: from `create` to `delete`, and what a killed process leaves.

use std::time::Duration;

use guest_tests::{Bdf, CommandOutput, Failure, Iommu, LINUX_WORDS, Machine, Plan, Scenario, expect};

/// A guest that checks a drive and a NIC takes so long at most.
const LIMIT: Duration = Duration::from_secs(150);
/// The machine's /var/lib cannot be written.
const STATE: &str = "export SLOTPASS_STATE_DIR=/run/vms";
/// Records of functions, by address.
const RECORDS: &str = "/run/slotpass/devices";

/// Runs slotpass with these words of a shell's line.
fn attempt(machine: &mut Machine<'_>, name: &str, words: &str) -> Result<CommandOutput, Failure> {
    let program = machine.scenario().provisioned().slotpass().display().to_string();
    machine.attempt(name, &format!("{STATE}\nexec '{program}' {words}\n"), 120)
}

/// The same, which must succeed; gives what it says.
fn slotpass(machine: &mut Machine<'_>, name: &str, words: &str) -> Result<String, Failure> {
    let output = attempt(machine, name, words)?;
    expect!(output.code == 0, "slotpass {words}: exit code {}: {}", output.code, output.err.trim());
    Ok(output.out)
}

/// The same, which must fail and say all of this.
fn refused(machine: &mut Machine<'_>, name: &str, words: &str, parts: &[&str]) -> Result<(), Failure> {
    let output = attempt(machine, name, words)?;
    expect!(output.code == 1, "slotpass {words}: exit code {}", output.code);
    for part in parts {
        expect!(output.err.contains(part), "slotpass {words}: no {part:?} in: {}", output.err.trim());
    }
    Ok(())
}

/// Doctor foresees that the VM starts, or that it is refused, and says all of this.
fn foreseen(machine: &mut Machine<'_>, name: &str, vm: &str, parts: &[&str]) -> Result<(), Failure> {
    let output = attempt(machine, &format!("doctor: {name}"), &format!("doctor {vm}"))?;
    let refused = i32::from(!parts.is_empty());
    expect!(output.code == refused, "doctor {vm}: exit code {}: {}", output.code, output.out);
    for part in parts {
        expect!(output.out.contains(part), "doctor {vm}: no {part:?} in: {}", output.out);
    }
    Ok(())
}

/// Makes a VM, whose description is JSON.
fn create(machine: &mut Machine<'_>, alias: &str, json: &str) -> Result<String, Failure> {
    let words = format!("create <<'EOF'\n{{ \"alias\": \"{alias}\", {json} }}\nEOF");
    Ok(slotpass(machine, &format!("create {alias}"), &words)?.trim().to_owned())
}

fn devices(devices: &[(&str, &Bdf)]) -> String {
    let device =
        |(slot, path): &(&str, &Bdf)| format!("{{ \"path\": \"{path}\", \"pci_slot\": \"{slot}\" }}");
    let devices: Vec<String> = devices.iter().map(device).collect();
    format!("\"pci_devices\": [ {} ]", devices.join(", "))
}

/// A guest of the machine's kernel that does these checks.
fn linux(machine: &Machine<'_>, words: &str) -> String {
    let provisioned = machine.scenario().provisioned();
    let (kernel, initrd) = (provisioned.vmlinux(), provisioned.guest_initramfs());
    format!(
        "\"kernel\": \"{}\", \"initrd\": \"{}\", \"cmdline\": \"{LINUX_WORDS} {words}\"",
        kernel.display(),
        initrd.display()
    )
}

/// Waits until the VM's serial port has said a line with this in it, so many times.
fn await_console(machine: &mut Machine<'_>, vm: &str, line: &str, times: usize) -> Result<(), Failure> {
    let seconds = (LIMIT * machine.scenario().provisioned().patience()).as_secs();
    let program = machine.scenario().provisioned().slotpass().display().to_string();
    let script = format!(
        "{STATE}\n\
         SECONDS=0\n\
         while ((SECONDS < {seconds})); do\n\
           [ \"$('{program}' log --console {vm} | grep -c '{line}')\" -lt {times} ] || exit 0\n\
           [ \"$('{program}' vms -p -o alias,state | grep '^{vm}:')\" = {vm}:running ] || break\n\
           sleep 0.5\n\
         done\n\
         '{program}' log --console {vm}\n\
         '{program}' log {vm} >&2\n\
         exit 1\n"
    );
    let output = machine.attempt(
        &format!("wait for {vm}"),
        &script,
        u32::try_from(seconds + 10).unwrap_or(u32::MAX),
    )?;
    expect!(output.code == 0, "{vm} never said {line:?} {times} times");
    Ok(())
}

/// Kills a VM's process, and waits until it is gone.
fn kill(machine: &mut Machine<'_>, vm: &str) -> Result<(), Failure> {
    let pid = slotpass(machine, "its process", &format!("vms -p -o alias,pid | grep '^{vm}:'"))?;
    let pid = pid.trim().rsplit(':').next().unwrap_or_default().to_owned();
    let script = format!(
        "kill -9 {pid}; for i in {{1..300}}; do [ -e /proc/{pid} ] || exit 0; sleep 0.1; done; exit 1"
    );
    machine.command(&format!("kill {vm}"), &script)?;
    let vm = slotpass(machine, "after it was killed", &format!("get {vm}"))?;
    expect!(vm.contains("\"stopped\"") && vm.contains("\"crashed\": true"), "{vm}");
    Ok(())
}

fn records(machine: &mut Machine<'_>) -> Result<Vec<String>, Failure> {
    let listed = machine.command("records", &format!("ls {RECORDS} 2>/dev/null || true"))?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}

/// Two functions of the machine in a VM: used, refused to another VM, left behind by a killed process, taken again, given
/// back.
pub fn whole_life(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let kernel = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let both = devices(&[("0:8:0", &nvme), ("0:8:1", &nic)]);
    let guest = linux(&machine, "check=nvme,nic,busy mib=16");
    let web = create(&mut machine, "web", &format!("{guest}, {both}"))?;
    slotpass(&mut machine, "start", "start web")?;
    await_console(&mut machine, "web", "check busy ok", 1)?;
    let said = slotpass(&mut machine, "what it said", "log --console web")?;
    for check in ["check nvme ok", "check nic ok"] {
        expect!(said.contains(check), "no {check:?} in:\n{said}");
    }
    let shown = slotpass(&mut machine, "console", "console web </dev/null | head -c 100")?;
    expect!(!shown.is_empty(), "the console shows nothing");
    let (nvme_name, nic_name) = (nvme.to_string(), nic.to_string());
    expect!(records(&mut machine)? == [&*nvme_name, &*nic_name], "records of both functions");

    // Another VM's, before anything is opened.
    let quiet = format!("\"kernel\": \"{kernel}\", \"cmdline\": \"power-button poweroff\"");
    let other = create(&mut machine, "other", &format!("{quiet}, {}", devices(&[("0:9:0", &nvme)])))?;
    refused(
        &mut machine,
        "a function of another VM",
        "start other",
        &["slot 0:9:0", &nvme_name, "in slot 0:8:0 of VM", &web],
    )?;
    refused(
        &mut machine,
        "no update",
        "update web <<<'{ \"remove_pci_devices\": [] , \"cpus\": 2 }'",
        &["only allowed when state is \"stopped\""],
    )?;
    let late = ["has not switched itself off within 3 seconds", "--force"];
    refused(&mut machine, "no answer to the button", "stop web --timeout 3", &late)?;

    kill(&mut machine, "web")?;
    expect!(records(&mut machine)?.len() == 2, "a record stays of each function that is dirty");
    // It listens to its power button, and is in the middle of writing when that is pressed.
    let words = format!("update web \"cmdline={LINUX_WORDS} check=power_button,busy\"");
    slotpass(&mut machine, "other checks", &words)?;
    slotpass(&mut machine, "start again", "start web")?;
    await_console(&mut machine, "web", "check busy ok", 2)?;
    slotpass(&mut machine, "stop by its button", "stop web")?;
    let said = slotpass(&mut machine, "what it said of it", "log --console web")?;
    expect!(said.contains("its power button was pressed"), "the guest did not see its button:\n{said}");
    let log = slotpass(&mut machine, "its end", "log web")?;
    expect!(log.contains("end: the guest switched itself off"), "{log}");
    expect!(records(&mut machine)?.is_empty(), "no record is left");
    machine.expect_nothing_left()?;

    // A guest that listens to its power button.
    slotpass(&mut machine, "start the other", "start other")?;
    await_console(&mut machine, "other", "power-button: ready", 1)?;
    slotpass(&mut machine, "stop the other", "stop other")?;
    let log = slotpass(&mut machine, "its log", "log other")?;
    expect!(log.contains("end: the guest switched itself off"), "{log}");

    for vm in [&web, &other] {
        slotpass(&mut machine, "delete", &format!("delete {vm}"))?;
    }
    machine.command("nothing is kept", "[ -z \"$(ls -A /run/vms)\" ]")?;
    // The last user's data is still there, and the machine's own driver works.
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    let (inside, outside) = (machine.sha256_through_nvme_driver(&nvme, 64)?, image.sha256_of_first(64)?);
    expect!(inside == outside, "the driver reads {inside}, the image file holds {outside}");
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// A function that cannot be reset is not handed on when the VM that had it was killed, unless its user wants that.
pub fn dirty(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let kernel = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    let port = plan.root_port("6.0");
    let bus = plan.conventional_bus(&port);
    let (edu, other) = (plan.edu((&bus, "1.0"), None), plan.edu((&bus, "2.0"), None));

    let mut machine = Machine::boot(&plan, scenario)?;
    // Its bus is its only reset, and the other one is nobody's.
    machine.give_to_vfio(&[&edu])?;
    let guest = format!("\"kernel\": \"{kernel}\", \"cmdline\": \"halt\"");
    let uuid = create(&mut machine, "web", &format!("{guest}, {}", devices(&[("0:8:0", &edu)])))?;
    slotpass(&mut machine, "start", "start web")?;
    kill(&mut machine, "web")?;
    let (name, other_name) = (edu.to_string(), other.to_string());
    let parts = ["slot 0:8:0", &name, "is dirty", &uuid, "cannot be reset", &other_name, "--accept-dirty"];
    refused(&mut machine, "not as it is", "start web", &parts)?;
    let dirty = format!("reset: it is dirty: VM {uuid} had it");
    foreseen(&mut machine, "dirty", "web", &[&dirty, "        slotpass start --accept-dirty web\n"])?;
    expect!(records(&mut machine)? == [&*name], "it stays dirty");
    machine.expect_nothing_left()?;
    let started = attempt(&mut machine, "as it is", "start web --accept-dirty")?;
    let warning = format!("slotpass: warn: slot 0:8:0: {name} cannot be reset");
    expect!(started.code == 0 && started.err.contains(&warning), "{}: {}", started.code, started.err);
    let runs = ["vm: it is running already", "        slotpass stop web\n"];
    foreseen(&mut machine, "it runs", "web", &runs)?;
    slotpass(&mut machine, "stop", "stop web --force")?;
    expect!(records(&mut machine)?.is_empty(), "no record is left");

    // What can be reset is clean then.
    foreseen(&mut machine, "clean", "web", &[])?;
    slotpass(&mut machine, "start once more", "start web")?;
    kill(&mut machine, "web")?;
    machine.give_to_vfio(&[&other])?;
    let second = format!(
        "update web <<<'{{ \"add_pci_devices\": [ {{ \"path\": \"{other}\", \"pci_slot\": \"9\" }} ] }}'"
    );
    slotpass(&mut machine, "both", &second)?;
    foreseen(&mut machine, "both", "web", &[])?;
    slotpass(&mut machine, "start both", "start web")?;
    slotpass(&mut machine, "stop both", "stop web --force")?;
    expect!(records(&mut machine)?.is_empty(), "no record is left");

    // What comes while the VM runs is recorded as well, and let go when it goes.
    let port =
        format!("update web <<<'{{ \"remove_pci_devices\": [\"{edu}\", \"{other}\"], \"ports\": [1] }}'");
    slotpass(&mut machine, "a port instead", &port)?;
    slotpass(&mut machine, "start without them", "start web")?;
    slotpass(&mut machine, "plug in", &format!("ctl --vm web add 1:0:0={edu}"))?;
    expect!(records(&mut machine)? == [&*name], "a record of what was plugged in");
    create(&mut machine, "second", &format!("{guest}, {}", devices(&[("0:8:0", &edu)])))?;
    refused(&mut machine, "it is used", "start second", &[&name, "in slot 1:0:0 of VM", &uuid])?;
    let used = format!("in use: it is in slot 1:0:0 of VM {uuid}");
    foreseen(&mut machine, "used", "second", &[&used, &format!("        slotpass stop {uuid}\n")])?;
    slotpass(&mut machine, "take away", "ctl --vm web remove 1:0:0 --force")?;
    expect!(records(&mut machine)?.is_empty(), "no record of what was taken away");
    foreseen(&mut machine, "free", "second", &[])?;
    slotpass(&mut machine, "it is free", "start second")?;
    for vm in ["web", "second"] {
        slotpass(&mut machine, "stop", &format!("stop {vm} --force"))?;
    }
    machine.expect_nothing_left()?;
    machine.power_off()
}
