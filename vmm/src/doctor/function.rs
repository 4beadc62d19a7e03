//! One function: whether it could be opened, and what a guest would get of it.

mod bars;
mod power;
mod reset;

use passthru::host::vfio::sysfs;
use passthru::pci::HostAddress;

use super::facts::Facts;
use super::facts::access::Access;
use super::facts::function::{Asked, Found, Function};
use super::facts::host::Host;
use super::facts::process::Process;
use super::finding::{Check, Finding, Remedy, Subject};
use super::host::by_group;
use super::kernel_parameter;
use crate::host::holders::Hidden;

/// All of it. `require_reset` is run's option of that name.
pub fn check(facts: &Facts, asked: &Asked, require_reset: bool) -> Vec<Finding> {
    let subject = Subject::Function(asked.name.to_string());
    let function = match &asked.found {
        Found::Simulated(_) => {
            return vec![Check::Presence.ok(subject, "simulated: needs nothing of the host")];
        }
        Found::Nothing(error) => return vec![Check::Presence.problem(subject, error.clone())],
        Found::Host(function) => function,
    };
    let of = One { subject, function, host: &facts.host, process: &facts.process, facts };
    let mut findings = vec![of.presence()];
    findings.extend(of.group());
    findings.push(of.driver());
    findings.extend(of.members());
    findings.extend(of.in_use());
    findings.extend(of.access());
    findings.push(of.reset(require_reset));
    findings.extend(of.power());
    findings.extend(of.display());
    findings.extend(of.virtual_functions());
    findings.extend(of.bars());
    findings
}

struct One<'a> {
    subject: Subject,
    function: &'a Function,
    host: &'a Host,
    process: &'a Process,
    facts: &'a Facts,
}

/// What gives functions to VFIO. With `group` those go along that are in the same group and in the way.
fn give(process: &Process, address: HostAddress, group: bool) -> Remedy {
    let group = if group { " --group" } else { "" };
    let command = process.as_root(&format!("slotpass reserve{group} {address}"));
    Remedy::commands(format!("reserve {address} for guests"), [command])
}

