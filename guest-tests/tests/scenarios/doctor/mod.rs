//! What `slotpass doctor` says is wrong keeps a guest from starting, and what it prints mends it: its commands are run as they
//! are printed, and what was mended is undone in the end.

pub mod agrees;
pub mod host;
pub mod mends;
pub mod rights_and_room;
pub mod told;

use guest_tests::{Bdf, Failure, GuestRun, Machine, expect};

use told::Told;

/// Limits that bind those who lack CAP_IPC_LOCK only.
const WITHOUT_IPC_LOCK: &str = "setpriv --bounding-set=-ipc_lock";

/// A function, and how doctor and run are started for it.
#[derive(Clone, Copy)]
struct Subject<'a> {
    function: &'a Bdf,
    before: &'a str,
    wrapper: &'a str,
}

impl Subject<'_> {
    fn doctor(&self, machine: &mut Machine<'_>, name: &str) -> Result<Told, Failure> {
        let doctor = GuestRun::slotpass(&["doctor", self.function.as_str()]);
        Told::of(machine, name, &doctor.after(self.before).through(self.wrapper))
    }

    fn run(&self, run: &GuestRun) -> GuestRun {
        run.clone().after(self.before).through(self.wrapper)
    }

    /// Doctor says that the guest would not start because of `check`, with these words, and it does not, for that reason.
    fn refused(
        &self,
        machine: &mut Machine<'_>,
        run: &GuestRun,
        check: &str,
        words: &[&str],
    ) -> Result<Told, Failure> {
        let told = self.doctor(machine, &format!("doctor: {check}"))?;
        expect!(told.code == 1, "exit code {} with a problem: {}", told.code, told.text);
        let refused = machine.run(&format!("refused: {check}"), &self.run(run))?;
        refused.expect_code(1)?;
        refused.expect_message(&[reason_of_run(check)])?;
        told.section("problem", self.function.as_str(), check, words)
    }

    /// Doctor says that the guest would start, and it does.
    fn starts(&self, machine: &mut Machine<'_>, run: &GuestRun) -> Result<Told, Failure> {
        let told = self.doctor(machine, "doctor: mended")?;
        expect!(told.code == 0, "still a problem: {}", told.text);
        machine.run("mended", &self.run(run))?.expect_code(0)?;
        Ok(told)
    }
}

/// What run says where this check of doctor's finds a problem.
fn reason_of_run(check: &str) -> &'static str {
    match check {
        "iommu" => "it has no IOMMU group",
        "interrupt remapping" => "Operation not permitted",
        "driver" => "not bound to vfio-pci",
        "group" => "is not viable",
        "memory lock" => "the memory lock limit is",
        _ => "",
    }
}

/// Driver and override of every function.
fn drivers(machine: &mut Machine<'_>) -> Result<String, Failure> {
    machine.command(
        "look at all functions",
        "cd /sys/bus/pci/devices\n\
         for f in *; do echo $f $(readlink $f/driver || true) $(cat $f/driver_override); done\n",
    )
}
