//! The guest's memory: whether there is enough, and whether this process may lock it.

use crate::doctor::facts::Facts;
use crate::doctor::facts::process::{Limit, UNLIMITED};
use crate::doctor::finding::{Check, Finding, Level, Remedy, Subject};
use crate::memory::{self, HUGE_PAGE, RamSize};
use crate::wording;

use super::Guest;

/// This part of what is free is left to others than the guest.
const MARGIN: u64 = 16;

pub(super) fn mib(bytes: u64) -> String {
    wording::size(bytes >> 20 << 20)
}

pub(super) fn memory_argument(bytes: u64) -> Remedy {
    let bytes = bytes.max(RamSize::MIN) / HUGE_PAGE * HUGE_PAGE;
    Remedy::arguments(
        format!("give the guest {} of memory or less", mib(bytes)),
        format!("--memory {}M", bytes >> 20),
    )
}

/// Whether the host, and the control groups of this process, have as much as the guest needs.
pub fn available(facts: &Facts, guest: Guest) -> Finding {
    let need = guest.memory.bytes();
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
    let host = facts.host.memory.available;
    let group = facts.process.group_room.unwrap_or(u64::MAX);
    let (room, whose) = match group < host {
        true => (group, "this control group has free"),
        false => (host, "the host has free"),
    };
    // Some for slotpass itself, its page tables and the IOMMU's.
    let most = room - room / MARGIN;
    if need <= most {
        return Check::Memory.ok(Subject::Guest, format!("{} of {} that {whose}", mib(need), mib(room)));
    }
    let found =
        Check::Memory.note(Subject::Guest, format!("the guest has {}, and {whose} {}", mib(need), mib(room)));
    if !is_pinned {
        return found.because("without functions of the host, memory is taken as the guest touches it");
    }
    // A control group swaps out nothing but its own, and kills what does not fit.
    if need <= room || need <= host.saturating_add(facts.host.memory.swap).min(group) {
        return found.because(match need <= room {
            true => "all of it must be there at once for DMA, which leaves little for slotpass itself and the tables of the IOMMU",
            false => "others are swapped out to make room for it, since all of it must be there at once for DMA",
        });
    }
    Finding { level: Level::Problem, ..found }
        .because("all of a guest's memory must be there at once for DMA")
        .mended(memory_argument(most))
}

/// Memory that the host refuses to promise, before any of it is used.
pub fn promised(facts: &Facts, guest: Guest) -> Option<Finding> {
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
            .mended(memory_argument(room - room / MARGIN))
    })
}

/// Whether this process may lock all of the guest's memory.
pub fn locked(facts: &Facts, guest: Guest) -> Option<Finding> {
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
    if limit == UNLIMITED { "any amount".to_owned() } else { wording::size(limit) }
}
