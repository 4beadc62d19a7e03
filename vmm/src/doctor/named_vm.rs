//! A VM by name: for what `slotpass start` refuses it, beyond what `run` looks at.

use std::path::{Path, PathBuf};

use ppt_files::line_edit::quoted;
use uuid::Uuid;

use super::facts::Facts;
use super::facts::access::{self, Access};
use super::facts::function::Found;
use super::finding::{Check, Finding, Level, Remedy, Subject};
use crate::host::device_records::{self, Recorded};
use crate::vms::Folders;
use crate::vms::running::{self, VmState};

/// Which VM.
#[derive(Clone, Debug)]
pub struct NamedVm {
    /// As its user names it: a uuid or an alias.
    pub name: String,
    /// Its name for good.
    pub uuid: Uuid,
    /// `--state-dir`, if it was given.
    pub state_dir: Option<PathBuf>,
    /// `--run-dir`, if it was given.
    pub run_dir: Option<PathBuf>,
}

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it does now.
    pub state: VmState,
    /// What is recorded of each function that was asked about, in that order.
    pub records: Vec<Option<Recorded>>,
    /// Where this user may not write, and `start` does.
    pub denied: Vec<PathBuf>,
}

impl NamedVm {
    fn folders(&self) -> Folders {
        Folders::choose(self.state_dir.clone(), self.run_dir.clone())
    }

    /// Reads it.
    pub fn read(&self, facts: &Facts) -> Known {
        let folders = self.folders();
        let own = folders.of_vm(self.uuid);
        let record = |found: &Found| match found {
            Found::Host(function) => device_records::of(&folders.devices(), function.sysfs.address),
            Found::Simulated(_) | Found::Nothing(_) => None,
        };
        let written = [own.lock(), own.platform_log(), own.console_log(), folders.devices()];
        let mut denied: Vec<PathBuf> = written.iter().filter_map(|path| denied(path)).collect();
        denied.dedup();
        Known {
            state: running::state(&own),
            records: facts.asked.iter().map(|asked| record(&asked.found)).collect(),
            denied,
        }
    }

    /// `found` is what was found of its functions otherwise.
    pub fn check(&self, facts: &Facts, known: &Known, found: &[Finding]) -> Vec<Finding> {
        let folders = [&self.state_dir, &self.run_dir].into_iter().flatten();
        let names: Vec<String> = folders.map(|folder| folder.display().to_string()).collect();
        let findings = self.judge(facts, known, found).into_iter();
        findings.map(|finding| finding.naming(names.iter().cloned())).collect()
    }

    fn judge(&self, facts: &Facts, known: &Known, found: &[Finding]) -> Vec<Finding> {
        let mut findings = vec![self.state(known.state)];
        findings.extend(known.denied.iter().map(|path| {
            Check::Vm
                .problem(
                    Subject::Guest,
                    format!("{} may not write to {}", facts.process.user, path.display()),
                )
                .because("the VM's process keeps its lock, logs, sockets and records there")
                .mended(Remedy::by_hand(
                    "name other folders (--state-dir, --run-dir), or start it as the user whose VM it is",
                ))
                .naming([path.display().to_string()])
        }));
        for (asked, record) in facts.asked.iter().zip(&known.records) {
            let subject = Subject::Function(asked.name.to_string());
            let reset = found.iter().find(|f| f.check == Check::Reset && f.subject == subject);
            findings.extend(
                record.as_ref().and_then(|record| self.record(subject, record, reset.map(|f| f.level))),
            );
        }
        findings
    }

    fn state(&self, state: VmState) -> Finding {
        let found = format!("it is {}", state.name());
        match state.pid() {
            None => Check::Vm.ok(Subject::Guest, found),
            Some(pid) => Check::Vm
                .problem(Subject::Guest, format!("{found} already (process {pid})"))
                .mended(self.commands("stop it first", "stop", &self.name)),
        }
    }

    /// `reset` is what was found of the function's resets: what can be reset is clean after that.
    fn record(&self, subject: Subject, record: &Recorded, reset: Option<Level>) -> Option<Finding> {
        match record {
            // By this VM: that is said of the VM.
            Recorded::Used(by) if by.uuid == self.uuid.to_string() => None,
            Recorded::Used(by) => Some(
                Check::InUse
                    .problem(
                        subject,
                        format!(
                            "it is in slot {} of VM {}, which runs (process {})",
                            by.slot, by.uuid, by.pid
                        ),
                    )
                    .mended(self.commands("stop that VM first", "stop", &by.uuid)),
            ),
            // Refused already where a reset is required, however the function was left.
            Recorded::Left(_) if matches!(reset, Some(Level::Ok | Level::Problem)) => None,
            Recorded::Left(by) => Some(
                Check::Reset
                    .problem(
                        subject,
                        format!(
                            "it is dirty: VM {} had it and did not end in order, and it cannot be reset",
                            by.as_ref().map_or("unknown", |by| &by.uuid)
                        ),
                    )
                    .because("it would come to the guest as that one left it")
                    .mended(self.commands("accept that", "start --accept-dirty", &self.name)),
            ),
        }
    }

    fn commands(&self, what: &str, command: &str, vm: &str) -> Remedy {
        let mut words = vec![format!("slotpass {command}")];
        for (option, folder) in [("--state-dir", &self.state_dir), ("--run-dir", &self.run_dir)] {
            let given = folder.iter().map(|folder| quoted(&folder.display().to_string()).into_owned());
            words.extend(given.map(|folder| format!("{option} {folder}")));
        }
        words.push(quoted(vm).into_owned());
        Remedy::commands(what, [words.join(" ")])
    }
}

/// What of a path is there, if this user may not write to it.
fn denied(path: &Path) -> Option<PathBuf> {
    let there = path.ancestors().find(|path| access::of(path) != Access::Absent)?;
    (access::of(there) == Access::Denied).then(|| there.to_owned())
}

#[cfg(test)]
mod tests;
