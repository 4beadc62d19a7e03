//! The guest as a whole, and the process that runs it: memory, limits, addresses, vectors.

mod io_addresses;
mod memory;

use super::facts::Facts;
use super::facts::function::Found;
use super::facts::host::Kvms;
use super::facts::iommu::Kind;
use super::facts::process::{Limit, UNLIMITED};
use super::finding::{Check, Finding, Remedy, Subject};
use crate::config::check_cpus;
use crate::machine::MOST_CPUS;
use crate::memory::RamSize;

/// What of the guest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// Its memory.
    pub memory: RamSize,
    /// Its processors.
    pub cpus: u32,
    /// Reserved huge pages back its memory.
    pub huge_pages: bool,
}

/// Files that a guest without functions has open, with some room, and those of each function: its own, its group's, and
/// eventfds for INTx, errors and requests.
const FILES: u64 = 48;
const FILES_OF_FUNCTION: u64 = 8;
/// Interrupt vectors of a processor that Linux gives to devices, about (256 less exceptions and its own).
const VECTORS_OF_PROCESSOR: u64 = 200;
/// Vectors of a function at most (MSI-X, PCIe 6.0 §7.7.2.2).
const MOST_VECTORS: u64 = 2048;
/// Pins of the interrupt controllers, each of which has a route.
const PINS: u64 = 24;
/// `MAX_IRQS_PER_TABLE` of Linux' AMD-Vi driver, for each function.
const AMD_VECTORS: u64 = 512;

/// All of it.
pub fn check(facts: &Facts, guest: Guest) -> Vec<Finding> {
    let mut findings: Vec<Finding> = processors(facts, guest).into_iter().collect();
    findings.push(memory::available(facts, guest));
    findings.extend(memory::promised(facts, guest));
    if facts.functions().next().is_some() {
        findings.extend(memory::locked(facts, guest));
        findings.extend(io_addresses::translated(facts, guest));
        findings.extend(dma_mappings(facts, guest));
    }
    findings.extend(open_files(facts, guest));
    findings.extend(vectors(facts));
    findings
}

fn processors(facts: &Facts, guest: Guest) -> Option<Finding> {
    let check = Check::Processors;
    // As many as `run` gives a guest, and not more than KVM runs.
    let most = match facts.host.kvm {
        Kvms::Opens { cpus, .. } => cpus.min(MOST_CPUS as usize),
        Kvms::Fails(_) => MOST_CPUS as usize,
    };
    let remedy = |cpus| Remedy::arguments("give the guest as many as it can have", format!("--cpus {cpus}"));
    if let Err(error) = check_cpus(guest.cpus) {
        let cpus = if guest.cpus == 0 { 1 } else { most };
        return Some(check.problem(Subject::Guest, format!("processors: {error}")).mended(remedy(cpus)));
    }
    (guest.cpus as usize > most).then(|| {
        check
            .problem(Subject::Guest, format!("{} processors, and this KVM runs {most} at most", guest.cpus))
            .mended(remedy(most))
    })
}

fn dma_mappings(facts: &Facts, guest: Guest) -> Option<Finding> {
    let limit = facts.host.dma_entries.filter(|_| !facts.by_device_file())?;
    let bars: u64 = facts.functions().filter_map(|function| Some(function.shown.as_ref().ok()?.mapped)).sum();
    let ram = crate::memory::ranges(guest.memory).len() as u64;
    let check = Check::DmaMappings;
    let found = format!("{} of {limit} that VFIO allows", ram + bars);
    Some(if ram + bars <= limit {
        check.ok(Subject::Guest, found)
    } else {
        let remedy = Remedy::commands(
            "allow more",
            [facts.process.write("65535", "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit")],
        );
        let found = match ram <= limit {
            true => check
                .note(Subject::Guest, found)
                .because("functions cannot reach all of each other's BARs by DMA (peer-to-peer)"),
            false => check.problem(Subject::Guest, found),
        };
        found.mended(remedy)
    })
}

