//! `slotpass create`, `update` and `delete`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Places, warn};
use crate::cli::slots::print;
use crate::vms::changes;
use crate::vms::description::{FieldError, Fields};
use crate::vms::stop::{self, StopError};
use crate::vms::store::StoreError;

/// Bytes of JSON at most.
const LONGEST: u64 = 1 << 20;

/// Keeps a new VM, and prints its uuid
///
/// Its description is JSON, as with run --config, with `uuid` and `alias` beside. Slots are checked at once.
#[derive(Debug, Args)]
pub struct Create {
    /// Reads the description from a file instead of stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

/// Changes a VM's description
///
/// A field of the JSON replaces one; null removes it. Devices come by add_pci_devices (or pci_devices), change by
/// update_pci_devices and go by remove_pci_devices, a list of paths. While the VM runs, only its alias can be changed.
#[derive(Debug, Args)]
pub struct Update {
    /// uuid or alias
    vm: String,
    /// Changes, instead of JSON
    #[arg(value_name = "FIELD=VALUE", conflicts_with = "file")]
    changes: Vec<String>,
    /// Reads the changes from a file instead of stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

/// Removes a VM's description and logs
#[derive(Debug, Args)]
pub struct Delete {
    /// uuid or alias
    vm: String,
    /// Ends the VM first if it runs, without asking its guest
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("{name}: {source}")]
    Read { name: String, source: io::Error },
    #[error("{name}:{}:{}: {}", .source.line(), .source.column(), without_position(.source))]
    Json { name: String, source: serde_json::Error },
    #[error("'{0}' is not FIELD=VALUE")]
    Argument(String),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stop(#[from] StopError),
    #[error("stdout: {0}")]
    Output(io::Error),
}

/// serde_json ends its messages with the position.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&position).unwrap_or(&message).to_owned()
}

/// The fields that are in a file, or on stdin.
fn read(file: Option<&Path>) -> Result<Fields, ChangeError> {
    let name = file.map_or_else(|| "stdin".to_owned(), |file| file.display().to_string());
    let mut text = String::new();
    let read = match file {
        Some(file) => File::open(file).and_then(|file| file.take(LONGEST).read_to_string(&mut text)),
        None => io::stdin().lock().take(LONGEST).read_to_string(&mut text),
    };
    read.map_err(|source| ChangeError::Read { name: name.clone(), source })?;
    serde_json::from_str(&text).map_err(|source| ChangeError::Json { name, source })
}

pub fn create(Create { file, places }: Create) -> Result<(), ChangeError> {
    let fields = read(file.as_deref())?;
    let (vm, warnings) = places.store().create(fields)?;
    warn(&warnings);
    print(&format!("{}\n", vm.uuid)).map_err(ChangeError::Output)
}

pub fn update(Update { vm, changes, file, places }: Update) -> Result<(), ChangeError> {
    let change = if changes.is_empty() {
        read(file.as_deref())?
    } else {
        let pairs = changes
            .iter()
            .map(|text| text.split_once('=').ok_or_else(|| ChangeError::Argument(text.clone())))
            .collect::<Result<Vec<_>, _>>()?;
        changes::from_arguments(pairs)?
    };
    warn(&places.store().update(&vm, change)?);
    Ok(())
}

pub fn delete(Delete { vm, force, places }: Delete) -> Result<(), ChangeError> {
    let store = places.store();
    let uuid = store.uuid_of(&vm)?;
    if force && store.state(uuid).pid().is_some() {
        match stop::force(&store.folders().of_vm(uuid), uuid, &store.name(uuid)) {
            // It ended by itself meanwhile.
            Err(StopError::Stopped { .. }) => {}
            stopped => stopped?,
        }
    }
    Ok(store.delete(uuid)?)
}
