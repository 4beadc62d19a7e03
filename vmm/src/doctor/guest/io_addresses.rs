//! Addresses of the guest's memory in the IOMMU.

use std::ops::Range;

use crate::doctor::facts::Facts;
use crate::doctor::facts::host::Kvms;
use crate::doctor::finding::{Check, Finding, Subject};
use crate::layout;
use crate::machine::address_ranges;
use crate::memory::{self, HUGE_PAGE, RamSize};

use super::Guest;
use super::memory::memory_argument;

/// What of the guest's memory, and above it, the IOMMU cannot translate.
pub fn translated(facts: &Facts, guest: Guest) -> Vec<Finding> {
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
pub(super) fn most_memory(excluded: &[Range<u64>]) -> Option<u64> {
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
