//! End-to-end scenarios: the table of all of them, and how one is run.
//!
//! Each scenario is a function that takes an IOMMU kind and an empty [`Scenario`], and reads from top to bottom:
//! devices in, guest, what must hold.

mod bad_input;
mod bare_metal;
mod bench;
mod debian_boot;
mod debian_user;
mod doctor;
mod fresh_debian;
mod host_side;
mod hostile;
mod hotplug;
mod latency;
mod linux;
mod named_vms;
mod peer;
mod ports;
mod ppt;
mod reserve;
mod show;
mod slots;
mod vectors;
mod walk_through;
mod zoo;

use std::collections::BTreeSet;
use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use guest_tests::{Failure, Iommu, Missing, Provisioned, Scenario};
use libtest_mimic::{Arguments, Failed, Trial};

use Iommu::{Amd, Intel39, Intel48};
use Needs::{Debian, Kernel6_1, KernelIommufd, NewerQemu, Usual};
use Set::{Default, Long, Peer, Quick};

/// Sets of scenarios: each holds those before it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    /// What a change is checked with first.
    Quick,
    /// What must pass before a change goes in.
    Default,
    /// Comparison runs with QEMU in the place of slotpass.
    Peer,
    /// What takes longer than all others together.
    Long,
}

/// What `guest-tests/run` has to provision for a scenario; printed as the options of `guest-tests/provision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    Usual,
    Kernel6_1,
    KernelIommufd,
    NewerQemu,
    /// And the package.
    Debian,
}

impl Needs {
    fn options_of_provision(self) -> &'static str {
        match self {
            Usual => "",
            Kernel6_1 => "--kernel 6.1",
            KernelIommufd => "--kernel iommufd",
            NewerQemu => "--qemu",
            Debian => "--debian",
        }
    }
}

struct Entry {
    name: &'static str,
    iommus: &'static [Iommu],
    set: Set,
    needs: Needs,
    run: fn(Iommu, &mut Scenario) -> Result<(), Failure>,
}

const fn entry(
    set: Set,
    name: &'static str,
    iommus: &'static [Iommu],
    run: fn(Iommu, &mut Scenario) -> Result<(), Failure>,
) -> Entry {
    Entry { name, iommus, set, needs: Usual, run }
}

const fn needs(needs: Needs, entry: Entry) -> Entry {
    Entry { needs, ..entry }
}

