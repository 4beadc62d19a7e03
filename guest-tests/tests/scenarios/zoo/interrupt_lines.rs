use guest_tests::{Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use super::{IMAGE_MIB, expect_disk, expect_network};

/// NICs and a card reader that have no interrupts but INTx; and the ROM of one of them.
pub fn all_kinds(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let card = scenario.blank_image("card.img", IMAGE_MIB)?;
    let mut plan = Plan::new(iommu);
    let functions = [
        ("0:8:0", plan.network("4.0", "e1000")),
        ("0:9:0", plan.network("5.0", "rtl8139")),
        ("0:10:0", plan.sdhci("6.0", &card)),
    ];

    let mut machine = Machine::boot(&plan, scenario)?;
    let [(_, nic), ..] = &functions;
    let rom = machine.sha256_of_rom(nic)?;
    machine.give_to_vfio(&functions.each_ref().map(|(_, bdf)| bdf))?;
    let run = GuestRun::linux_with_more_drivers(
        &machine,
        "check=network@0000:00:08.0@e1000,network@0000:00:09.0@8139cp,disk@0000:00:0a.0@sdhci_pci,rom@0000:00:08.0,\
         interrupts,poweroff",
    );
    let run = functions.iter().fold(run, |run, (slot, bdf)| run.slot(slot, bdf));
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    expect_network(&report, "0000:00:08.0", "intx", &fetched)?;
    expect_network(&report, "0000:00:09.0", "intx", &fetched)?;
    expect_disk(&report, "0000:00:0a.0", "intx", &card)?;
    let read = report.check("rom@0000:00:08.0")?;
    expect!(read.number("bytes")? > 4096, "the ROM has {} bytes", read.value("bytes")?);
    expect!(read.value("sha256")? == rom, "the guest reads another ROM than the machine");
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Functions that have MSI and MSI-X in a guest that uses neither, on lines that they share: slots 0:8:0, 0:8:4 and
/// 0:12:0 all come to the same interrupt pin of the I/O APIC or to the same few.
pub fn shared(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let [nvme, sata] = ["nvme", "sata"].map(|name| scenario.blank_image(&format!("{name}.img"), IMAGE_MIB));
    let (nvme, sata) = (nvme?, sata?);
    let mut plan = Plan::new(iommu);
    let functions = [
        ("0:8:0", plan.e1000e("4.0")),
        ("0:8:1", plan.nvme("5.0", &nvme)),
        ("0:8:4", plan.ahci("6.0", &sata)),
        ("0:12:0", plan.network("7.0", "e1000")),
    ];

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&functions.each_ref().map(|(_, bdf)| bdf))?;
    let run = GuestRun::linux_with_more_drivers(
        &machine,
        "pci=nomsi check=network@0000:00:08.0@e1000e,disk@0000:00:08.1@nvme,disk@0000:00:08.4@ahci,\
         network@0000:00:0c.0@e1000,network@0000:00:08.0@e1000e,lines,interrupts,poweroff",
    );
    let run = functions.iter().fold(run, |run, (slot, bdf)| run.slot(slot, bdf));
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    for nic in ["0000:00:08.0", "0000:00:0c.0"] {
        expect_network(&report, nic, "intx", &fetched)?;
    }
    expect_disk(&report, "0000:00:08.1", "intx", &nvme)?;
    expect_disk(&report, "0000:00:08.4", "intx", &sata)?;
    let shared = report.check("lines")?.number("shared")?;
    expect!(shared > 0, "no two functions share a line, so nothing of that was tested");
    machine.expect_nothing_left()?;
    machine.power_off()
}
