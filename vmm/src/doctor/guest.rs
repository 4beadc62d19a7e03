//! The guest as a whole, and the process that runs it: memory, limits, addresses, vectors.

use std::ops::Range;

use super::facts::Facts;
use super::facts::function::Found;
use super::facts::host::Kvms;
use super::facts::iommu::Kind;
use super::facts::process::Limit;
use super::finding::{Check, Finding, Remedy, Subject};
use crate::layout;
use crate::machine::address_ranges;
use crate::memory::{self, HUGE_PAGE, RamSize};
use crate::wording;

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
/// Pins of the interrupt controllers, each of which has a route.
const PINS: u64 = 24;
/// `MAX_IRQS_PER_TABLE` of Linux' AMD-Vi driver, for each function.
const AMD_VECTORS: u64 = 512;

/// All of it.
pub fn check(facts: &Facts, guest: Guest) -> Vec<Finding> {
    let mut findings: Vec<Finding> = processors(facts, guest).into_iter().collect();
    findings.push(memory(facts, guest));
    findings.extend(promised(facts, guest));
    if facts.functions().next().is_some() {
        findings.extend(memory_lock(facts, guest));
        findings.extend(io_addresses(facts, guest));
        findings.extend(dma_mappings(facts, guest));
    }
    findings.extend(open_files(facts, guest));
    findings.extend(vectors(facts));
    findings
}

fn mib(bytes: u64) -> String {
    wording::size(bytes >> 20 << 20)
}

fn memory_argument(bytes: u64) -> Remedy {
    Remedy::arguments(
        format!("give the guest {} of memory or less", mib(bytes)),
        format!("--memory {}M", bytes >> 20),
    )
}

fn processors(facts: &Facts, guest: Guest) -> Option<Finding> {
    match facts.host.kvm {
        Kvms::Opens { cpus, .. } if guest.cpus as usize > cpus => Some(
            Check::Processors
                .problem(
                    Subject::Guest,
                    format!("{} processors, and this KVM runs {cpus} at most", guest.cpus),
                )
                .mended(Remedy::arguments("give the guest fewer", format!("--cpus {cpus}"))),
        ),
        _ => None,
    }
}

fn memory(facts: &Facts, guest: Guest) -> Finding {
    let need = guest.memory.bytes();
    let available = facts.host.memory.available;
    if guest.huge_pages {
        let pages = need / HUGE_PAGE;
        let check = Check::Memory;
        return match facts.host.huge_pages {
            Some(pool) if pool.available >= pages => {
                check.ok(Subject::Guest, format!("{pages} of {} free huge pages", pool.available))
            }
            Some(pool) => check
                .problem(
                    Subject::Guest,
                    format!("{pages} huge pages of 2 MiB are needed, and {} are free", pool.available),
                )
                .mended(Remedy::commands(
                    "reserve more",
                    [facts.process.write(
                        &(pool.total + pages - pool.available).to_string(),
                        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
                    )],
                )),
            None => check
                .problem(Subject::Guest, "this kernel has no reserved huge pages of 2 MiB")
                .mended(Remedy::by_hand("run it without --hugepages")),
        };
    }
    let is_pinned = facts.functions().next().is_some();
    let limit = facts.process.memory_limit.unwrap_or(u64::MAX);
    let room = available.min(limit);
    let whose = if limit < available { "this control group may have" } else { "the host has free" };
    if need <= room {
        return Check::Memory.ok(Subject::Guest, format!("{} of {} that {whose}", mib(need), mib(room)));
    }
    let found = format!("the guest has {}, and {whose} {}", mib(need), mib(room));
    if is_pinned && need <= available.saturating_add(facts.host.memory.swap).min(limit) {
        return Check::Memory.note(Subject::Guest, found).because(
            "others are swapped out to make room for it, since all of it must be there at once for DMA",
        );
    }
    match is_pinned {
        true => Check::Memory
            .problem(Subject::Guest, found)
            .because("all of a guest's memory must be there at once for DMA")
            // Some for slotpass itself, its page tables and the IOMMU's.
            .mended(memory_argument((room - room / 16).max(RamSize::MIN) / HUGE_PAGE * HUGE_PAGE)),
        false => Check::Memory
            .note(Subject::Guest, found)
            .because("without functions of the host, memory is taken as the guest touches it"),
    }
}

