//! Somebody who is not root, on a Debian: whatever doctor prints for good is done as it is printed, by that user.

use guest_tests::{Bdf, CommandOutput, Failure, Iommu, Kernel, Machine, Plan, Scenario, SystemDrive, expect};

use crate::doctor::told::Told;
use crate::fresh_debian::{self, GUEST_SECONDS, drivers};

/// As the installer of Debian sets somebody up who may use sudo.
const SOMEBODY: &str = "useradd --create-home --shell /bin/bash --groups sudo ann\n\
    echo 'ann ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ann\n";
/// What else changes than drivers: whose the device files are, which rules and limits there are, who is in the group of KVM.
const RIGHTS: &str = "stat -c '%n %a %U %G' /dev/kvm /dev/vfio /dev/vfio/vfio\n\
    find /etc/udev /etc/security /etc/modprobe.d /etc/ppt_aliases -type f | sort | xargs sha256sum\n\
    getent group kvm\n";
/// What undoes it all, for which doctor has no words.
const UNDO: &str = "rm /etc/udev/rules.d/60-slotpass-* /etc/security/limits.d/slotpass-ann.conf\n\
    udevadm control --reload\n\
    gpasswd --delete ann kvm\n";

/// The drive is reserved, the user gets it and KVM and enough locked memory from the next login on, at every boot, and runs
/// README's guest.
pub fn from_login_to_guest(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let token = format!("token-{}", std::process::id());
    let drive = SystemDrive::make(scenario, &token)?;
    scenario.copy_for_machine("slotpass.deb", scenario.provisioned().package()?)?;
    let mut plan = Plan::new(iommu);
    plan.memory_mib(3072);
    plan.kernel(Kernel::Debian);
    let nvme = plan.nvme("4.0", drive.image());

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.command("fetch the package", "cp /run/scenario/slotpass.deb /root")?;
    machine.command("install it", "apt install ./slotpass.deb")?;
    machine.command("a user", SOMEBODY)?;
    let (drivers_before, rights_before) = (drivers(&mut machine)?, machine.command("rights", RIGHTS)?);

    let told = doctor(&mut machine, "held by its driver", &nvme, 1)?;
    done_by_user(&mut machine, &told.section("problem", nvme.as_str(), "driver", &[])?)?;

    let told = doctor(&mut machine, "no rights", &nvme, 1)?;
    let run = fresh_debian::run_command(&mut machine, &nvme)?;
    let refused = by_user(&mut machine, "no guest without rights", &run, 60)?;
    expect!(refused.code != 0, "a guest ran without rights: {}", refused.out);
    done_by_user(&mut machine, &told.section("problem", "", "kvm", &["ann may not open it"])?)?;
    let access = told.section("problem", nvme.as_str(), "access", &["ann may not open /dev/vfio/"])?;
    done_by_user(&mut machine, &access.second_remedy())?;
    let limit = told.section("problem", "", "memory lock", &["ann may lock"])?;
    done_by_user(&mut machine, &limit.second_remedy())?;

    doctor(&mut machine, "after a new login", &nvme, 0)?;
    machine.reboot()?;
    doctor(&mut machine, "after a reboot", &nvme, 0)?;
    let ran = by_user(&mut machine, "a guest", &run, GUEST_SECONDS)?;
    expect!(ran.code == 0, "{run}: exit code {}: {}", ran.code, ran.err);
    expect!(ran.out.contains(&format!("guest has {token}")), "the guest: {}", ran.out);

    let released = by_user(&mut machine, "release", &format!("sudo slotpass release {nvme}"), 60)?;
    expect!(released.code == 0, "release: {}", released.err);
    machine.command("undo the rest", UNDO)?;
    let (drivers_after, rights_after) = (drivers(&mut machine)?, machine.command("rights", RIGHTS)?);
    expect!(drivers_after == drivers_before, "before:\n{drivers_before}\nafter:\n{drivers_after}");
    expect!(rights_after == rights_before, "before:\n{rights_before}\nafter:\n{rights_after}");
    machine.power_off()?;
    let written = drive.written()?;
    expect!(written == token, "the drive has '{written}' where the guest wrote '{token}'");
    Ok(())
}

/// A new login of the user, as on a console: with the groups and limits that hold by then.
fn by_user(
    machine: &mut Machine<'_>,
    name: &str,
    commands: &str,
    seconds: u32,
) -> Result<CommandOutput, Failure> {
    machine.attempt(
        name,
        &format!("exec su --login ann --command \"$(cat <<'HERS'\n{commands}\nHERS\n)\""),
        seconds,
    )
}

fn doctor(machine: &mut Machine<'_>, name: &str, function: &Bdf, code: i32) -> Result<Told, Failure> {
    let output = by_user(machine, name, &format!("slotpass doctor --memory 1G {function}"), 60)?;
    expect!(output.code == code, "{name}: exit code {}: {}{}", output.code, output.out, output.err);
    Ok(Told { code: output.code, text: output.out, commands: Vec::new() })
}

fn done_by_user(machine: &mut Machine<'_>, told: &Told) -> Result<(), Failure> {
    expect!(!told.commands.is_empty(), "no command in:\n{}", told.text);
    let commands = told.commands.join("\n");
    let output = by_user(machine, "do what doctor says", &format!("set -e\n{commands}"), 60)?;
    expect!(output.code == 0, "{commands}: {}{}", output.out, output.err);
    Ok(())
}
