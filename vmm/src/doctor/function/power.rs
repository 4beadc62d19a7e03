//! Whether a function has power, and can be given some.

use super::One;
use crate::doctor::finding::{Check, Finding, Remedy};

impl One<'_> {
    pub(super) fn power(&self) -> Option<Finding> {
        let (state, status) = (self.function.power_state.as_deref(), self.function.runtime_status.as_deref());
        if status == Some("error") {
            return Some(self.power_error());
        }
        match state {
            Some("D3cold") => Some(
                self.note(Check::Power, "it was in D3cold, and woke to be looked at")
                    .because("it wakes when it is opened, too, which takes a moment"),
            ),
            Some("error") => Some(self.note(Check::Power, "its power state is not known")),
            _ => None,
        }
    }

    /// The kernel does not try again what failed once (`rpm_resume`), and VFIO, which opens no function that it cannot wake,
    /// asks it to (`vfio_pci_core_enable`), unless it was told to leave functions in D0. A driver's change does not clear that.
    fn power_error(&self) -> Finding {
        let found = "the kernel could not change its power state (runtime_status is error)";
        let address = self.function.sysfs.address;
        if self.host.stays_in_d0 {
            return self.note(Check::Power, found).because("VFIO leaves it as it is (disable_idle_d3)");
        }
        self.problem(Check::Power, found)
            .because("the kernel wakes it no more, and VFIO opens no function that does not wake")
            .mended(Remedy::commands(
                "let the host find it anew, which takes it from its driver; then reserve it again",
                [
                    self.process.write("1", &format!("/sys/bus/pci/devices/{address}/remove")),
                    self.process.write("1", "/sys/bus/pci/rescan"),
                ],
            ))
            .mended(Remedy::by_hand("switch the host off and on"))
    }
}
