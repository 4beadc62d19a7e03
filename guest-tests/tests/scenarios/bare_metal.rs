//! Bare-metal guests: for functions that no Linux driver drives, and for what a guest can do to its VMM.

use guest::pattern;
use guest_tests::{DiskImage, Failure, GuestRun, Iommu, Machine, Piece, Plan, Scenario, Stats, expect};

use crate::linux::{E1000E, NVME, expect_checked_io, expect_function, expect_network};

const IVSHMEM_MIB: u64 = 256;

/// The shared memory holds on the host what package `guest`'s `devices` program wrote in the guest.
fn expect_pattern(image: &DiskImage, seed: u64, step: u64) -> Result<(), Failure> {
    for offset in pattern::offsets(IVSHMEM_MIB << 20, step) {
        let (found, written) = (image.word_at(offset)?, pattern::word(offset, seed));
        expect!(
            found == written,
            "shared memory at {offset:#x}: {found:#x} on the host, {written:#x} written"
        );
    }
    Ok(())
}

/// edu (MSI, DMA both ways), pci-testdev (memory and I/O BARs) and ivshmem-plain (a large 64-bit prefetchable BAR)
/// beside the drive and the NIC; driven bare-metal, and then a Linux guest sees all five and uses its two.
pub fn further_functions(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let shared = scenario.blank_image("shared.img", IVSHMEM_MIB)?;
    let kernel = scenario.file_for_machine("devices.elf", guest::DEVICES)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");
    let edu = plan.edu("6.0", None);
    let testdev = plan.pci_testdev("7.0");
    let ivshmem = plan.ivshmem("8.0", &shared, IVSHMEM_MIB);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic, &edu, &testdev, &ivshmem])?;
    let with_all = |run: GuestRun| {
        run.slot("0:8:0", &nvme)
            .slot("0:8:1", &nic)
            .slot("0:8:2", &edu)
            .slot("0:9:0", &testdev)
            .slot("0:10:0", &ivshmem)
    };

    let run =
        GuestRun::bare_metal(&kernel, "edu=0:8:2 testdev=0:9:0 ivshmem=0:10:0 seed=7 step=4096 poweroff");
    let report = machine.run("bare-metal guest", &with_all(run))?;
    report.expect_code(0)?;
    report.expect_serial_start("ok edu 0:8:2 ")?;
    report.expect_serial_start("ok testdev 0:9:0 ")?;
    report.expect_serial_start("ok ivshmem 0:10:0 ")?;
    expect_pattern(&shared, 7, 4096)?;

    let run = GuestRun::linux_elf(&machine, "check=pci,nvme,nic,poweroff");
    let report = machine.run("Linux guest", &with_all(run))?;
    report.expect_code(0)?;
    for (bdf, ids) in [
        ("0000:00:08.0", NVME),
        ("0000:00:08.1", E1000E),
        ("0000:00:08.2", "1234:11e8"),
        ("0000:00:09.0", "1b36:0005"),
        ("0000:00:0a.0", "1af4:1110"),
    ] {
        expect_function(&report, bdf, ids)?;
    }
    expect_checked_io(&report, &image)?;
    expect_network(&report)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// A guest moves a BAR to where an IOMMU of 39 bits does not reach: then other functions cannot reach it by DMA, which is
/// a note in the log, and everything else works.
pub fn moved_bar(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    const AT: &str = "0x8000000000";
    let shared = scenario.blank_image("shared.img", IVSHMEM_MIB)?;
    let kernel = scenario.file_for_machine("devices.elf", guest::DEVICES)?;
    let mut plan = Plan::new(iommu);
    let ivshmem = plan.ivshmem("8.0", &shared, IVSHMEM_MIB);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&ivshmem])?;
    let run = GuestRun::bare_metal(&kernel, &format!("ivshmem=0:10:0 at={AT} seed=3 step=4096 poweroff"))
        .slot("0:10:0", &ivshmem)
        .flag("-v");
    let report = machine.run("a guest that moves a BAR", &run)?;
    report.expect_code(0)?;
    let line = report.expect_serial_start("ok ivshmem 0:10:0 ")?;
    expect!(line.contains(AT), "the BAR is not at {AT}: {line}");
    expect_pattern(&shared, 3, 4096)?;
    let noted = report.messages().contains("peer-to-peer");
    let refused = iommu == Iommu::Intel39;
    expect!(noted == refused, "of peer-to-peer DMA the log says: {}", report.messages());
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// What can be mapped is mapped, and then accesses do not leave the guest.
pub fn mapped_bars_take_no_exit(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let shared = scenario.blank_image("shared.img", IVSHMEM_MIB)?;
    let kernel = scenario.file_for_machine("devices.elf", guest::DEVICES)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");
    let testdev = plan.pci_testdev("7.0");
    let ivshmem = plan.ivshmem("8.0", &shared, IVSHMEM_MIB);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic, &testdev, &ivshmem])?;
    let run = GuestRun::bare_metal(&kernel, "testdev=0:9:0 ivshmem=0:10:0 step=4096 poweroff")
        .slot("0:9:0", &testdev)
        .slot("0:10:0", &ivshmem)
        .flag("--stats=json:/run/scenario/bare-metal.json");
    machine.run("bare-metal guest", &run)?.expect_code(0)?;
    let stats = Stats::read(machine.scenario(), "bare-metal.json")?;
    for (slot, bar) in [("0:9:0", 0), ("0:10:0", 2)] {
        for piece in stats.bar(slot, bar)? {
            expect!(piece.mapped && piece.exits == 0, "exits from a BAR that can be mapped: {piece:?}");
        }
    }
    // Each word of the shared memory was written and read once.
    let (accesses, exits) = (2 * (IVSHMEM_MIB << 20) / 4096, stats.mmio_exits()?);
    expect!(exits < accesses / 4, "{exits} memory accesses left the guest, of at least {accesses}");
    // The counters do count: ports cannot be mapped.
    let ports: u64 = stats.bar("0:9:0", 1)?.iter().map(|piece| piece.exits).sum();
    expect!(ports > 100, "only {ports} accesses to the I/O BAR were counted");

    let run = GuestRun::linux_elf(&machine, "check=nvme,nic,poweroff")
        .slot("0:8:0", &nvme)
        .slot("0:8:1", &nic)
        .flag("--stats=json:/run/scenario/linux.json");
    machine.run("Linux guest", &run)?.expect_code(0)?;
    let stats = Stats::read(machine.scenario(), "linux.json")?;
    for piece in stats.pieces()? {
        expect!(!piece.mapped || piece.exits == 0, "exits from a mapped part of a BAR: {piece:?}");
        expect!(!piece.read_only || piece.reads == 0, "exits for reads of MSI-X structures: {piece:?}");
    }
    // Table and pending bits of each: Linux has written the tables.
    let msix: Vec<Piece> = stats.pieces()?.into_iter().filter(|piece| piece.read_only).collect();
    let written = msix.iter().filter(|piece| piece.exits > 0).count();
    expect!(msix.len() == 4 && written == 2, "{written} MSI-X tables were written: {msix:?}");
    // The drive's registers and doorbells, and all of the NIC's registers.
    for (slot, bar, size) in [("0:8:0", 0, 0x2000), ("0:8:1", 0, 0x20000)] {
        let mapped: u64 =
            stats.bar(slot, bar)?.iter().filter(|piece| piece.mapped).map(|piece| piece.size).sum();
        expect!(mapped >= size, "only {mapped:#x} bytes of BAR {bar} at slot {slot} are mapped");
    }
    machine.power_off()
}

