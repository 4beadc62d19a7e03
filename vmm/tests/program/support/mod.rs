//! How the tests start the program and look at what became of it.

mod ended;
mod pty;
mod running;
mod slotpass;

pub use ended::Ended;
pub use pty::Pty;
pub use running::Running;
pub use slotpass::{Slotpass, program};

use std::any::type_name;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::{Command, Stdio};

/// Says that a test cannot do its work here. Not by `eprintln!`, which the test harness keeps for itself.
pub fn skipped(name: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// The name of the function that holds another one.
pub fn holder_of<T>(_: T) -> &'static str {
    type_name::<T>().rsplit("::").nth(1).unwrap()
}

/// Whether there is KVM for a test; if not, it is reported as skipped.
pub fn has_kvm(test: &str) -> bool {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            skipped(test, &format!("no usable /dev/kvm: {error}"));
            false
        }
    }
}

/// Whether a command can be given here, by trying it with another program in the place of slotpass.
pub fn permitted(wrapper: &[&str], test: &str) -> bool {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(program()).arg("--version");
    let works = command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    if !works {
        skipped(test, &format!("not permitted here: {command:?}"));
    }
    works
}

/// Ends the test, as skipped, where there is no KVM.
macro_rules! needs_kvm {
    () => {
        fn here() {}
        if !$crate::support::has_kvm($crate::support::holder_of(here)) {
            return;
        }
    };
}
pub(crate) use needs_kvm;
