//! `slotpass ctl`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use passthru::pci::Slot;
use serde::Deserialize;
use serde_json::{Value, json};

use super::exit;
use super::vms::Places;
use crate::control_socket::client::{Client, ClientError};
use crate::control_socket::protocol::{Listed, Listing, PATIENCE, PortState, Status};
use crate::slot_map::Assignment;
use crate::vms::store::{Store, StoreError};
use crate::wording;

/// Names the socket where `--control` does not.
const VARIABLE: &str = "SLOTPASS_CONTROL";
/// How long functions take at most to be opened and reset, or to be reset and closed.
const DEVICES: Duration = Duration::from_secs(120);

/// Lists, adds and removes functions of a guest that runs
///
/// The guest was started with `slotpass run --control PATH`, or is a VM by name (--vm). Functions come and go behind root ports (`--port`, and `,port`
/// behind `--slot`), all functions of a device together.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The socket of the guest [default: the environment's SLOTPASS_CONTROL]
    #[arg(long, value_name = "PATH", global = true)]
    control: Option<PathBuf>,
    /// A VM by name, by its uuid or alias, instead of a socket
    #[arg(long, value_name = "VM", global = true, conflicts_with = "control")]
    vm: Option<String>,
    #[command(flatten)]
    places: Places,
    /// Prints the result as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Which functions are in which slots, and what goes on at the root ports
    List,
    /// How the guest is
    Status,
    /// Presses the guest's power button
    PowerButton,
    /// Plugs in the functions of a device behind a root port whose slot is empty
    Add {
        /// A function and its slot, as with run; all functions of the device at once
        #[arg(required = true, value_name = "B:D:F=DEVICE")]
        functions: Vec<String>,
    },
    /// Asks the guest to let go of the functions of a device, and takes them away
    Remove {
        /// Where they are; all functions of the device at once
        #[arg(required = true, value_name = "B:D:F")]
        slots: Vec<Slot>,
        /// Does not ask the guest, which finds the device gone
        #[arg(long)]
        force: bool,
        /// How long the guest has to let go; if it does not, the device stays
        #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
        timeout: u64,
    },
}

#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error("no control socket: give --control PATH, as with slotpass run, or --vm VM, or set {VARIABLE}")]
    NoSocket,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("VM {0} is not running")]
    NotRunning(String),
    #[error(transparent)]
    Assignment(#[from] crate::slot_map::AssignmentError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("an answer that is not understood: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("stdout: {0}")]
    Output(io::Error),
}

/// Asks a machine, and prints what it says.
pub fn ctl(arguments: Arguments) -> ExitCode {
    match ask(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                let _ = writeln!(io::stderr(), "slotpass: {line}");
            }
            exit::FAILED
        }
    }
}

fn ask(Arguments { control, vm, places, json, command }: Arguments) -> Result<(), CtlError> {
    let path = match vm {
        Some(vm) => socket_of(&places.store(), &vm)?,
        None => {
            control.or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from)).ok_or(CtlError::NoSocket)?
        }
    };
    let (request, patience) = request(&command)?;
    let result = Client::connect(&path)?.ask(&request, patience)?;
    let text = if json { format!("{result}\n") } else { text(&command, result)? };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(CtlError::Output),
    }
}

fn socket_of(store: &Store, name: &str) -> Result<PathBuf, CtlError> {
    let uuid = store.uuid_of(name)?;
    match store.state(uuid).pid() {
        Some(_) => Ok(store.folders().of_vm(uuid).control_socket()),
        None => Err(CtlError::NotRunning(store.name(uuid))),
    }
}

/// What the machine is asked, and how long that may take.
fn request(command: &Command) -> Result<(Value, Duration), CtlError> {
    Ok(match command {
        Command::List => (json!({ "command": "list" }), Duration::ZERO),
        Command::Status => (json!({ "command": "status" }), Duration::ZERO),
        Command::PowerButton => (json!({ "command": "power-button" }), Duration::ZERO),
        Command::Add { functions } => {
            for text in functions {
                text.parse::<Assignment>()?;
            }
            (json!({ "command": "add", "functions": functions }), DEVICES)
        }
        Command::Remove { slots, force, timeout } => {
            let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
            let request = json!({ "command": "remove", "slots": slots, "force": force, "timeout": timeout });
            (request, DEVICES.saturating_add(Duration::from_secs(*timeout)))
        }
    })
}

#[derive(Deserialize)]
struct Pressed {
    heard: bool,
}

#[derive(Deserialize)]
struct Added {
    added: Vec<Listed>,
}

