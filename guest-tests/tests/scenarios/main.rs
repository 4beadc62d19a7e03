//! End-to-end scenarios: the table of all of them, and how one is run.
//!
//! Each scenario is a function that takes an IOMMU kind and an empty [`Scenario`], and reads from top to bottom:
//! devices in, guest, what must hold.

mod bad_input;
mod bare_metal;
mod linux;
mod peer;
mod slots;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use guest_tests::{Failure, Iommu, Missing, Provisioned, Scenario};
use libtest_mimic::{Arguments, Failed, Trial};

use Iommu::{Amd, Intel39, Intel48};
use Set::{Default, Peer, Quick};

/// Sets of scenarios: each holds those before it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    /// What a change is checked with first.
    Quick,
    /// What must pass before a change goes in.
    Default,
    /// Comparison runs with QEMU in the place of slotpass.
    Peer,
}

struct Entry {
    name: &'static str,
    iommus: &'static [Iommu],
    set: Set,
    run: fn(Iommu, &mut Scenario) -> Result<(), Failure>,
}

const fn entry(
    set: Set,
    name: &'static str,
    iommus: &'static [Iommu],
    run: fn(Iommu, &mut Scenario) -> Result<(), Failure>,
) -> Entry {
    Entry { name, iommus, set, run }
}

const SCENARIOS: &[Entry] = &[
    entry(Quick, "nvme_and_nic", &[Intel48, Intel39, Amd], linux::nvme_and_nic),
    // Not on amd: QEMU 7.2's AMD-Vi does not translate for devices behind a root port; its own vfio-pci fails as well.
    entry(Quick, "small_memory_and_root_port", &[Intel48, Intel39], linux::small_memory_and_root_port),
    entry(Default, "two_vcpus", &[Intel48, Amd], linux::two_vcpus),
    entry(Default, "five_gib", &[Intel48, Amd], linux::five_gib),
    entry(Default, "guest_reset", &[Intel48], linux::guest_reset),
    entry(Default, "killed_in_mid_io", &[Intel48, Amd], linux::killed_in_mid_io),
    entry(Default, "further_functions", &[Intel48, Intel39, Amd], bare_metal::further_functions),
    entry(Default, "moved_bar", &[Intel48, Intel39, Amd], bare_metal::moved_bar),
    entry(Default, "mapped_bars_take_no_exit", &[Intel48], bare_metal::mapped_bars_take_no_exit),
    entry(Default, "exit_codes", &[Intel48], bare_metal::exit_codes),
    entry(Default, "bus_three", &[Intel48, Amd], slots::bus_three),
    entry(Default, "config_file", &[Intel48], slots::config_file),
    entry(Default, "function_without_reset", &[Intel48], slots::function_without_reset),
    entry(Default, "bad_devices", &[Intel48], bad_input::devices),
    entry(Default, "bad_limits", &[Intel48], bad_input::limits),
    entry(Quick, "bad_files_and_slots", &[Intel48], bad_input::files_and_slots),
    entry(Peer, "peer_nvme_and_nic", &[Intel48, Intel39, Amd], peer::nvme_and_nic),
    entry(Peer, "peer_two_vcpus", &[Intel48, Amd], peer::two_vcpus),
    entry(Peer, "peer_small_memory_and_root_port", &[Intel48], peer::small_memory_and_root_port),
    entry(Peer, "peer_five_gib", &[Intel48], peer::five_gib),
    entry(Peer, "peer_further_functions", &[Intel48], peer::further_functions),
    entry(Peer, "peer_guest_reset", &[Intel48], peer::guest_reset),
    entry(Peer, "peer_killed_in_mid_io", &[Intel48], peer::killed_in_mid_io),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let provisioned = Provisioned::from_environment();
    if let Err(missing) = &provisioned {
        explain(missing);
    }
    let wanted = match env::var("SLOTPASS_TEST_SET").as_deref() {
        Ok("quick") => Quick,
        Ok("all") => Peer,
        _ => Default,
    };
    let trials = SCENARIOS
        .iter()
        .flat_map(|entry| entry.iommus.iter().map(move |&iommu| (entry, iommu)))
        .filter(|(entry, _)| entry.set <= wanted || arguments.filter.is_some())
        .map(|(entry, iommu)| {
            let provisioned = provisioned.as_ref().ok().cloned();
            let ignored = provisioned.is_none();
            Trial::test(format!("{}::{iommu}", entry.name), move || match provisioned {
                Some(provisioned) => run(entry, iommu, &provisioned),
                None => Err(Failed::from("the test machine is not provisioned; use guest-tests/run")),
            })
            .with_ignored_flag(ignored)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn explain(missing: &Missing) {
    eprintln!();
    eprintln!("SKIPPED: all scenarios of the test machine: {missing}.");
    eprintln!("         guest-tests/run provisions the machine and runs them.");
    eprintln!();
}

fn run(entry: &Entry, iommu: Iommu, provisioned: &Provisioned) -> Result<(), Failed> {
    // Beside cargo's own scratch directory, so below target/.
    let mut directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    directory.pop();
    directory.push("guest-tests");
    directory.push(format!("{}-{iommu}", entry.name));
    let mut scenario = Scenario::begin(&directory, provisioned)?;
    let result = (entry.run)(iommu, &mut scenario);
    match result {
        Ok(()) => {
            scenario.discard_images();
            Ok(())
        }
        Err(failure) => Err(Failed::from(format!(
            "step \"{}\": {failure}\nlogs: {}\n{}",
            scenario.current_step(),
            directory.display(),
            scenario.tail_of_logs(15),
        ))),
    }
}
