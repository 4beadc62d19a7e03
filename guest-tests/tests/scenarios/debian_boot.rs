//! What slotpass says of the kernel's command line and of the initramfs, done on a Debian that starts by its own boot loader.

use guest_tests::{Bdf, CommandOutput, Failure, Iommu, Machine, Plan, Scenario, expect};

use crate::doctor::told::Told;
use crate::fresh_debian::drivers;

/// What a drive needs that starts by itself; the words are as a user has them who has turned the IOMMU off.
const BOOT_LOADER: &str = "apt install ./slotpass.deb\n\
    cat >>/etc/default/grub <<'WORDS'\n\
    GRUB_TERMINAL=serial\n\
    GRUB_TIMEOUT=0\n\
    GRUB_CMDLINE_LINUX=\"console=ttyS0 no_timer_check intel_iommu=off\"\n\
    WORDS\n\
    # As the installer makes a small initramfs, but with the drive's driver in it: all of them would take an emulated processor\n\
    # a quarter of an hour.\n\
    echo MODULES=dep >/etc/initramfs-tools/conf.d/driver-policy\n\
    echo nvme >>/etc/initramfs-tools/modules\n\
    update-initramfs -u -k all\n\
    # It has no partitions, between which the boot loader would be.\n\
    grub-install --force /dev/vda\n\
    update-grub\n";
/// Of a command that makes an initramfs or reads all of a boot loader's scripts, in an emulated machine.
const MOST_SECONDS: u32 = 1800;

/// The IOMMU is turned on by the commands that doctor prints; then a drive is kept for guests by the initramfs alone, and given
/// back.
pub fn kernel_words_and_initramfs(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let system = scenario.debian_drive()?;
    scenario.copy_for_machine("slotpass.deb", scenario.provisioned().package()?)?;
    let mut plan = Plan::new(iommu);
    plan.debian_on(&system);
    let nvme = plan.nvme("4.0", &scenario.blank_image("drive.img", 8)?);
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.command("fetch the package", "cp /run/scenario/slotpass.deb /root")?;
    done(&mut machine, "install package and boot loader", BOOT_LOADER)?;
    // What is shown here is to be the initramfs' work.
    machine.command("no apply at boot", "systemctl disable --quiet slotpass-apply")?;
    machine.power_off()?;

    plan.boot_loader();
    let mut machine = Machine::boot(&plan, scenario)?;
    let told = doctor(&mut machine, &nvme)?;
    let told = told.section("problem", nvme.as_str(), "iommu", &["no IOMMU groups"])?;
    told.expect_parameter_to_leave_out("intel_iommu=off")?;
    done(&mut machine, "do what doctor says", &told.commands.join("\n"))?;
    machine.power_off()?;

    let mut machine = Machine::boot(&plan, scenario)?;
    let words = machine.command("the kernel's words", "cat /proc/cmdline")?;
    expect!(words.contains("console=ttyS0") && !words.contains("iommu"), "the kernel was given: {words}");
    let told = doctor(&mut machine, &nvme)?;
    expect!(!told.text.contains("problem  iommu"), "the IOMMU is still off: {}", told.text);
    told.section("problem", nvme.as_str(), "driver", &["nvme"])?;

    let before = drivers(&mut machine)?;
    let held = |by: &str| format!("{nvme} {by}");
    expect!(before.lines().any(|line| line.starts_with(&held("nvme"))), "before:\n{before}");
    anew(&mut machine, &format!("slotpass reserve --initramfs {nvme}"))?;
    machine.power_off()?;

    let mut machine = Machine::boot(&plan, scenario)?;
    let taken = drivers(&mut machine)?;
    expect!(taken.lines().any(|line| line.starts_with(&held("vfio-pci"))), "after a reboot:\n{taken}");
    let log =
        machine.command("was nvme there before", "journalctl -b -o cat | grep -c 'nvme nvme0' || true")?;
    expect!(log.trim() == "0", "nvme had the drive first");

    anew(&mut machine, &format!("slotpass release --initramfs {nvme}"))?;
    machine.power_off()?;

    let mut machine = Machine::boot(&plan, scenario)?;
    let after = drivers(&mut machine)?;
    expect!(after == before, "before:\n{before}\nafter:\n{after}");
    let left = machine.command("files", "grep -rl slotpass /etc/modprobe.d /etc/initramfs-tools || true")?;
    expect!(left.is_empty(), "left behind: {left}");
    machine.power_off()
}

fn done(machine: &mut Machine<'_>, name: &str, commands: &str) -> Result<CommandOutput, Failure> {
    let output = machine.attempt(name, &format!("set -eu\n{commands}"), MOST_SECONDS)?;
    expect!(output.code == 0, "{name}: exit code {}: {}{}", output.code, output.out, output.err);
    Ok(output)
}

fn doctor(machine: &mut Machine<'_>, function: &Bdf) -> Result<Told, Failure> {
    let output = machine.attempt("doctor", &format!("slotpass doctor {function}"), 60)?;
    expect!(output.code == 1, "doctor: exit code {}: {}{}", output.code, output.out, output.err);
    Ok(Told { code: output.code, text: output.out, commands: Vec::new() })
}

/// Carries out a command of slotpass's, and what it says makes the initramfs anew.
fn anew(machine: &mut Machine<'_>, command: &str) -> Result<(), Failure> {
    let said = done(machine, command, command)?;
    let said = said.out + &said.err;
    let Some((_, update)) = said.split_once("until it is made anew: ") else {
        return Err(Failure::NotAsExpected(format!("no word of the initramfs in:\n{said}")));
    };
    done(machine, "make the initramfs anew", update.lines().next().unwrap_or_default())?;
    Ok(())
}