/// Functions of which others than root do not see how many vectors they have.
fn unseen(facts: &Facts) -> u64 {
    facts.functions().filter(|function| !function.is_all_seen).count() as u64
}

fn open_files(facts: &Facts, guest: Guest) -> Option<Finding> {
    let Limit { hard, .. } = facts.process.open_files?;
    let functions = facts.functions().count() as u64;
    let least = FILES + u64::from(guest.cpus) + FILES_OF_FUNCTION * functions;
    let all = least + all_vectors(facts) + unseen(facts) * MOST_VECTORS;
    let check = Check::OpenFiles;
    if all <= hard {
        return Some(check.ok(Subject::Guest, format!("{all} at most, of {}", count_text(hard))));
    }
    let user = &facts.process.user;
    let found = match unseen(facts) {
        0 => format!("{all} when all vectors are in use, and {user} may have {hard}"),
        _ => format!(
            "{least} and one for each vector in use, {all} at most, and {user} may have {hard}; how many vectors there are is \
             for root only to see"
        ),
    };
    let found = match least <= hard {
        true => check
            .note(Subject::Guest, found)
            .because("each vector in use is one; those beyond the limit fail"),
        false => check.problem(Subject::Guest, found),
    };
    let command = match facts.process.raises_limits {
        true => format!("ulimit -n {all}"),
        false => format!("sudo prlimit --pid $$ --nofile={all}:{all}"),
    };
    Some(found.mended(Remedy::commands("raise the limit of the shell that starts it", [command])))
}

fn count_text(limit: u64) -> String {
    if limit == UNLIMITED { "any number".to_owned() } else { limit.to_string() }
}

fn vectors_of(found: &Found) -> u64 {
    match found {
        Found::Host(function) => function.shown.as_ref().map_or(0, |guests| guests.vectors),
        Found::Simulated(vectors) => *vectors,
        Found::Nothing(_) => 0,
    }
}

fn all_vectors(facts: &Facts) -> u64 {
    facts.asked.iter().map(|asked| vectors_of(&asked.found)).sum()
}

fn vectors(facts: &Facts) -> Vec<Finding> {
    let check = Check::Vectors;
    let all = all_vectors(facts);
    let mut findings = Vec::new();
    let mut note = |found: String, reason: &str| {
        findings.push(check.note(Subject::Guest, found).because(reason).mended(Remedy::by_hand(
            "let the guest's drivers use fewer queues, or give its functions to several guests",
        )));
    };
    if let Kvms::Opens { routes, .. } = facts.host.kvm
        && all + PINS > routes
    {
        note(
            format!(
                "{all} when all are in use, and KVM routes {} messages of a guest",
                routes.saturating_sub(PINS)
            ),
            "those beyond stay masked",
        );
    }
    let room = facts.host.processors * VECTORS_OF_PROCESSOR;
    let of_host: u64 = facts.functions().map(|f| f.shown.as_ref().map_or(0, |guests| guests.vectors)).sum();
    if of_host > room {
        note(
            format!("{of_host} when all are in use, and this host has about {room} for all of its devices"),
            "those beyond are refused by the host's kernel",
        );
    }
    let is_amd = facts.host.units.iter().any(|unit| unit.kind == Kind::Amd);
    for function in facts.functions().filter(|_| is_amd) {
        let own = function.shown.as_ref().map_or(0, |guests| guests.vectors);
        if own > AMD_VECTORS {
            note(
                format!(
                    "{} has {own}, and Linux gives a function {AMD_VECTORS} behind AMD-Vi",
                    function.name()
                ),
                "those beyond are refused by the host's kernel",
            );
        }
    }
    match unseen(facts) {
        0 if findings.is_empty() => findings.push(check.ok(Subject::Guest, format!("{all} at most"))),
        0 => {}
        _ => findings.push(
            check.note(Subject::Guest, "not known: others than root see 64 bytes of configuration space"),
        ),
    }
    findings
}

#[cfg(test)]
mod tests;