impl One<'_> {
    fn ok(&self, check: Check, found: impl Into<String>) -> Finding {
        check.ok(self.subject.clone(), found)
    }

    fn note(&self, check: Check, found: impl Into<String>) -> Finding {
        check.note(self.subject.clone(), found)
    }

    fn problem(&self, check: Check, found: impl Into<String>) -> Finding {
        check.problem(self.subject.clone(), found)
    }

    fn is_bound(&self) -> bool {
        self.function.sysfs.driver.as_deref().is_some_and(sysfs::is_vfio)
    }

    fn presence(&self) -> Finding {
        let function = self.function;
        let address = function.sysfs.address;
        let again = || {
            let path = format!("/sys/bus/pci/devices/{address}/remove");
            Remedy::commands(
                "let the host look for it again, which takes it from its driver",
                [self.process.write("1", &path), self.process.write("1", "/sys/bus/pci/rescan")],
            )
        };
        if function.is_gone {
            return self
                .problem(Check::Presence, "it does not answer: its configuration space reads all-ones")
                .because("it lost power, its link is down, or it hangs")
                .mended(again())
                .mended(Remedy::by_hand("switch the host off and on"));
        }
        if let Some(kind @ 1..) = function.header_type {
            return self
                .problem(Check::Presence, format!("it is a bridge (header type {kind})"))
                .because("VFIO gives functions to guests, not bridges; name what is behind it");
        }
        if function.sysfs.is_integrated_graphics() {
            return self.problem(Check::Presence, sysfs::INTEGRATED_GRAPHICS);
        }
        match &function.shown {
            Err(error) => self.problem(Check::Presence, error.clone()),
            Ok(_) => self.ok(Check::Presence, function.label.clone()),
        }
    }

    fn group(&self) -> Vec<Finding> {
        let Some(group) = self.function.sysfs.group else {
            // Said of the host, where it has no groups at all.
            let found = self.problem(Check::Group, "it has no IOMMU group");
            return vec![match self.host.groups {
                0 => found.because("the host's IOMMU is off"),
                _ => found.because(
                    "the host's IOMMU is on, but this function is not behind it: firmware left it out, or another \
                     device stands between them",
                ),
            }];
        };
        let direct = self.function.reserved.iter().find(|reserved| reserved.kind == "direct");
        match direct {
            None => Vec::new(),
            Some(reserved) => vec![
                self.problem(
                    Check::Group,
                    format!(
                        "firmware wants {:#x}..{:#x} of the host's memory to be reached by group {group} (RMRR or \
                         unity map)",
                        reserved.range.start, reserved.range.end
                    ),
                )
                .because("the kernel gives no such function away, since the firmware may go on using it")
                .mended(Remedy::by_hand(
                    "turn off what uses it in the firmware: management of the device out of band, shared memory, USB legacy \
                     support",
                )),
            ],
        }
    }

    fn driver(&self) -> Finding {
        let driver = self.function.sysfs.driver.as_deref();
        let found = match driver {
            Some(driver) if self.is_bound() => return self.ok(Check::Driver, driver),
            Some(driver) => format!("driver {driver} of the host holds it"),
            None => "no driver holds it, and VFIO needs vfio-pci to".to_owned(),
        };
        let remedy =
            give(self.process, self.function.sysfs.address, self.others_in_the_way().next().is_some());
        let found = self.problem(Check::Driver, found);
        found.mended(match self.host.groups {
            0 => Remedy { what: format!("{}, once the IOMMU is on", remedy.what), ..remedy },
            _ => remedy,
        })
    }

    fn others_in_the_way(&self) -> impl Iterator<Item = &sysfs::Member> {
        let own = self.function.sysfs.address;
        self.function.offenders.iter().filter(move |member| member.address != own)
    }

    fn members(&self) -> Vec<Finding> {
        let Some(group) = self.function.sysfs.group else { return Vec::new() };
        let count = self.others_in_the_way().count();
        if count == 0 {
            return vec![self.ok(Check::Group, format!("group {group}: nobody is in the way"))];
        }
        let one = |member: &sysfs::Member| {
            let (address, driver) = (member.address, member.driver.as_deref().unwrap_or("no driver"));
            let found =
                format!("{address} is in the same group ({group}), and driver {driver} of the host holds it");
            self.problem(Check::Group, found)
                .because(
                    "the IOMMU cannot tell members of a group apart, so all of them leave the host or none",
                )
                .mended(give(self.process, address, count > 1))
        };
        self.others_in_the_way().map(one).collect()
    }

    fn in_use(&self) -> Option<Finding> {
        let holders = &self.function.holders;
        if !holders.seen.is_empty() {
            let names: Vec<String> = holders.seen.iter().map(ToString::to_string).collect();
            return Some(
                self.problem(
                    Check::InUse,
                    format!("{} has it, or a member of its group, open", names.join(", ")),
                )
                .mended(Remedy::by_hand(
                    "end that guest, or take the function from it (slotpass ctl remove)",
                )),
            );
        }
        let driver = self.function.sysfs.driver.as_deref().filter(|driver| sysfs::is_vfio(driver))?;
        let functions = |count| match count {
            1 => "a function".to_owned(),
            count => format!("{count} functions"),
        };
        let look = || Remedy::by_hand("ask again as root, who sees all processes, and outside of containers");
        match holders.hidden {
            Hidden::None => None,
            Hidden::Open(count) => Some(
                Check::InUse
                    .unknown(
                        self.subject.clone(),
                        format!(
                            "not known: others have {} of driver {driver} open, perhaps this one",
                            functions(count)
                        ),
                    )
                    .because("processes of other users, and those outside of a container, are not seen")
                    .mended(look()),
            ),
            Hidden::Unknown => Some(
                self.note(Check::InUse, "not known: processes of other users are not seen")
                    .because("if one of them has it, or a member of its group, open, a guest does not get it")
                    .mended(look()),
            ),
        }
    }

    fn access(&self) -> Option<Finding> {
        let is_handed_over = self.function.sysfs.file.is_some();
        match self.function.by_device_file {
            false if is_handed_over => {
                return Some(
                    self.problem(
                        Check::Access,
                        "its file is handed over, and --iommufd off opens functions by group",
                    )
                    .mended(Remedy::arguments("open functions by their own files", "--iommufd auto"))
                    .mended(Remedy::by_hand("name it by its address, and hand no file over")),
                );
            }
            true if self.is_bound() && self.function.sysfs.cdev.is_none() => {
                return Some(
                    self.problem(Check::Access, "it has no file below /dev/vfio/devices")
                        .because("this kernel's VFIO knows groups only (CONFIG_VFIO_DEVICE_CDEV)")
                        .mended(by_group()),
                );
            }
            _ => {}
        }
        let (true, Some(file)) = (self.is_bound(), self.function.file.as_deref()) else { return None };
        // What was opened by somebody else needs no right.
        if is_handed_over {
            return None;
        }
        let user = &self.process.user;
        Some(match self.function.access {
            Access::Granted => self.ok(Check::Access, format!("{file} can be opened")),
            Access::Absent => self
                .problem(
                    Check::Access,
                    format!("{file} is not there, although a VFIO driver holds the function"),
                )
                .because("the kernel made it where this process does not see it: in a container?"),
            Access::Denied => self
                .problem(Check::Access, format!("{user} may not open {file}"))
                .mended(Remedy::commands(
                    "let this user open it until it is made again",
                    [self.process.as_root(&format!("chown {user} {file}"))],
                ))
                .mended(self.rule(file)),
        })
    }

    /// A rule of udev gives the user the function's group, by whatever number, and the function's own file, and nothing else;
    /// members of the group come along, which the IOMMU does not tell apart.
    fn rule(&self, file: &str) -> Remedy {
        let (user, address) = (&self.process.user, self.function.sysfs.address);
        let path = format!("/etc/udev/rules.d/60-slotpass-{address}.rules");
        let group = format!("TEST==\"/sys/kernel/iommu_groups/%k/devices/{address}\"");
        Remedy::commands(
            "from now on, by a rule of udev for this function and its group",
            [
                self.process.write(&format!("SUBSYSTEM==\"vfio\", {group}, OWNER=\"{user}\""), &path),
                self.process.append(
                    &format!("SUBSYSTEM==\"vfio-dev\", KERNELS==\"{address}\", OWNER=\"{user}\""),
                    &path,
                ),
                self.process.as_root("udevadm control --reload"),
                self.process.as_root(&format!("udevadm trigger --settle --name-match={file}")),
            ],
        )
    }

    fn display(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.function.is_boot_display {
            findings.push(
                self.note(Check::Display, "the host was booted with it as its display")
                    .because("while a guest has it, the host's console is not to be seen"),
            );
        }
        let own = |range: &&std::ops::Range<u64>| {
            let resources = self.function.resources.iter();
            resources
                .filter(|resource| resource.is_memory && resource.size > 0)
                .any(|r| range.start < r.start.saturating_add(r.size) && r.start < range.end)
        };
        if let Some(range) = self.host.frame_buffers.iter().find(own) {
            findings.push(
                self.note(
                    Check::Display,
                    format!(
                        "the firmware's frame buffer keeps {:#x}..{:#x} of its BARs",
                        range.start, range.end
                    ),
                )
                .because("VFIO gets no BAR of which another has a part: the guest's driver fails")
                .mended(kernel_parameter::add(
                    self.host,
                    self.process,
                    "initcall_blacklist=sysfb_init",
                )),
            );
        }
        findings
    }

    fn virtual_functions(&self) -> Option<Finding> {
        if let Some(physical) = &self.function.physical
            && physical.driver.as_deref().is_some_and(sysfs::is_vfio)
        {
            return Some(
                self.problem(
                    Check::VirtualFunctions,
                    format!("it is a virtual function of {}, which a VFIO driver holds", physical.address),
                )
                .because("VFIO wants a token from both users then, which slotpass has not")
                .mended(Remedy::by_hand("leave the physical function to the host's driver")),
            );
        }
        match self.function.virtual_functions {
            0 => None,
            count => Some(
                self.note(Check::VirtualFunctions, format!("it has {count} virtual functions"))
                    .because("they go when its driver lets go of it"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
