//! `slotpass get` and `vms`.

use std::io;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Places, say_error, warn};
use crate::cli::exit;
use crate::cli::slots::print;
use crate::vms::description::{Shown, VmDescription};
use crate::vms::running::VmState;
use crate::vms::store::StoreError;
use crate::wording;

/// Prints a VM's description and state as JSON
#[derive(Debug, Args)]
pub struct Get {
    /// uuid or alias
    vm: String,
    #[command(flatten)]
    places: Places,
}

/// Lists VMs
#[derive(Debug, Args)]
pub struct Vms {
    /// Prints JSON: a list of what `get` prints
    #[arg(short, long, conflicts_with_all = ["parsable", "fields"])]
    json: bool,
    /// For programs: no heading, and `:` between values, with a backslash before each `:` and `\` in them
    #[arg(short, long, requires = "fields")]
    parsable: bool,
    /// Which columns
    #[arg(short = 'o', long = "output", value_name = "FIELD,…", value_delimiter = ',', ignore_case = true)]
    fields: Vec<Field>,
    #[command(flatten)]
    places: Places,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Field {
    Uuid,
    Alias,
    State,
    Pid,
    Memory,
    Cpus,
    Devices,
}

const USUAL: [Field; 6] =
    [Field::Uuid, Field::Alias, Field::State, Field::Memory, Field::Cpus, Field::Devices];

impl Field {
    fn name(self) -> &'static str {
        match self {
            Field::Uuid => "UUID",
            Field::Alias => "ALIAS",
            Field::State => "STATE",
            Field::Pid => "PID",
            Field::Memory => "MEMORY",
            Field::Cpus => "CPUS",
            Field::Devices => "DEVICES",
        }
    }

    /// What is not there is `--`, as with `list`.
    fn of(self, vm: &VmDescription, state: VmState) -> String {
        let missing = || "--".to_owned();
        match self {
            Field::Uuid => vm.uuid.to_string(),
            Field::Alias => vm.alias.clone().unwrap_or_else(missing),
            Field::State => state.name().to_owned(),
            Field::Pid => state.pid().map_or_else(missing, |pid| pid.to_string()),
            Field::Memory => wording::size(vm.file.memory.unwrap_or_default().bytes()),
            Field::Cpus => vm.file.cpus.unwrap_or(1).to_string(),
            Field::Devices if vm.devices().is_empty() => missing(),
            Field::Devices => {
                let devices: Vec<String> = vm
                    .devices()
                    .iter()
                    .map(|device| format!("{}={}", device.pci_slot, device.path))
                    .collect();
                devices.join(" ")
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("stdout: {0}")]
    Output(io::Error),
}

pub fn get(Get { vm, places }: Get) -> Result<(), ShowError> {
    let store = places.store();
    let vm = store.find(&vm)?;
    let json = serde_json::to_string_pretty(&Shown::new(&vm, store.state(vm.uuid)))?;
    print(&format!("{json}\n")).map_err(ShowError::Output)
}

/// Those that can be read are shown, whatever is wrong with others.
pub fn vms(arguments: Vms) -> ExitCode {
    match table(arguments) {
        Ok(errors) => {
            // Such as lost+found: it is nobody's VM.
            let (foreign, errors): (Vec<_>, Vec<_>) =
                errors.into_iter().partition(|error| matches!(error, StoreError::Foreign { .. }));
            warn(&foreign);
            errors.iter().for_each(say_error);
            if errors.is_empty() { ExitCode::SUCCESS } else { exit::FAILED }
        }
        Err(error) => {
            say_error(&error);
            exit::FAILED
        }
    }
}

fn table(Vms { json, parsable, fields, places }: Vms) -> Result<Vec<StoreError>, ShowError> {
    let store = places.store();
    let (mut vms, mut errors) = (Vec::new(), Vec::new());
    for vm in store.list()? {
        match vm {
            Ok(vm) => vms.push((store.state(vm.uuid), vm)),
            Err(error) => errors.push(error),
        }
    }
    let text = if json {
        let shown: Vec<Shown> = vms.iter().map(|(state, vm)| Shown::new(vm, *state)).collect();
        format!("{}\n", serde_json::to_string_pretty(&shown)?)
    } else {
        let fields = if fields.is_empty() { USUAL.to_vec() } else { fields };
        let values = |(state, vm): &(VmState, VmDescription)| -> Vec<String> {
            fields.iter().map(|field| field.of(vm, *state)).collect()
        };
        let rows = vms.iter().map(values);
        if parsable {
            rows.map(|row| for_program(&row)).collect()
        } else {
            let heading = fields.iter().map(|field| field.name().to_owned()).collect();
            in_columns(&[vec![heading], rows.collect()].concat())
        }
    };
    print(&text).map_err(ShowError::Output)?;
    Ok(errors)
}

/// As `list -p` has it.
fn for_program(row: &[String]) -> String {
    let escape = |value: &String| match row.len() {
        1 => value.clone(),
        _ => value.replace('\\', "\\\\").replace(':', "\\:"),
    };
    row.iter().map(escape).collect::<Vec<_>>().join(":") + "\n"
}

/// Each column as wide as its longest value; the last has no blanks after it.
fn in_columns(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column| rows.iter().filter_map(|row: &Vec<String>| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(value, width)| format!("{value:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let row = |values: &[&str]| values.iter().map(|value| value.to_string()).collect::<Vec<_>>();
        let rows = [row(&["UUID", "ALIAS", "X"]), row(&["1", "a-long-one", "2"]), row(&["3", "--", ""])];
        assert_eq!(in_columns(&rows), "UUID  ALIAS       X\n1     a-long-one  2\n3     --\n");
        assert_eq!(for_program(&row(&["a:b\\", "c"])), "a\\:b\\\\:c\n");
        assert_eq!(for_program(&row(&["0:8:0=x"])), "0:8:0=x\n");
    }
}
