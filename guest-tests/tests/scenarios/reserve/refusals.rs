use guest_tests::{Failure, Iommu, Machine, Plan, Scenario, expect};

use super::{AT_BOOT, done, expect_drivers, path_of, slotpass, state};

/// What the host needs is not taken, and bridges are not even with --force.
pub fn what_the_host_needs(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");
    let display = plan.function("6.0", "VGA");
    let port = plan.root_port("7.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    let before = state(&mut machine)?;
    let refused = |machine: &mut Machine<'_>, name: &str, arguments: &[&str], words: &[&str]| {
        slotpass(machine, name, &[&["reserve"], arguments].concat())?.expect_refusal(words)
    };
    let root = "0000:00:02.0";
    refused(&mut machine, "the root", &[root], &[root, "the file system mounted at / is on it", "--force"])?;
    refused(&mut machine, "a display", &[display.as_str()], &[display.as_str(), "boot_vga", "--force"])?;
    let bridge = port.bdf().as_str();
    refused(&mut machine, "a bridge", &["--force", bridge], &[bridge, "bridge", "never"])?;
    refused(&mut machine, "an ISA bridge", &["0000:00:1f.0"], &["0000:00:1f.0", "060100"])?;

    let drive = "for i in {1..100}; do [ -b /dev/nvme0n1 ] && break; sleep 0.1; done\n";
    machine.command(
        "use it for swap",
        &format!("{drive}busybox mkswap /dev/nvme0n1; busybox swapon /dev/nvme0n1"),
    )?;
    refused(&mut machine, "swap", &[nvme.as_str()], &[nvme.as_str(), "swaps to it (/dev/nvme0n1)"])?;
    machine.command("no more", "busybox swapoff /dev/nvme0n1\n")?;
    machine.command(
        "make a file system on a partition",
        "while read -r module; do insmod /run/modules/$module 2>/dev/null || true; done </run/modules/ext4\n\
         printf 'n\\np\\n1\\n\\n\\nw\\n' | busybox fdisk /dev/nvme0n1 >/dev/null 2>&1 || true\n\
         for i in {1..100}; do [ -b /dev/nvme0n1p1 ] && break; sleep 0.1; done\n\
         busybox mke2fs /dev/nvme0n1p1 >/dev/null\n\
         mkdir -p '/run/a mount'\n\
         busybox mount -t ext4 /dev/nvme0n1p1 '/run/a mount'\n",
    )?;
    refused(
        &mut machine,
        "mounted",
        &[nvme.as_str()],
        &[nvme.as_str(), "the file system mounted at /run/a mount is on it (/dev/nvme0n1p1)"],
    )?;
    // What is in a file is no reason to take it either.
    done(&mut machine, "the NIC's file", &["reserve", "--boot", nic.as_str()])?;
    let path = path_of(&mut machine, &nvme)?;
    machine.command("a line for the drive", &format!("echo 'ppt \"{path}\"' >>{AT_BOOT}"))?;
    machine.command(
        "a default route",
        &format!(
            "interface=$(ls /sys/bus/pci/devices/{nic}/net)\n\
             busybox ip link set $interface up\n\
             busybox ip address add 10.0.2.15/24 dev $interface\n\
             busybox ip route add default via 10.0.2.2 dev $interface\n"
        ),
    )?;
    refused(&mut machine, "the NIC", &[nic.as_str()], &[nic.as_str(), "the default route goes through it"])?;
    let report = slotpass(&mut machine, "apply leaves both", &["apply"])?;
    report.expect_code(0)?;
    report.expect_message(&[
        &format!(
            "warn: {nvme}: left to the host, though it is reserved: the file system mounted at /run/a mount"
        ),
        &format!("warn: {nic}: left to the host, though it is reserved: the default route"),
    ])?;
    expect_drivers(&mut machine, &[(&nvme, "nvme"), (&nic, "e1000e")])?;
    machine.command(
        "unmount it, and forget the lines",
        &format!("busybox umount '/run/a mount'; rm {AT_BOOT}"),
    )?;
    machine.command(
        "somebody has it open",
        "exec 3>&-; sleep 1000 5</dev/nvme0n1 >/dev/null 2>&1 & echo $! >/run/open",
    )?;
    refused(&mut machine, "open", &[nvme.as_str()], &[nvme.as_str(), "(sleep) has /dev/nvme0n1 open"])?;
    machine.command("nobody has it open", "kill $(</run/open)")?;
    expect!(state(&mut machine)? == before, "refusals changed something");

    // The way to take a NIC all the same, and back; its route is gone.
    done(&mut machine, "forced", &["reserve", "--force", nic.as_str()])?;
    expect_drivers(&mut machine, &[(&nic, "vfio-pci")])?;
    done(&mut machine, "release", &["release", nic.as_str()])?;
    expect!(state(&mut machine)? == before, "not as before");
    machine.power_off()
}
