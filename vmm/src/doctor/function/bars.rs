//! Where a function's BARs are in the host, and which parts of them a guest reaches without an exit.

use passthru::function::pieces::{Backing, Reason};
use passthru::pci::bar;

use super::One;
use crate::doctor::finding::{Check, Finding, Remedy};
use crate::doctor::kernel_parameter;
use crate::wording;

impl One<'_> {
    pub(super) fn bars(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let address = self.function.sysfs.address;
        for resource in self.function.resources.iter().filter(|resource| resource.is_unassigned) {
            let size = match resource.size {
                0 => "of a size that it no longer tells".to_owned(),
                size => format!("of {}", wording::size(size)),
            };
            let found = format!("BAR {} {size} has no address in the host", resource.bar);
            let found = match resource.size {
                // The kernel turns on a function without the BARs that it gave up.
                0 => self.note(Check::Bars, found).because("the guest does not see it: its driver fails"),
                _ => self
                    .problem(Check::Bars, found)
                    .because("the kernel turns on no function whose BARs have none"),
            };
            findings.push(
                found
                    .mended(Remedy::commands(
                        "let the kernel place it anew, which takes it from its driver",
                        [
                            self.process.write("1", &format!("/sys/bus/pci/devices/{address}/remove")),
                            self.process.write("1", "/sys/bus/pci/rescan"),
                        ],
                    ))
                    .mended(kernel_parameter::add(self.host, self.process, "pci=realloc"))
                    .mended(Remedy::by_hand(
                        "turn on addresses above 4 GiB in the firmware (Above 4G Decoding, Resizable BAR)",
                    )),
            );
        }
        let Ok(guests) = &self.function.shown else { return findings };
        findings.extend(guests.problems.iter().map(|problem| self.note(Check::Bars, problem.clone())));
        if !self.function.is_all_seen {
            findings.push(
                self.note(Check::Bars, "not known: others than root see 64 bytes of its configuration space")
                    .because("which parts are mapped, and how many vectors it has, is in the rest"),
            );
            return findings;
        }
        if guests.trapped.is_empty() {
            if guests.mapped > 0 {
                findings.push(self.ok(Check::Bars, "all of them are mapped for the guest"));
            }
            return findings;
        }
        for (bar, offset, size, backing) in &guests.trapped {
            let place = if *bar == bar::ROM { "ROM".to_owned() } else { format!("BAR {bar}") };
            let end = offset.saturating_add(*size);
            let found = format!("{place}, {offset:#x}..{end:#x}: {}", wording::how(*backing, *size));
            findings.push(match backing {
                Backing::Trapped(Reason::SubPage) => self
                    .note(Check::Bars, found)
                    .because("every access of the guest is a system call or more; with a page of its own it is mapped")
                    .mended(self.align())
                    .mended(kernel_parameter::add(self.host, self.process, &format!("pci=resource_alignment={}", self.page()))),
                _ => self.ok(Check::Bars, found),
            });
        }
        findings
    }

    /// A page for each of its BARs, in the words of `pci=resource_alignment`.
    fn page(&self) -> String {
        format!("12@{}", self.function.sysfs.address)
    }

    /// The kernel looks at that when it finds the function. What is written takes the place of the whole list.
    fn align(&self) -> Remedy {
        let address = self.function.sysfs.address;
        let list = "/sys/bus/pci/resource_alignment";
        let write = self.process.as_root(&format!("tee {list}"));
        Remedy::commands(
            "give each of its BARs a page until the host boots again, which takes it from its driver",
            [
                format!("echo \"{};$(cat {list})\" | {write}", self.page()),
                self.process.write("1", &format!("/sys/bus/pci/devices/{address}/remove")),
                self.process.write("1", "/sys/bus/pci/rescan"),
            ],
        )
    }
}
