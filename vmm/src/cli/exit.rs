//! Exit codes.

use std::process::ExitCode;

use crate::control::Stop;

/// Any error of this program, of its arguments, or of what they name.
pub const FAILED: ExitCode = ExitCode::FAILURE;

/// Shown with the help.
pub const HELP: &str = "Exit codes:
  0      the guest switched itself off, or reset with --no-reboot; or slotpass was
         asked to end (SIGTERM, SIGINT, SIGHUP, Ctrl-A x) and did so in good order
  1      an error of slotpass, its arguments, or what they name
  4      a vCPU met a triple fault
  6      KVM could not go on
  8      a function reported an uncorrectable error (--on-error stop)
  v*2+1  the guest wrote v to port 0xf4";

/// The exit code that tells how a guest ended. Those of port 0xf4 are odd, so the others are even, but for 1.
pub fn code(stop: &Stop) -> ExitCode {
    match stop {
        Stop::PowerOff | Stop::Reset | Stop::Asked(_) => ExitCode::SUCCESS,
        Stop::Exit(status) => ExitCode::from(*status),
        Stop::Broken(_) => FAILED,
        Stop::TripleFault { .. } => ExitCode::from(4),
        Stop::Kvm { .. } => ExitCode::from(6),
        Stop::Device { .. } => ExitCode::from(8),
    }
}

/// What is to be said about how a guest ended, if anything.
pub fn message(stop: &Stop) -> Option<String> {
    match stop {
        Stop::PowerOff | Stop::Reset | Stop::Exit(_) => None,
        Stop::Asked(by) => Some(format!("ended by {by}")),
        Stop::Broken(what) => Some(format!("internal error: {what}")),
        Stop::TripleFault { vcpu } => Some(format!("vCPU {vcpu}: triple fault")),
        Stop::Device { what } => Some(what.clone()),
        Stop::Kvm { vcpu, what } => Some(format!("vCPU {vcpu}: {what}")),
    }
}
