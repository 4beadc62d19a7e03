use guest_tests::{Failure, Iommu, Machine, Plan, Scenario, expect};

use super::{AT_BOOT, done, expect_drivers, path_of, slotpass, state};

/// At boot: no driver of the machine has its functions yet, and none gets them later.
pub fn at_boot(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let images = [scenario.blank_image("one.img", 8)?, scenario.blank_image("two.img", 8)?];
    let mut plan = Plan::new(iommu);
    let drives = [plan.nvme("4.0", &images[0]), plan.nvme("5.0", &images[1])];
    let nic = plan.e1000e("6.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    let before = state(&mut machine)?;
    let path = path_of(&mut machine, &drives[1])?;
    // /etc cannot be written when apply runs at boot.
    machine.command(
        "what is reserved",
        &format!(
            "printf '# at boot\\nppt \"{path}\" \"pci8086,10d3.1.2.3\"\\nppt pciex8086,10d3\\nppt \"pciex8086,10d3\"\\n' >{AT_BOOT}\n\
             busybox mount -o remount,bind,ro /etc\n"
        ),
    )?;
    let report = slotpass(&mut machine, "apply before drivers are there", &["apply"])?;
    report.expect_code(0)?;
    let expected = format!(
        "{}: reserved for guests (was with no driver)\n{nic}: reserved for guests (was with no driver)\n",
        drives[1]
    );
    expect!(report.serial() == expected, "apply said:\n{}", report.serial());
    report.expect_message(&["line 2: this host has no function 'pci8086,10d3.1.2.3' now", "line 3: "])?;
    for module in ["nvme", "e1000e"] {
        machine.command("the driver comes", &format!("while read -r module; do insmod /run/modules/$module 2>/dev/null || true; done </run/modules/{module}"))?;
    }
    expect_drivers(&mut machine, &[(&drives[0], "nvme"), (&drives[1], "vfio-pci"), (&nic, "vfio-pci")])?;
    let silent = slotpass(&mut machine, "once more", &["apply"])?;
    silent.expect_code(0)?;
    expect!(silent.serial().is_empty(), "apply said:\n{}", silent.serial());

    // Both drives by one line: one of them cannot be released without the other.
    machine.command(
        "one line for both",
        &format!("busybox mount -o remount,bind,rw /etc; printf 'ppt \"pci1b36,10\"\\nppt \"pciex8086,10d3\"\\n' >{AT_BOOT}"),
    )?;
    let said = done(&mut machine, "apply with drivers there", &["apply"])?;
    expect!(said == format!("{}: reserved for guests (was with nvme)\n", drives[0]), "apply said:\n{said}");
    let report = slotpass(&mut machine, "release one of two", &["release", drives[0].as_str()])?;
    report.expect_refusal(&[drives[0].as_str(), "line 1", AT_BOOT, drives[1].as_str(), "--by-id"])?;
    done(&mut machine, "release what the line means", &["release", "--by-id", drives[0].as_str()])?;
    expect_drivers(&mut machine, &[(&drives[0], "nvme"), (&drives[1], "nvme"), (&nic, "vfio-pci")])?;
    done(&mut machine, "release by an alias", &["release", "pciex8086,10d3"])?;
    let after = state(&mut machine)?;
    let with_drivers = before
        .replace(&format!("{} (null)", drives[0]), &format!("{} nvme (null)", drives[0]))
        .replace(&format!("{} (null)", drives[1]), &format!("{} nvme (null)", drives[1]))
        .replace(&format!("{nic} (null)"), &format!("{nic} e1000e (null)"));
    expect!(after == with_drivers, "wanted:\n{with_drivers}\nfound:\n{after}");
    machine.power_off()
}