/// Memory that the host refuses to promise, before any of it is used.
fn promised(facts: &Facts, guest: Guest) -> Option<Finding> {
    if guest.huge_pages {
        return None;
    }
    let host = &facts.host.memory;
    let largest = memory::ranges(guest.memory).iter().map(|ram| ram.end - ram.start).max().unwrap_or(0);
    let (asked, room) = match (host.promise, host.proportion) {
        (Some(room), _) => (guest.memory.bytes(), room),
        (None, Some(room)) => (largest, room),
        (None, None) => return None,
    };
    (asked > room).then(|| {
        Check::Memory
            .problem(
                Subject::Guest,
                format!("{} are asked for at once, and the host promises {}", mib(asked), mib(room)),
            )
            .because("the host keeps from promising more memory than it has (vm.overcommit_memory)")
            .mended(memory_argument((room - room / 16).max(RamSize::MIN) / HUGE_PAGE * HUGE_PAGE))
    })
}

fn memory_lock(facts: &Facts, guest: Guest) -> Option<Finding> {
    let process = &facts.process;
    let need = guest.memory.bytes();
    let check = Check::MemoryLock;
    if process.locks_without_limit {
        return Some(check.ok(Subject::Guest, "no limit, by CAP_IPC_LOCK"));
    }
    let Some(Limit { soft, hard }) = process.memory_lock else {
        return Some(check.unknown(Subject::Guest, "the limit is not to be seen in /proc/self/limits"));
    };
    if need <= soft {
        return Some(check.ok(Subject::Guest, format!("{} of {}", mib(need), limit_text(soft))));
    }
    let kib = need.div_ceil(1024);
    let found = check
        .problem(
            Subject::Guest,
            format!("{} are needed, and {} may lock {}", mib(need), process.user, limit_text(soft)),
        )
        .because("all of a guest's memory is locked for DMA; its BARs do not count");
    // The hard limit stays where it is if it can: who lowers it does not get it back in that shell.
    let raised = match () {
        () if need <= hard => format!("ulimit -S -l {kib}"),
        () if process.raises_limits => format!("ulimit -l {kib}"),
        () => format!("sudo prlimit --pid $$ --memlock={need}:{need}"),
    };
    let whose = process.in_limits();
    let file = format!("/etc/security/limits.d/slotpass-{}.conf", whose.trim_start_matches(':'));
    Some(
        found
            .mended(Remedy::commands("raise the limit of the shell that starts it", [raised]))
            .mended(Remedy::commands(
                "for every session of this user from the next one on",
                [process.write(&format!("{whose} - memlock {kib}"), &file)],
            ))
            .mended(Remedy::by_hand(format!("in a systemd unit: LimitMEMLOCK={need}"))),
    )
}

fn limit_text(limit: u64) -> String {
    if limit == super::facts::process::UNLIMITED { "any amount".to_owned() } else { wording::size(limit) }
}

