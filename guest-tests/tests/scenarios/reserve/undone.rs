use guest_tests::{Bdf, Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use super::{done, expect_drivers, slotpass, state};

/// Whatever fails: everything is as before.
pub fn whatever_fails(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 8)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    let before = state(&mut machine)?;
    one_of_two_fails(&mut machine, &nvme, &nic, &before)?;
    in_an_initramfs(&mut machine, &nvme, &before)?;
    without_the_module(&mut machine, &nvme, &before)?;
    by_ids_of_the_driver(&mut machine, &nvme, &before)?;
    machine.power_off()
}

/// What was done for the first function is undone when the second cannot be taken.
fn one_of_two_fails(machine: &mut Machine<'_>, nvme: &Bdf, nic: &Bdf, before: &str) -> Result<(), Failure> {
    let both = [nvme.as_str(), nic.as_str()];
    let file = format!("/sys/bus/pci/devices/{nic}/driver_override");
    machine.command(
        "the NIC's override cannot be written",
        &format!(
            "echo '(null)' >/run/fixed; file=$(readlink -f {file})\n\
             busybox mount -o bind /run/fixed $file; busybox mount -o remount,bind,ro $file\n"
        ),
    )?;
    let report = slotpass(machine, "one of two cannot be reserved", &[&["reserve"], &both[..]].concat())?;
    report.expect_code(1)?;
    report.expect_message(&[
        &format!("{nic}: cannot write {file}: Read-only file system"),
        "nothing was changed: what was done before that was undone",
    ])?;
    expect!(state(machine)? == before, "reserve did one of two");
    machine.command("it can be written again", &format!("busybox umount $(readlink -f {file})"))?;

    done(machine, "reserve both", &[&["reserve"], &both[..]].concat())?;
    let reserved = state(machine)?;
    machine.command(
        "it is fixed",
        &format!(
            "echo vfio-pci >/run/fixed; file=$(readlink -f {file})\n\
             busybox mount -o bind /run/fixed $file; busybox mount -o remount,bind,ro $file\n"
        ),
    )?;
    let report = slotpass(machine, "one of two cannot be released", &[&["release"], &both[..]].concat())?;
    report.expect_code(1)?;
    report.expect_message(&[&format!("{nic}: cannot write {file}"), "nothing was changed"])?;
    expect!(state(machine)? == reserved, "release did one of two");
    machine.command("it is not fixed", &format!("busybox umount $(readlink -f {file})"))?;
    done(machine, "release both", &[&["release"], &both[..]].concat())?;
    expect!(state(machine)? == before, "not as before");
    Ok(())
}

/// The files for an initramfs come and go with the function.
fn in_an_initramfs(machine: &mut Machine<'_>, nvme: &Bdf, before: &str) -> Result<(), Failure> {
    const FILES: &str = "modprobe.d/slotpass.conf initramfs-tools/hooks/slotpass dracut.conf.d/slotpass.conf";
    machine
        .command("both kinds", "mkdir -p /etc/modprobe.d /etc/initramfs-tools/hooks /etc/dracut.conf.d")?;
    let report =
        slotpass(machine, "reserve in an initramfs", &["reserve", "--initramfs", "--boot", nvme.as_str()])?;
    report.expect_code(0)?;
    report.expect_message(&["note: ", "update-initramfs -u"])?;
    let files = machine.command(
        "its files",
        &format!("cd /etc; cat {FILES}; [ -x initramfs-tools/hooks/slotpass ]; sh -n initramfs-tools/hooks/slotpass"),
    )?;
    for line in ["options vfio-pci ids=1b36:0010:1af4:1100", "softdep nvme pre: vfio-pci"] {
        expect!(files.lines().any(|found| found == line), "no {line:?} in:\n{files}");
    }
    done(machine, "release from it", &["release", "--initramfs", nvme.as_str()])?;
    machine.command("no files", &format!("cd /etc; for file in {FILES}; do [ ! -e $file ]; done"))?;
    expect!(state(machine)? == before, "not as before");
    Ok(())
}

/// The module with vfio-pci is loaded where it is not yet, and without it nothing is changed.
fn without_the_module(machine: &mut Machine<'_>, nvme: &Bdf, before: &str) -> Result<(), Failure> {
    machine.command(
        "the module goes",
        "busybox rmmod vfio_pci\n\
         mkdir /run/bin\n\
         printf '#!/bin/sh\\n[ \"$*\" = vfio-pci ] && exec insmod /run/modules/vfio-pci.ko\\n' >/run/bin/modprobe\n\
         chmod 755 /run/bin/modprobe\n",
    )?;
    let reserve = GuestRun::slotpass(&["reserve", nvme.as_str()]);
    // modprobe looks for modules in a directory that is not there in the machine.
    let report = machine.run("there is no module", &reserve)?;
    report.expect_code(1)?;
    report.expect_message(&["the kernel has no driver vfio-pci: ", "nothing was changed"])?;
    expect!(state(machine)? == before, "reserve without vfio-pci changed something");
    let report = machine.run("there is one", &reserve.after("export PATH=/run/bin:$PATH"))?;
    report.expect_code(0)?;
    expect_drivers(machine, &[(nvme, "vfio-pci")])?;
    done(machine, "release it", &["release", nvme.as_str()])?;
    expect!(state(machine)? == before, "not as before");
    Ok(())
}

/// A function that vfio-pci would take again, since it was told its ids.
fn by_ids_of_the_driver(machine: &mut Machine<'_>, nvme: &Bdf, before: &str) -> Result<(), Failure> {
    machine.command("tell vfio-pci its ids", "echo 1b36 0010 >/sys/bus/pci/drivers/vfio-pci/new_id")?;
    done(machine, "reserve it", &["reserve", nvme.as_str()])?;
    // The driver that was loaded first takes what both want.
    machine.command(
        "the drive's driver comes last",
        "busybox rmmod nvme; while read -r module; do insmod /run/modules/$module 2>/dev/null || true; done </run/modules/nvme",
    )?;
    let said = done(machine, "release it all the same", &["release", nvme.as_str()])?;
    expect!(said.contains("was told its ids"), "it said:\n{said}");
    expect!(state(machine)? == before, "not as before");
    Ok(())
}
