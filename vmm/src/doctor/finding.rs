//! What doctor says: findings, and for each what mends it.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The guest starts; somebody may want to know.
    Note,
    /// It was not to be found out whether the guest starts.
    Unknown,
    /// The guest does not start.
    Problem,
}

/// What is looked at. Each has one line or more of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// `/dev/kvm`.
    Kvm,
    /// IOMMU of the host.
    Iommu,
    /// Interrupt remapping.
    InterruptRemapping,
    /// VFIO's modules and the files that all functions share.
    Vfio,
    /// The function is there and answers.
    Presence,
    /// The function's driver.
    Driver,
    /// The function's IOMMU group.
    Group,
    /// Other processes have the function.
    InUse,
    /// Files by which the function is opened.
    Access,
    /// How the function is reset.
    Reset,
    /// Power states.
    Power,
    /// The function's BARs.
    Bars,
    /// What the host does with the function as a display.
    Display,
    /// Virtual functions.
    VirtualFunctions,
    /// Whether a VM by name can be started.
    Vm,
    /// Slots and addresses in the guest.
    Slots,
    /// Kernel and initial RAM disk.
    Kernel,
    /// The host's memory.
    Memory,
    /// Limit on locked memory.
    MemoryLock,
    /// Addresses that the IOMMU translates.
    IoAddresses,
    /// Limit on DMA mappings.
    DmaMappings,
    /// Limit on open files.
    OpenFiles,
    /// Interrupt vectors.
    Vectors,
    /// Processors.
    Processors,
}

/// Whom a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The host in general.
    Host,
    /// A function, by its name.
    Function(String),
    /// The guest and the process that runs it.
    Guest,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// About whom.
    pub subject: Subject,
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub level: Level,
    /// What was found, in one line.
    pub found: String,
    /// What it means, if that is not clear.
    pub reason: Option<String>,
    /// What mends it. One of them is enough; the first is the one to try.
    pub remedies: Vec<Remedy>,
    /// Names of the user's files that are in it, which a report for others leaves out.
    #[serde(skip)]
    pub files: Vec<String>,
}

/// What mends a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// What it is, for a person.
    pub what: String,
    /// Parameter for the host kernel's command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_parameter: Option<String>,
    /// Arguments for `slotpass run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// Commands for a shell, to be run in this order as they are.
    pub commands: Vec<String>,
}

impl Remedy {
    /// Something that no command does.
    pub fn by_hand(what: impl Into<String>) -> Remedy {
        Remedy { what: what.into(), kernel_parameter: None, arguments: None, commands: Vec::new() }
    }

    /// Commands.
    pub fn commands(what: impl Into<String>, commands: impl IntoIterator<Item = String>) -> Remedy {
        Remedy { commands: commands.into_iter().collect(), ..Remedy::by_hand(what) }
    }

    /// Arguments of `slotpass run`.
    pub fn arguments(what: impl Into<String>, arguments: impl Into<String>) -> Remedy {
        Remedy { arguments: Some(arguments.into()), ..Remedy::by_hand(what) }
    }
}

impl Check {
    /// One or two words for a person.
    pub fn title(self) -> &'static str {
        match self {
            Check::Kvm => "kvm",
            Check::Iommu => "iommu",
            Check::InterruptRemapping => "interrupt remapping",
            Check::Vfio => "vfio",
            Check::Presence => "presence",
            Check::Driver => "driver",
            Check::Group => "group",
            Check::InUse => "in use",
            Check::Access => "access",
            Check::Reset => "reset",
            Check::Power => "power",
            Check::Bars => "bars",
            Check::Display => "display",
            Check::VirtualFunctions => "virtual functions",
            Check::Vm => "vm",
            Check::Slots => "slots",
            Check::Kernel => "kernel",
            Check::Memory => "memory",
            Check::MemoryLock => "memory lock",
            Check::IoAddresses => "io addresses",
            Check::DmaMappings => "dma mappings",
            Check::OpenFiles => "open files",
            Check::Vectors => "vectors",
            Check::Processors => "processors",
        }
    }

    /// As it should be.
    pub fn ok(self, subject: Subject, found: impl Into<String>) -> Finding {
        self.finding(subject, Level::Ok, found)
    }

    /// Worth a word.
    pub fn note(self, subject: Subject, found: impl Into<String>) -> Finding {
        self.finding(subject, Level::Note, found)
    }

    /// Not to be found out.
    pub fn unknown(self, subject: Subject, found: impl Into<String>) -> Finding {
        self.finding(subject, Level::Unknown, found)
    }

    /// In the guest's way.
    pub fn problem(self, subject: Subject, found: impl Into<String>) -> Finding {
        self.finding(subject, Level::Problem, found)
    }

    fn finding(self, subject: Subject, level: Level, found: impl Into<String>) -> Finding {
        let (found, remedies, files) = (found.into(), Vec::new(), Vec::new());
        Finding { subject, check: self, level, found, reason: None, remedies, files }
    }
}

impl Finding {
    /// With what it means.
    pub fn because(mut self, reason: impl Into<String>) -> Finding {
        self.reason = Some(reason.into());
        self
    }

    /// With names of files that are in it.
    pub fn naming(mut self, files: impl IntoIterator<Item = String>) -> Finding {
        self.files.extend(files);
        self
    }

    /// With a remedy, or a further one.
    pub fn mended(mut self, remedy: Remedy) -> Finding {
        self.remedies.push(remedy);
        self
    }
}

/// Whether the guest would start, from all that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It would.
    Starts,
    /// Something is in its way.
    Refused,
    /// What would be in its way could not all be looked at.
    Unknown,
}

impl Verdict {
    /// The worst of the findings decides.
    pub fn of(findings: &[Finding]) -> Verdict {
        match findings.iter().map(|finding| finding.level).max() {
            Some(Level::Problem) => Verdict::Refused,
            Some(Level::Unknown) => Verdict::Unknown,
            _ => Verdict::Starts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let [ok, note, unknown, problem] = [Level::Ok, Level::Note, Level::Unknown, Level::Problem]
            .map(|level| Check::Kvm.finding(Subject::Host, level, ""));
        for (findings, verdict) in [
            (&[][..], Verdict::Starts),
            (&[ok.clone(), note.clone()], Verdict::Starts),
            (&[unknown.clone(), note], Verdict::Unknown),
            (&[unknown, problem, ok], Verdict::Refused),
        ] {
            assert_eq!(Verdict::of(findings), verdict);
        }
    }
}
