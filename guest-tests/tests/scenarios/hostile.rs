//! A guest that writes random values wherever it can reach the functions that it was given.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use guest::pattern;
use guest_tests::{DiskImage, Failure, GuestRun, Iommu, Machine, Plan, Scenario, expect};

const MIB: u64 = 1 << 20;
/// BAR of each shared memory; the file behind it is longer by [`BEYOND_MIB`].
const SHARED_MIB: u64 = 16;
const BEYOND_MIB: u64 = 1;
/// What slotpass may say in all, in bytes.
const MOST_MESSAGES: usize = 64 << 10;

/// A minute of attack.
pub fn hostile_guest(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    attack(iommu, scenario, Nic::E1000e, &[(1, 100_000), (2, 100_000)], Duration::from_secs(300))
}

/// Five million accesses, on either kind of IOMMU.
pub fn hostile_guest_at_length(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    attack(iommu, scenario, Nic::Rtl8139, &[(3, 5_000_000)], Duration::from_secs(7200))
}

/// Memory of the machine that the guest must not reach, with a pattern in it.
struct Canary {
    image: DiskImage,
    seed: u64,
}

impl Canary {
    fn new(scenario: &Scenario, name: &str, seed: u64) -> Result<Self, Failure> {
        let canary = Self { image: scenario.blank_image(name, SHARED_MIB + BEYOND_MIB)?, seed };
        canary.fill(0)?;
        Ok(canary)
    }

    /// Writes the pattern from there to the end.
    fn fill(&self, from: u64) -> Result<(), Failure> {
        let length = (SHARED_MIB + BEYOND_MIB) * MIB - from;
        let words = (0..length / 8).map(|n| pattern::word(from + n * 8, self.seed).to_le_bytes());
        let bytes: Vec<u8> = words.flatten().collect();
        File::options()
            .write(true)
            .open(self.image.path())
            .and_then(|file| file.write_all_at(&bytes, from))
            .map_err(|source| Failure::Io { action: "fill", path: self.image.path().into(), source })
    }

    fn expect_untouched(&self, from: u64) -> Result<(), Failure> {
        let length = (SHARED_MIB + BEYOND_MIB) * MIB - from;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        File::open(self.image.path())
            .and_then(|file| file.read_exact_at(&mut bytes, from))
            .map_err(|source| Failure::Io { action: "read", path: self.image.path().into(), source })?;
        for (found, offset) in bytes.chunks_exact(8).zip((from..).step_by(8)) {
            expect!(
                *found == pattern::word(offset, self.seed).to_le_bytes(),
                "{} was written to at {offset:#x}",
                self.image.path().display()
            );
        }
        Ok(())
    }
}

/// What the machine's kernel must not have said.
const KERNEL_TROUBLE: &str = "BUG:|WARNING:|Oops|general protection|Unable to handle|soft lockup|rcu_.*stall|Machine check|irq .*nobody cared";

/// QEMU's e1000e is an assertion's distance from its end when it is changed between MSI and MSI-X in the middle of its
/// throttling, which random writes to its registers bring about after some millions (7.2 and 10.0).
enum Nic {
    E1000e,
    Rtl8139,
}

fn attack(
    iommu: Iommu,
    scenario: &mut Scenario,
    nic: Nic,
    runs: &[(u64, u64)],
    limit: Duration,
) -> Result<(), Failure> {
    let kernel = scenario.file_for_machine("hostile.elf", guest::HOSTILE)?;
    let drive = scenario.blank_image("nvme.img", 16)?;
    let before = Canary::new(scenario, "before.img", 11)?;
    let shared = Canary::new(scenario, "shared.img", 12)?;
    let behind = Canary::new(scenario, "behind.img", 13)?;
    let content = drive.sha256_of_first(16)?;

    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &drive);
    let nic = match nic {
        Nic::E1000e => plan.e1000e("5.0"),
        Nic::Rtl8139 => plan.network("5.0", "rtl8139"),
    };
    let edu = plan.edu("6.0", None);
    let testdev = plan.pci_testdev("7.0");
    // Not the guest's; the machine's firmware puts their memory beside that of the guest's one.
    plan.ivshmem("8.0", &before.image, SHARED_MIB);
    let ivshmem = plan.ivshmem("9.0", &shared.image, SHARED_MIB);
    plan.ivshmem("a.0", &behind.image, SHARED_MIB);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme, &nic, &edu, &testdev, &ivshmem])?;
    for (seed, accesses) in runs {
        let words = format!("accesses={accesses} seed={seed}");
        let run = GuestRun::bare_metal(&kernel, &words)
            .option("--cpus", "2")
            .slot("0:8:0", &nvme)
            .slot("0:8:1", &nic)
            .slot("0:8:2", &edu)
            .slot("0:9:0", &testdev)
            .slot("3:0:0", &ivshmem)
            .flag(&format!("--stats=json:/run/scenario/hostile-{seed}.json"))
            .limit(limit);
        let report = machine.run(&format!("attack with seed {seed}"), &run)?;
        report.expect_code(0)?;
        report.expect_serial_start("ok hostile accesses ")?;
        let length = report.messages().len();
        expect!(length <= MOST_MESSAGES, "slotpass said {length} bytes");
    }

    // The guest's own shared memory was written to, and nothing else.
    expect!(shared.expect_untouched(0).is_err(), "the attack never reached the guest's own BAR");
    shared.expect_untouched(SHARED_MIB * MIB)?;
    before.expect_untouched(0)?;
    behind.expect_untouched(0)?;
    let said = machine
        .command("ask the machine's kernel", &format!("dmesg | grep -E '{KERNEL_TROUBLE}' || true"))?;
    expect!(said.trim().is_empty(), "the machine's kernel said: {}", said.trim());

    // A function that had all that done to it is as good as new. Not so the NIC, whose EEPROM was the guest's to write.
    machine.give_to_drivers(&[(&nvme, "nvme")])?;
    let seen = machine.sha256_through_nvme_driver(&nvme, 16)?;
    expect!(seen == content, "the drive reads otherwise than before");
    machine.expect_nothing_left()?;
    machine.power_off()
}