/// Level interrupts of two functions: each on a line of its own, and both on one.
pub fn intx(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let kernel = scenario.file_for_machine("devices.elf", guest::DEVICES)?;
    let mut plan = Plan::new(iommu);
    let first = plan.edu("4.0", None);
    let second = plan.edu("5.0", None);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&first, &second])?;
    for (name, slots, words) in [
        (
            "lines of their own",
            ["0:8:0", "0:9:0"],
            "intx=0:8:0 intx=0:9:0 edu=0:8:0 edu=0:9:0 intx=0:8:0 poweroff",
        ),
        ("one line for both", ["0:8:0", "0:16:0"], "shares=0:8:0,0:16:0 intx=0:16:0 poweroff"),
    ] {
        let [one, other] = slots;
        let run = GuestRun::bare_metal(&kernel, words).slot(one, &first).slot(other, &second);
        let report = machine.run(name, &run)?;
        report.expect_code(0)?;
        let passed = report.serial().lines().filter(|line| line.starts_with("ok ")).count();
        expect!(passed == words.split(' ').count() - 1, "{passed} checks passed: {}", report.serial());
    }
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// The guest resets functions by their own registers and puts them to sleep: all-ones meanwhile, and then they work.
pub fn resets_of_its_own(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let kernel = scenario.file_for_machine("devices.elf", guest::DEVICES)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic])?;
    let words = "power=0:8:0 power=0:8:1 flr=0:8:0 power=0:8:0 flr=0:8:0 poweroff";
    let run = GuestRun::bare_metal(&kernel, words).slot("0:8:0", &nvme).slot("0:8:1", &nic);
    let report = machine.run("resets and sleep", &run)?;
    report.expect_code(0)?;
    for line in report.serial().lines().filter(|line| line.starts_with("ok ")) {
        let silent = match line.starts_with("ok flr") {
            true => !line.contains(" 0 reads all-ones"),
            false => line.contains("BARs silent in D3hot"),
        };
        expect!(silent, "the function answered all the time: {line}");
    }
    machine.expect_nothing_left()?;

    // The same drive, driven by Linux right after.
    let run = GuestRun::linux_elf(&machine, "check=nvme,poweroff").slot("0:8:0", &nvme);
    let report = machine.run("Linux guest", &run)?;
    report.expect_code(0)?;
    expect_checked_io(&report, &image)?;
    machine.power_off()
}

/// How a guest ends, and what slotpass makes of it.
pub fn exit_codes(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let kernel = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut machine = Machine::boot(&Plan::new(iommu), scenario)?;
    for (name, words, code) in
        [("power-off", "poweroff", 0), ("exit port", "code=21", 43), ("two resets", "reset=2", 0)]
    {
        let report = machine.run(name, &GuestRun::bare_metal(&kernel, words))?;
        report.expect_code(code)?;
    }
    let report = machine
        .run("a reset with --no-reboot", &GuestRun::bare_metal(&kernel, "reset").flag("--no-reboot"))?;
    report.expect_code(0)?;
    let report =
        machine.run("two vCPUs", &GuestRun::bare_metal(&kernel, "vcpus poweroff").option("--cpus", "2"))?;
    report.expect_code(0)?;
    report.expect_serial_line("ok vcpus 2")?;
    machine.expect_nothing_left()?;
    machine.power_off()
}