/// What of the guest's memory, and above it, the IOMMU cannot translate.
fn io_addresses(facts: &Facts, guest: Guest) -> Vec<Finding> {
    let check = Check::IoAddresses;
    let unit_of = |name: &str| facts.host.units.iter().find(|unit| unit.name == name);
    let units = || facts.functions().filter_map(|function| unit_of(function.unit.as_deref()?));
    let bits = units().filter_map(|unit| unit.address_bits()).min();
    let end = bits.filter(|bits| *bits < 64).map_or(u64::MAX, |bits| 1 << bits);
    let mut excluded: Vec<Range<u64>> = facts
        .functions()
        .flat_map(|function| function.reserved.iter().filter(|reserved| reserved.excludes()))
        .map(|reserved| reserved.range.clone())
        .collect();
    excluded.push(end..u64::MAX);
    let overlaps = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
    let hit = memory::ranges(guest.memory).into_iter().find_map(|ram| {
        let hit = excluded.iter().find(|excluded| overlaps(&ram, excluded))?;
        Some((ram, hit.clone()))
    });
    let mut findings = Vec::new();
    match hit {
        None => findings.push(match bits {
            Some(bits) => {
                check.ok(Subject::Guest, format!("the IOMMU translates {bits} bits, which is enough"))
            }
            None => check.ok(Subject::Guest, "nothing that is reserved is in the way"),
        }),
        Some((ram, hit)) => {
            let found = match hit.end {
                u64::MAX => format!(
                    "guest memory reaches up to {:#x}, and the IOMMU translates {} bits",
                    ram.end,
                    bits.unwrap_or(64)
                ),
                _ => format!(
                    "guest memory {:#x}..{:#x} has {:#x}..{:#x} in it, which the host reserves",
                    ram.start, ram.end, hit.start, hit.end
                ),
            };
            let found = check.problem(Subject::Guest, found);
            findings.push(match most_memory(&excluded) {
                Some(most) => found.mended(memory_argument(most)),
                None => found.because("no size of memory fits"),
            });
        }
    }
    let kvm_bits = match facts.host.kvm {
        Kvms::Opens { address_bits, .. } => address_bits,
        Kvms::Fails(_) => return findings,
    };
    let window = address_ranges::available(address_ranges::ram_end(guest.memory), kvm_bits).memory64;
    let bars: u64 = facts
        .functions()
        .flat_map(|function| &function.resources)
        .filter(|resource| resource.is_memory && resource.size > 64 << 20)
        .map(|resource| resource.size)
        .sum();
    let functions = facts.functions().count();
    if findings.iter().all(|finding| finding.remedies.is_empty())
        && functions > 1
        && window.start.saturating_add(bars) > end
    {
        findings.push(
            check.note(Subject::Guest, "the guest's BARs lie above what the IOMMU translates").because(
                "its functions cannot reach each other's BARs by DMA (peer-to-peer); all else works",
            ),
        );
    }
    findings
}

/// The most memory of which nothing is excluded.
fn most_memory(excluded: &[Range<u64>]) -> Option<u64> {
    let first = |from: u64| {
        let inside = excluded.iter().filter(|range| range.end > from).map(|range| range.start.max(from));
        inside.min().unwrap_or(u64::MAX)
    };
    let low = first(0);
    let most = match low {
        _ if low < layout::LOW_RAM_END => low,
        _ => layout::LOW_RAM_END + (first(layout::HIGH_RAM_START) - layout::HIGH_RAM_START),
    };
    let most = most.min(RamSize::MAX) / HUGE_PAGE * HUGE_PAGE;
    (most >= RamSize::MIN).then_some(most)
}

fn dma_mappings(facts: &Facts, guest: Guest) -> Option<Finding> {
    let limit = facts.host.dma_entries.filter(|_| !facts.by_device_file())?;
    let bars: u64 = facts.functions().filter_map(|function| Some(function.shown.as_ref().ok()?.mapped)).sum();
    let ram = memory::ranges(guest.memory).len() as u64;
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

fn open_files(facts: &Facts, guest: Guest) -> Option<Finding> {
    let Limit { hard, .. } = facts.process.open_files?;
    let functions = facts.functions().count() as u64;
    let least = FILES + u64::from(guest.cpus) + FILES_OF_FUNCTION * functions;
    let all = least + all_vectors(facts);
    let check = Check::OpenFiles;
    if all <= hard {
        return Some(check.ok(Subject::Guest, format!("{all} at most, of {}", count_text(hard))));
    }
    let found = format!("{all} when all vectors are in use, and {} may have {hard}", facts.process.user);
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
    if limit == super::facts::process::UNLIMITED { "any number".to_owned() } else { limit.to_string() }
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
    if findings.is_empty() {
        findings.push(check.ok(Subject::Guest, format!("{all} at most")));
    }
    findings
}

#[cfg(test)]
mod tests;
