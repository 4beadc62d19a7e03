use guest_tests::{Failure, Iommu, Machine, Plan, Scenario, expect};

use super::{done, expect_drivers, slotpass, state};

/// Two functions of a group: the other is named, and taken when that is asked for.
pub fn two_functions(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("sata.img", 8)?;
    let mut plan = Plan::new(iommu);
    let port = plan.root_port("4.0");
    let bus = plan.conventional_bus(&port);
    let sata = plan.ahci((&bus, "1.0"), &image);
    let nic = plan.virtio_network((&bus, "2.0"));

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    let before = state(&mut machine)?;
    let report = slotpass(&mut machine, "alone", &["reserve", sata.as_str()])?;
    report.expect_refusal(&[sata.as_str(), nic.as_str(), "virtio-pci", "group", "--group"])?;
    expect!(state(&mut machine)? == before, "a refusal changed something");
    let asked = |answer: &str| format!("echo {answer} | script -qec \"$SLOTPASS reserve {sata}\" /dev/null");
    let program = machine.scenario().provisioned().slotpass().display().to_string();
    for (answer, expected) in [("n", "none"), ("y", "vfio-pci")] {
        let script = format!(
            "mkdir -p /dev/pts; [ -e /dev/pts/ptmx ] || busybox mount -t devpts devpts /dev/pts\n\
             export SLOTPASS='{program}'\n{}\n",
            asked(answer)
        );
        let output = machine.attempt("asked on a terminal", &script, 60)?;
        expect!((output.code == 0) == (answer == "y"), "{answer}: exit code {}: {}", output.code, output.out);
        expect!(output.out.contains(nic.as_str()) && output.out.contains("[y/N]"), "{}", output.out);
        expect_drivers(&mut machine, &[(&sata, expected)])?;
    }
    expect_drivers(&mut machine, &[(&nic, "vfio-pci")])?;

    let report = slotpass(&mut machine, "release one", &["release", nic.as_str()])?;
    report.expect_code(0)?;
    report.expect_message(&["note: ", sata.as_str(), "stays reserved", "--group"])?;
    expect_drivers(&mut machine, &[(&sata, "vfio-pci"), (&nic, "virtio-pci")])?;
    done(&mut machine, "both again", &["reserve", "--group", sata.as_str()])?;
    expect_drivers(&mut machine, &[(&sata, "vfio-pci"), (&nic, "vfio-pci")])?;
    done(&mut machine, "release both", &["release", "--group", sata.as_str()])?;
    let after = state(&mut machine)?;
    expect!(after == before, "before:\n{before}\nafter:\n{after}");
    machine.power_off()
}
