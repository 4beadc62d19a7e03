//! The guest under QEMU's q35 with KVM, to compare with.

use std::io::{self, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use passthru::host::vfio::{OpenError, sysfs};

use super::error::BenchError;
use super::guest_text::GuestText;
use crate::host::physical_path::{self, PathError};
use crate::slot_map::{Assignment, DeviceName};

/// Looked for in `PATH`.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Where the guest finds the function, whatever its slot is elsewhere: on q35's root bus.
pub const SLOT: &str = "0:8:0";
const ADDRESS: &str = "8.0";
/// So that one that hangs does not hang the bench.
const LONGEST_RUN: Duration = Duration::from_secs(1800);
const NAP: Duration = Duration::from_millis(5);
/// Characters of what QEMU says that are told.
const LONGEST_MESSAGE: usize = 600;

/// Why there is nothing of QEMU to compare with.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// It is not installed.
    #[error(
        "there is no {PROGRAM} in PATH to compare with; install it (Debian: qemu-system-x86) or leave out --against qemu"
    )]
    Absent,
    /// It cannot be run.
    #[error("{PROGRAM}: {0}")]
    Process(#[source] io::Error),
    /// The guest's image, as a file for it.
    #[error("a file with the guest's image for {PROGRAM}: {0}")]
    Image(#[source] io::Error),
    /// The function that it is to have.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The function that it is to have.
    #[error(transparent)]
    Function(#[from] OpenError),
    /// It ended before the guest had anything to say.
    #[error("{PROGRAM} ended with {status}: {said}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said on stderr.
        said: String,
    },
    /// It did not end.
    #[error("{PROGRAM} did not end in {0} seconds and was killed")]
    TooLong(u64),
}

/// What the guest has there: the function of the host that is assigned, otherwise QEMU's educational device, since a simulated
/// function is slotpass' own.
pub fn function(assignment: Option<&Assignment>) -> String {
    match assignment {
        Some(Assignment { device: DeviceName::Host(name), .. }) => format!("{name} in slot {SLOT}"),
        _ => format!("edu in slot {SLOT}"),
    }
}

/// Runs the guest to its end with that function, and gives what it sent by its serial port.
pub fn run(words: &str, assignment: Option<&Assignment>) -> Result<String, BenchError> {
    let mut image = tempfile::Builder::new().suffix(".elf").tempfile().map_err(QemuError::Image)?;
    image.write_all(guest::BENCH).map_err(QemuError::Image)?;
    let mut command = Command::new(PROGRAM);
    // A KVM in a virtual machine may have that register (0x10a) for its guests, and refuse what QEMU writes to it.
    command.args(["-accel", "kvm", "-M", "q35", "-cpu", "host,-arch-capabilities", "-m", "64"]);
    command.args(["-nodefaults", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command.arg("-kernel").arg(image.path()).args(["-append", words]).arg("-device").arg(device(assignment)?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    run_to_end(command)
}

fn device(assignment: Option<&Assignment>) -> Result<String, QemuError> {
    Ok(match assignment {
        Some(Assignment { device: DeviceName::Host(name), .. }) => {
            let address = sysfs::find(&physical_path::resolve(name)?)?.address;
            format!("vfio-pci,host={address},addr={ADDRESS}")
        }
        _ => format!("edu,addr={ADDRESS}"),
    })
}

fn run_to_end(mut command: Command) -> Result<String, BenchError> {
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => QemuError::Absent,
        _ => QemuError::Process(source),
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let text = stdout.map(GuestText::from).transpose().map_err(BenchError::Console)?;
    let said = stderr.map(GuestText::from).transpose().map_err(BenchError::Console)?;
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().map_err(QemuError::Process)? {
            Some(status) => break status,
            None if begin.elapsed() > LONGEST_RUN => {
                // It may have ended just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(QemuError::TooLong(LONGEST_RUN.as_secs()).into());
            }
            None => thread::sleep(NAP),
        }
    };
    let text = text.map(GuestText::of).transpose()?.unwrap_or_default();
    // Of a guest that ended by the exit port, its own text says why.
    if status.success() || text.lines().any(|line| line.starts_with("bench-rate ")) {
        return Ok(text);
    }
    let said = said.map(GuestText::of).transpose()?.unwrap_or_default();
    Err(QemuError::Ended { status, said: said.trim().chars().take(LONGEST_MESSAGE).collect() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        run_to_end(command).unwrap_err().to_string()
    }

    #[test]
    fn what_it_says_before_the_guest_runs_is_told() {
        let error = error_of("echo bios; echo no such device >&2; exit 1");
        assert_eq!(error, "qemu-system-x86_64 ended with exit status: 1: no such device");
        let absent = run_to_end(Command::new("no-such-program")).unwrap_err().to_string();
        assert!(absent.contains("there is no qemu-system-x86_64 in PATH"), "{absent}");
    }

    #[test]
    fn what_the_guest_says_is_read_however_it_ends() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo bench-rate 7; echo FAIL; exit 3"]).stdout(Stdio::piped());
        assert_eq!(run_to_end(command).unwrap(), "bench-rate 7\nFAIL\n");
    }
}
