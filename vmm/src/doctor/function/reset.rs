//! How a function comes to its next user as new.

use passthru::host::vfio::sysfs;

use super::{One, give};
use crate::doctor::facts::function::Neighbour;
use crate::doctor::finding::{Check, Finding, Remedy};

impl One<'_> {
    /// A reset of its bus takes what `run` takes: functions that the guest has, or others of their groups that nobody but the
    /// guest can have, each of them in a VFIO driver's hands.
    pub(super) fn reset(&self, require_reset: bool) -> Finding {
        let function = self.function;
        if !function.resets.is_empty() {
            return self.ok(Check::Reset, function.resets.join(", then "));
        }
        let missing: Vec<&Neighbour> =
            function.neighbours.iter().filter(|neighbour| !self.goes_along(neighbour)).collect();
        if !function.neighbours.is_empty() && missing.is_empty() {
            let names: Vec<String> = function.neighbours.iter().map(|n| n.address().to_string()).collect();
            return self.ok(Check::Reset, format!("with its bus, together with {}", names.join(" and ")));
        }
        let found = match missing.is_empty() {
            true => "it has no reset of its own, and its bus none".to_owned(),
            false => {
                let names: Vec<String> = missing
                    .iter()
                    .map(|neighbour| {
                        let driver = neighbour.member.driver.as_deref().unwrap_or("no driver");
                        format!("{} ({driver})", neighbour.address())
                    })
                    .collect();
                format!(
                    "it has no reset of its own, and one of its bus would also reset {}",
                    names.join(", ")
                )
            }
        };
        let reason = "the guest finds it as its last user left it, and the next user as the guest left it";
        let found = match require_reset {
            true => {
                self.problem(Check::Reset, found).because(format!("--require-reset refuses it: {reason}"))
            }
            false => self.note(Check::Reset, found).because(reason),
        };
        if missing.is_empty() {
            return found.mended(Remedy::by_hand("run guests that reset it themselves, or accept it"));
        }
        let unbound = missing
            .iter()
            .filter(|neighbour| !neighbour.is_vfio())
            .map(|neighbour| give(self.process, neighbour.address(), true));
        // Those of the same group need not be the guest's.
        match missing.iter().all(|neighbour| self.is_of_guests_groups(neighbour)) {
            true => unbound.fold(found, Finding::mended),
            false => unbound.fold(
                found.mended(Remedy::by_hand("give the same guest all of them, or accept it")),
                Finding::mended,
            ),
        }
    }

    fn goes_along(&self, neighbour: &Neighbour) -> bool {
        let is_asked =
            || self.facts.functions().any(|function| function.sysfs.address == neighbour.address());
        is_asked() || (neighbour.is_vfio() && self.is_of_guests_groups(neighbour))
    }

    fn is_of_guests_groups(&self, neighbour: &Neighbour) -> bool {
        let is_its = |group| self.facts.functions().any(|function| function.sysfs.group == Some(group));
        neighbour.group.is_some_and(is_its)
    }
}

impl Neighbour {
    fn is_vfio(&self) -> bool {
        self.member.driver.as_deref().is_some_and(sysfs::is_vfio)
    }
}
