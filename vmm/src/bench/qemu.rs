//! The guest under QEMU's q35 with KVM, to compare with.

use std::io::{self, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use passthru::host::vfio::{OpenError, sysfs};

use super::child::{Ending, Running};
use super::error::BenchError;
use super::guest_text::GuestText;
use crate::host::physical_path::{self, PathError};
use crate::signals::HeldBack;
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
    // Before the file, which is gone before one of them can end this program.
    let signals = HeldBack::new().map_err(BenchError::Signals)?;
    let mut image = tempfile::Builder::new().suffix(".elf").tempfile().map_err(QemuError::Image)?;
    image.write_all(guest::BENCH).map_err(QemuError::Image)?;
    let mut command = command(64, assignment)?;
    command.arg("-kernel").arg(image.path()).args(["-append", words]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    run_to_end(command, &signals)
}

/// QEMU with so many MiB of memory and that function, without a kernel.
pub fn command(memory: u32, assignment: Option<&Assignment>) -> Result<Command, QemuError> {
    let mut command = Command::new(PROGRAM);
    // A KVM in a virtual machine may have that register (0x10a) for its guests, and refuse what QEMU writes to it.
    command.args([
        "-accel",
        "kvm",
        "-M",
        "q35",
        "-cpu",
        "host,-arch-capabilities",
        "-m",
        &memory.to_string(),
    ]);
    command.args(["-nodefaults", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command.arg("-device").arg(device(assignment)?);
    Ok(command)
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

fn run_to_end(mut command: Command, signals: &HeldBack) -> Result<String, BenchError> {
    let mut child = start(&mut command)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let text = stdout.map(GuestText::from).transpose().map_err(BenchError::Console)?;
    let said = stderr.map(GuestText::from).transpose().map_err(BenchError::Console)?;
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().map_err(QemuError::Process)? {
            Some(status) => break status,
            None if begin.elapsed() > LONGEST_RUN => {
                return Err(QemuError::TooLong(LONGEST_RUN.as_secs()).into());
            }
            None => thread::sleep(NAP),
        }
        if let Some(by) = signals.taken() {
            return Err(BenchError::Asked(by));
        }
    };
    let text = text.map(GuestText::of).transpose()?.unwrap_or_default();
    // A guest that has come to its end turns the power off; one that failed says why, and ends by the exit port.
    if status.success() || text.lines().any(|line| line.starts_with("FAIL ")) {
        return Ok(text);
    }
    let said = said.map(GuestText::of).transpose()?.unwrap_or_default();
    Err(QemuError::Ended { status, said: said.trim().chars().take(LONGEST_MESSAGE).collect() }.into())
}

/// Starts QEMU, which is gone when what this gives is dropped.
fn start(command: &mut Command) -> Result<Running, QemuError> {
    Running::start(command, Ending::Killed).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => QemuError::Absent,
        _ => QemuError::Process(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        run_to_end(command, &HeldBack::new().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn what_it_says_before_the_guest_runs_is_told() {
        let error = error_of("echo bios; echo no such device >&2; exit 1");
        assert_eq!(error, "qemu-system-x86_64 ended with exit status: 1: no such device");
        let absent = start(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(absent.contains("there is no qemu-system-x86_64 in PATH"), "{absent}");
    }

    #[test]
    fn what_a_guest_says_that_failed_is_read() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo bench-rate 7; echo FAIL bench: x; exit 3"]).stdout(Stdio::piped());
        let text = run_to_end(command, &HeldBack::new().unwrap()).unwrap();
        assert_eq!(text, "bench-rate 7\nFAIL bench: x\n");
    }

    #[test]
    fn half_of_what_a_guest_has_to_say_is_not_taken_for_all() {
        let error = error_of("echo bench-rate 7; echo bench empty cycles 7; echo lost >&2; kill -SEGV $$");
        assert!(error.contains("SIGSEGV") && error.ends_with(": lost"), "{error}");
    }
}