const SCENARIOS: &[Entry] = &[
    entry(Quick, "nvme_and_nic", &[Intel48, Intel39, Amd], linux::nvme_and_nic),
    // Not on amd: QEMU 7.2's AMD-Vi does not translate for devices behind a root port; its own vfio-pci fails as well.
    entry(Quick, "small_memory_and_root_port", &[Intel48], linux::small_memory_and_root_port),
    entry(Long, "small_memory_and_root_port", &[Intel39], linux::small_memory_and_root_port),
    entry(Default, "two_vcpus", &[Intel48], linux::two_vcpus),
    entry(Long, "two_vcpus", &[Amd], linux::two_vcpus),
    entry(Default, "five_gib", &[Intel48], linux::five_gib),
    entry(Long, "five_gib", &[Amd], linux::five_gib),
    entry(Default, "guest_reset", &[Intel48], linux::guest_reset),
    entry(Default, "killed_in_mid_io", &[Intel48], linux::killed_in_mid_io),
    entry(Long, "killed_in_mid_io", &[Amd], linux::killed_in_mid_io),
    entry(Default, "further_functions", &[Intel48], bare_metal::further_functions),
    entry(Long, "further_functions", &[Intel39, Amd], bare_metal::further_functions),
    entry(Default, "moved_bar", &[Intel39, Amd], bare_metal::moved_bar),
    entry(Long, "moved_bar", &[Intel48], bare_metal::moved_bar),
    entry(Default, "mapped_bars_take_no_exit", &[Intel48], bare_metal::mapped_bars_take_no_exit),
    entry(Default, "intx", &[Intel48, Amd], bare_metal::intx),
    entry(Default, "resets_of_its_own", &[Intel48], bare_metal::resets_of_its_own),
    entry(Long, "resets_of_its_own", &[Amd], bare_metal::resets_of_its_own),
    entry(Default, "hostile_guest", &[Intel48], hostile::hostile_guest),
    entry(Long, "hostile_guest", &[Amd], hostile::hostile_guest),
    entry(Long, "hostile_guest_at_length", &[Intel48, Amd], hostile::hostile_guest_at_length),
    // Not on amd: Linux has 512 interrupt remapping entries for a function there (MAX_IRQS_PER_TABLE).
    entry(Default, "vectors_2048", &[Intel48], vectors::enough_for_all),
    entry(Long, "vectors_2048_on_one_cpu", &[Intel48], vectors::more_than_the_host_has),
    entry(Default, "latency", &[Intel48], latency::accesses),
    entry(Long, "latency_of_interrupts", &[Intel48], latency::interrupts),
    entry(Long, "latency_of_starts", &[Intel48], latency::starts),
    entry(Long, "latency_of_2048_vectors", &[Intel48], latency::all_2048),
    entry(Default, "exit_codes", &[Intel48], bare_metal::exit_codes),
    entry(Long, "bench", &[Intel48], bench::drive_and_edu),
    entry(Long, "bench", &[Amd], bench::drive_and_edu),
    entry(Default, "bus_three", &[Amd], slots::bus_three),
    entry(Long, "bus_three", &[Intel48], slots::bus_three),
    entry(Default, "guest_root_port", &[Intel48], ports::guest_root_port),
    entry(Long, "guest_root_port", &[Amd], ports::guest_root_port),
    // Not on amd: see small_memory_and_root_port.
    entry(Default, "root_port_to_root_port", &[Intel48], ports::root_port_to_root_port),
    entry(Default, "hotplug_under_io", &[Intel48], hotplug::under_io),
    entry(Long, "hotplug_under_io", &[Amd], hotplug::under_io),
    entry(Long, "hotplug_wanted_back", &[Intel48, Amd], hotplug::wanted_back),
    entry(Long, "hotplug_two_functions", &[Intel48, Amd], hotplug::two_functions),
    needs(
        KernelIommufd,
        entry(Long, "hotplug_two_functions_by_iommufd", &[Intel48], hotplug::two_functions_by_iommufd),
    ),
    // Not on amd: see small_memory_and_root_port.
    entry(Default, "device_errors", &[Intel48], hotplug::errors),
    entry(Default, "named_vms", &[Intel48], named_vms::whole_life),
    entry(Long, "named_vms", &[Amd], named_vms::whole_life),
    // Not on amd: see small_memory_and_root_port.
    entry(Default, "dirty_functions", &[Intel48], named_vms::dirty),
    entry(Default, "config_file", &[Intel48], slots::config_file),
    entry(Default, "show", &[Intel48], show::bound_and_unbound),
    entry(Long, "show", &[Amd], show::bound_and_unbound),
    entry(Default, "doctor_mends", &[Intel48], doctor::mends::mends),
    entry(Default, "doctor_agrees", &[Intel48], doctor::agrees::agrees),
    entry(Long, "doctor_agrees", &[Amd], doctor::agrees::agrees),
    needs(
        KernelIommufd,
        entry(Long, "doctor_agrees_by_iommufd", &[Intel48], doctor::agrees::agrees_by_iommufd),
    ),
    // Not on amd: see small_memory_and_root_port.
    entry(Default, "doctor_one_group", &[Intel48], doctor::agrees::one_group),
    needs(
        KernelIommufd,
        entry(Long, "doctor_one_group_by_iommufd", &[Intel48], doctor::agrees::one_group_by_iommufd),
    ),
    entry(Default, "doctor_rights_and_room", &[Intel48], doctor::rights_and_room::rights_and_room),
    entry(Default, "doctor_without_iommu", &[Intel48], doctor::host::without_iommu),
    entry(Default, "doctor_interrupt_remapping", &[Intel48], doctor::host::interrupt_remapping),
    needs(
        KernelIommufd,
        entry(
            Long,
            "doctor_interrupt_remapping_by_iommufd",
            &[Intel48],
            doctor::host::interrupt_remapping_by_iommufd,
        ),
    ),
    entry(Default, "doctor_io_addresses", &[Intel39, Intel48], doctor::host::io_addresses),
    entry(Long, "doctor_io_addresses", &[Amd], doctor::host::io_addresses),
    entry(Default, "reserve_both_ways", &[Intel48], reserve::both_ways::drive_and_nic),
    entry(Long, "reserve_both_ways", &[Amd], reserve::both_ways::drive_and_nic),
    entry(Default, "reserve_undone", &[Intel48], reserve::undone::whatever_fails),
    // Not on amd: see small_memory_and_root_port.
    entry(Default, "reserve_group", &[Intel48], reserve::group::two_functions),
    entry(Default, "reserve_refusals", &[Intel48], reserve::refusals::what_the_host_needs),
    entry(Default, "reserve_apply", &[Intel48], reserve::apply::at_boot),
    entry(Long, "reserve_killed", &[Intel48], reserve::killed::at_any_time),
    entry(Quick, "walk_through", &[Intel48], walk_through::from_files_to_log),
    entry(Long, "walk_through", &[Amd], walk_through::from_files_to_log),
    entry(Default, "function_without_reset", &[Intel48], slots::function_without_reset),
    // Not on amd: see small_memory_and_root_port.
    entry(Default, "host_resets", &[Intel48], host_side::resets),
    // The kernel that these need is built, which takes long where it is not cached.
    needs(KernelIommufd, entry(Long, "host_resets_by_iommufd", &[Intel48], host_side::resets_by_iommufd)),
    needs(KernelIommufd, entry(Long, "host_iommufd", &[Intel48, Amd], host_side::iommufd)),
    entry(Default, "bad_devices", &[Intel48], bad_input::devices),
    entry(Default, "bad_limits", &[Intel48], bad_input::limits),
    entry(Quick, "bad_files_and_slots", &[Intel48], bad_input::files_and_slots),
    entry(Default, "zoo_message_interrupts", &[Intel48], zoo::message_interrupts::all_kinds),
    entry(Long, "zoo_message_interrupts", &[Amd], zoo::message_interrupts::all_kinds),
    entry(Default, "zoo_interrupt_lines", &[Intel48], zoo::interrupt_lines::all_kinds),
    entry(Long, "zoo_interrupt_lines", &[Amd], zoo::interrupt_lines::all_kinds),
    entry(Default, "zoo_shared_lines", &[Intel48], zoo::interrupt_lines::shared),
    entry(Long, "zoo_shared_lines", &[Amd], zoo::interrupt_lines::shared),
    entry(Long, "zoo_doorbell", &[Intel48, Amd], zoo::doorbell::both_ways),
    // Not on amd: see small_memory_and_root_port.
    entry(Default, "zoo_behind_a_switch", &[Intel48], zoo::topology::behind_a_switch),
    // Not on amd: see small_memory_and_root_port.
    entry(Default, "zoo_one_group", &[Intel48], zoo::topology::one_group),
    entry(Long, "zoo_three_reboots", &[Intel48, Amd], zoo::reboots::three_times),
    // Not on amd: a QEMU that is new enough emulates an AMD-Vi whose interrupt remapping Linux cannot use.
    needs(NewerQemu, entry(Default, "zoo_igb", &[Intel48], zoo::virtual_functions::igb)),
    needs(Kernel6_1, entry(Default, "zoo_kernel_6_1", &[Intel48], zoo::older_kernel::vectors_one_by_one)),
    needs(
        KernelIommufd,
        entry(Long, "zoo_kernel_iommufd", &[Intel48, Amd], zoo::iommufd_kernel::nvme_and_nic),
    ),
    entry(Default, "ppt_nvme_and_nic", &[Intel48], ppt::nvme_and_nic),
    entry(Long, "ppt_nvme_and_nic", &[Amd], ppt::nvme_and_nic),
    entry(Default, "ppt_further_functions", &[Intel48], ppt::further_functions),
    entry(Long, "ppt_further_functions", &[Amd], ppt::further_functions),
    // Installing Debian into an image takes minutes where it is not cached, and so does building the package.
    needs(Debian, entry(Long, "fresh_debian", &[Intel48], fresh_debian::from_readme)),
    needs(Debian, entry(Long, "debian_boot", &[Intel48], debian_boot::kernel_words_and_initramfs)),
    needs(Debian, entry(Long, "debian_user", &[Intel48], debian_user::from_login_to_guest)),
    entry(Peer, "peer_nvme_and_nic", &[Intel48, Intel39, Amd], peer::nvme_and_nic),
    entry(Peer, "peer_events", &[Intel48], peer::events),
    needs(KernelIommufd, entry(Peer, "peer_events_with_iommufd", &[Intel48], peer::events_with_iommufd)),
    entry(Peer, "peer_two_vcpus", &[Intel48, Amd], peer::two_vcpus),
    entry(Peer, "peer_small_memory_and_root_port", &[Intel48], peer::small_memory_and_root_port),
    entry(Peer, "peer_five_gib", &[Intel48], peer::five_gib),
    entry(Peer, "peer_further_functions", &[Intel48], peer::further_functions),
    entry(Peer, "peer_guest_reset", &[Intel48], peer::guest_reset),
    entry(Peer, "peer_killed_in_mid_io", &[Intel48], peer::killed_in_mid_io),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let wanted = match env::var("SLOTPASS_TEST_SET").as_deref() {
        Ok("quick") => Quick,
        Ok("all") => Long,
        _ => Default,
    };
    let all = SCENARIOS.iter().flat_map(|entry| entry.iommus.iter().map(move |&iommu| (entry, iommu)));
    let chosen = all.filter(|(entry, _)| entry.set <= wanted || arguments.filter.is_some());
    if env::var_os("SLOTPASS_TEST_NEEDS").is_some() {
        return print_needs(&arguments, chosen);
    }
    let provisioned = Provisioned::from_environment();
    if let Err(missing) = &provisioned {
        explain(missing);
    }
    let trials = chosen
        .map(|(entry, iommu)| {
            let provisioned = provisioned.as_ref().ok().cloned();
            let ignored = provisioned.is_none();
            Trial::test(title(entry, iommu), move || match provisioned {
                Some(provisioned) => run(entry, iommu, &provisioned),
                None => Err(Failed::from("the test machine is not provisioned; use guest-tests/run")),
            })
            .with_ignored_flag(ignored)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn title(entry: &Entry, iommu: Iommu) -> String {
    format!("{}::{iommu}", entry.name)
}

/// For `guest-tests/run`: the options with which it has to call `guest-tests/provision`, a line for each call.
fn print_needs(arguments: &Arguments, chosen: impl Iterator<Item = (&'static Entry, Iommu)>) -> ExitCode {
    let wanted = arguments.filter.as_deref().unwrap_or_default();
    let needs: BTreeSet<Needs> = chosen
        .filter(|(entry, iommu)| title(entry, *iommu).contains(wanted) && entry.needs != Usual)
        .map(|(entry, _)| entry.needs)
        .collect();
    for need in needs {
        println!("{}", need.options_of_provision());
    }
    ExitCode::SUCCESS
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
        Err(failure @ Failure::NotProvisioned { .. }) => {
            // Not through the test harness, which knows only tests that are ignored from the start.
            let _ = writeln!(io::stderr(), "SKIPPED {}: {failure}", title(entry, iommu));
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