#[derive(Deserialize)]
struct Removed {
    removed: Vec<Listed>,
    by_force: bool,
}

/// A result for a person.
fn text(command: &Command, result: Value) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    let mut row = |line: std::fmt::Arguments<'_>| {
        // Nothing fails that writes to a text.
        let _ = writeln!(text, "{line}");
    };
    match command {
        Command::List => {
            let Listing { functions, ports } = serde_json::from_value(result)?;
            row(format_args!("{:<10} {:<24} state", "slot", "device"));
            for Listed { slot, device } in &functions {
                let port = ports.iter().find(|port| port.bus == slot.bus());
                row(format_args!(
                    "{:<10} {device:<24} {}",
                    slot.to_string(),
                    port.map_or(ON_ROOT_BUS, |port| state(port.state))
                ));
            }
            for port in &ports {
                if !functions.iter().any(|function| function.slot.bus() == port.bus) {
                    row(format_args!(
                        "{:<10} {:<24} {}",
                        format!("{}:0:-", port.bus),
                        "-",
                        state(port.state)
                    ));
                }
            }
        }
        Command::Status => {
            let Status { version, pid, cpus, memory, functions, ports, resets } =
                serde_json::from_value(result)?;
            row(format_args!("slotpass {version}, process {pid}"));
            row(format_args!("{cpus} processors, {} of memory", wording::size(memory)));
            row(format_args!("{functions} functions, {ports} root ports"));
            row(format_args!("{resets} resets by the guest"));
        }
        Command::PowerButton => {
            let Pressed { heard } = serde_json::from_value(result)?;
            row(format_args!(
                "the power button is pressed{}",
                if heard { "" } else { "; the guest does not listen to it now" }
            ));
        }
        Command::Add { .. } => {
            let Added { added } = serde_json::from_value(result)?;
            added
                .iter()
                .for_each(|Listed { slot, device }| row(format_args!("{slot}: {device} is plugged in")));
        }
        Command::Remove { .. } => {
            let Removed { removed, by_force } = serde_json::from_value(result)?;
            let how = if by_force { "was taken away from the guest" } else { "is removed" };
            removed.iter().for_each(|Listed { slot, device }| row(format_args!("{slot}: {device} {how}")));
        }
    }
    Ok(text)
}

const ON_ROOT_BUS: &str = "in use, on a root bus (no hot-plug)";

fn state(state: PortState) -> &'static str {
    match state {
        PortState::Empty => "an empty root port",
        PortState::Adding => "is being added",
        PortState::On => "in use",
        PortState::Off => "without power: the guest has let go of it, or not yet taken it",
        PortState::Removing => "the guest was asked to let go",
        PortState::Closing => "is being closed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_for_a_person() {
        let listing = json!({
            "functions": [{"slot": "0:8:0", "device": "sim:demo"}, {"slot": "1:0:0", "device": "0000:01:00.0"}],
            "ports": [{"bus": 1, "state": "removing"}, {"bus": 2, "state": "empty"}],
        });
        let listed = text(&Command::List, listing).unwrap();
        assert_eq!(listed.lines().count(), 4, "{listed}");
        for (line, part) in listed.lines().skip(1).zip(["root bus", "asked to let go", "empty root port"]) {
            assert!(line.contains(part), "{listed}");
        }
        let remove = Command::Remove { slots: Vec::new(), force: false, timeout: 1 };
        let removed = json!({"removed": [{"slot": "1:0:0", "device": "x"}], "by_force": true});
        assert_eq!(text(&remove, removed).unwrap(), "1:0:0: x was taken away from the guest\n");
        assert!(text(&Command::Status, json!({})).is_err());
    }

    #[test]
    fn requests_are_checked_before_they_are_sent() {
        let add = |functions: &[&str]| Command::Add {
            functions: functions.iter().map(|f| f.to_string()).collect(),
        };
        let (asked, _) = request(&add(&["1:0:0=sim:demo"])).unwrap();
        assert_eq!(asked, json!({"command": "add", "functions": ["1:0:0=sim:demo"]}));
        assert!(request(&add(&["1:0:0"])).is_err());
        let remove = Command::Remove { slots: vec!["1:0:0".parse().unwrap()], force: true, timeout: 5 };
        let (asked, patience) = request(&remove).unwrap();
        assert_eq!(asked, json!({"command": "remove", "slots": ["1:0:0"], "force": true, "timeout": 5}));
        assert!(patience > Duration::from_secs(5));
    }
}
