use guest_tests::{Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

use super::{IMAGE_MIB, expect_disk, expect_interrupts, expect_network};

/// Sound, SATA, SAS, USB, virtio and an NVMe drive with the largest MSI-X table there can be, all in one guest.
pub fn all_kinds(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let fetched = scenario.file_to_fetch()?;
    let [sata, sas, usb, virtio, nvme] = ["sata", "sas", "usb", "virtio", "nvme"]
        .map(|name| scenario.blank_image(&format!("{name}.img"), IMAGE_MIB));
    let (sata, sas, usb, virtio, nvme) = (sata?, sas?, usb?, virtio?, nvme?);
    let mut plan = Plan::new(iommu);
    let functions = [
        ("0:8:0", plan.sound("4.0", "played")),
        ("0:9:0", plan.ahci("5.0", &sata)),
        ("0:10:0", plan.sas("6.0", "megasas-gen2", &sas)),
        ("0:11:0", plan.xhci("7.0", &usb)),
        ("0:12:0", plan.virtio_network("8.0")),
        ("0:13:0", plan.virtio_block("9.0", &virtio)),
        ("0:14:0", plan.nvme_with("a.0", &nvme, ",msix_qsize=2048")),
    ];

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&functions.each_ref().map(|(_, bdf)| bdf))?;
    let run = GuestRun::linux_with_more_drivers(
        &machine,
        "check=disk@0000:00:09.0@ahci,disk@0000:00:0a.0@megaraid_sas,usb@0000:00:0b.0,disk@0000:00:0b.0@xhci_pci,\
         network@0000:00:0c.0@virtio_net,disk@0000:00:0d.0@virtio_blk,disk@0000:00:0e.0@nvme,sound@0000:00:08.0,\
         interrupts,poweroff",
    );
    let run = functions.iter().fold(run, |run, (slot, bdf)| run.slot(slot, bdf));
    let report = machine.run("slotpass run", &run)?;

    report.expect_code(0)?;
    report.expect_no_failed_check()?;
    expect_disk(&report, "0000:00:09.0", "msi", &sata)?;
    expect_disk(&report, "0000:00:0a.0", "msix", &sas)?;
    expect_disk(&report, "0000:00:0b.0", "msix", &usb)?;
    expect_disk(&report, "0000:00:0d.0", "msix", &virtio)?;
    expect_disk(&report, "0000:00:0e.0", "msix", &nvme)?;
    expect_network(&report, "0000:00:0c.0", "msix", &fetched)?;
    let usb = report.check("usb@0000:00:0b.0")?;
    for product in ["USB-Tablet", "USB-HARDDRIVE"] {
        let products = usb.value("products")?;
        expect!(products.contains(product), "of USB devices the guest sees {products}");
    }
    let sound = report.check("sound@0000:00:08.0")?;
    expect_interrupts(&sound, "0000:00:08.0", "msi")?;
    let heard = machine.scenario().samples_in("played.wav")?;
    expect!(heard > 1000, "{heard} samples of the tone came out");
    machine.expect_nothing_left()?;
    machine.power_off()
}
