//! What is kept of a VM: its JSON as it was given, checked.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::config::{IncompleteError, PciDevice, VmFile};
use crate::machine::UseIommufd;
use crate::slot_map::SlotMapError;

/// JSON fields by name.
pub type Fields = Map<String, Value>;

/// Bytes of an alias at most, as vmadm has it.
const LONGEST_ALIAS: usize = 189;

/// A VM as it is kept.
#[derive(Clone, Debug)]
pub struct VmDescription {
    /// Its name.
    pub uuid: Uuid,
    /// What its user calls it.
    pub alias: Option<String>,
    /// All fields but these two, as they are kept.
    pub fields: Fields,
    /// The same, understood.
    pub file: VmFile,
}

/// Why fields describe no VM. `field` is as vmadm names it: `pci_devices.1.pci_slot`.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// Both lists of devices.
    #[error("Cannot specify both \"pci_devices\" and \"add_pci_devices\"")]
    BothLists,
    /// A field is not there that has to be.
    #[error("Missing required properties: {field}")]
    Missing {
        /// Which one.
        field: String,
    },
    /// A field that nothing has.
    #[error("Unknown property: {field}{}", there_are(.known))]
    Unknown {
        /// Which one.
        field: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A field that cannot be what it is.
    #[error("Invalid value(s) for: {field}: {reason}")]
    Invalid {
        /// Which one.
        field: String,
        /// Why not.
        reason: Reason,
    },
    /// Only while the VM does not run.
    #[error(
        "updates to {field} are only allowed when state is \"stopped\", currently: {state} (process {pid})"
    )]
    OnlyStopped {
        /// Which field.
        field: String,
        /// The VM's state.
        state: &'static str,
        /// Its process.
        pid: u32,
    },
}

/// Why a field's value is none.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Not of its kind.
    #[error("{0}")]
    Json(serde_json::Error),
    /// Slots and functions that do not go together.
    #[error(transparent)]
    Slot(Box<SlotMapError>),
    /// Processors, or nothing to boot.
    #[error(transparent)]
    Incomplete(IncompleteError),
    /// Not an alias.
    #[error(
        "an alias has 1 to {LONGEST_ALIAS} letters, digits, '_', '.' and '-', begins with a letter or digit and is no uuid"
    )]
    Alias,
    /// Another VM has it.
    #[error("VM {0} has this alias; an alias names one VM")]
    AliasTaken(Uuid),
    /// Not a uuid.
    #[error("{0}")]
    Uuid(uuid::Error),
    /// There is such a VM already.
    #[error("there is a VM with this uuid already")]
    UuidTaken,
    /// The uuid is the VM's name for good.
    #[error("a VM keeps its uuid")]
    UuidChanged,
    /// Not what vmadm has there.
    #[error("only \"passthru\" can be given")]
    Model,
    /// A number of an open file.
    #[error("an open file of another process cannot be kept; name the device itself")]
    OpenFile,
    /// The VM has it elsewhere.
    #[error(
        "a VM by name has its control socket in its own folder; leave this out, and use slotpass ctl --vm"
    )]
    Control,
    /// No device of this VM.
    #[error("{path} is in no slot of this VM; in its slots is {there}")]
    NoSuchDevice {
        /// As given.
        path: String,
        /// What there is.
        there: Listed,
    },
    /// More than one.
    #[error("{path} is in {times} slots of this VM, so it does not say which one is meant")]
    Ambiguous {
        /// As given.
        path: String,
        /// In how many.
        times: usize,
    },
    /// An argument that is not of its form.
    #[error("not JSON: {0}")]
    Argument(serde_json::Error),
}

/// Names in a message, or "nothing".
#[derive(Debug)]
pub struct Listed(pub Vec<String>);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("nothing") } else { f.write_str(&self.0.join(", ")) }
    }
}

fn there_are(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; there are: {}", known.join(", ")) }
}

impl FieldError {
    /// Of a field.
    pub fn invalid(field: impl Into<String>, reason: Reason) -> FieldError {
        FieldError::Invalid { field: field.into(), reason }
    }
}

/// Reads a value as a `T`. `field` is what leads to it, empty for the whole of a description.
pub fn typed<T: DeserializeOwned>(field: &str, value: Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        // `pci_devices[0].pci_slot` in serde's words.
        let path = path.replace('[', ".").replace(']', "");
        let inside = if matches!(path.as_str(), "." | "?") { "" } else { path.trim_start_matches('.') };
        let field = [field, inside].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        classify(field, error.into_inner())
    })
}

/// serde says in words only what vmadm has errors of their own for.
fn classify(field: String, error: serde_json::Error) -> FieldError {
    let text = error.to_string();
    let names =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    if let Some(name) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let parts = [field.as_str(), name];
        let field = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        return FieldError::Missing { field };
    }
    if text.starts_with("unknown field `") {
        let mut names = names(&text).into_iter();
        let name = names.next().unwrap_or_default();
        // Some paths end in the unknown name and some before it.
        let field = match field.rsplit('.').next() {
            Some(last) if last == name => field,
            _ if field.is_empty() => name,
            _ => format!("{field}.{name}"),
        };
        return FieldError::Unknown { field, known: names.collect() };
    }
    let field = if field.is_empty() { "the description".to_owned() } else { field };
    FieldError::Invalid { field, reason: Reason::Json(error) }
}

/// Reads fields but `uuid` and `alias`.
pub fn understood(fields: Fields) -> Result<VmFile, FieldError> {
    typed("", Value::Object(fields)).map_err(|error| match error {
        // Of the description itself, and not of a device.
        FieldError::Unknown { field, known } if !field.contains('.') => {
            let others = known.into_iter().filter(|name| name != "control");
            FieldError::Unknown {
                field,
                known: ["uuid", "alias"].map(str::to_owned).into_iter().chain(others).collect(),
            }
        }
        error => error,
    })
}

/// Checks an alias.
pub fn alias(text: &str) -> Result<(), FieldError> {
    let fits = text.len() <= LONGEST_ALIAS
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && Uuid::try_parse(text).is_err();
    if fits { Ok(()) } else { Err(FieldError::invalid("alias", Reason::Alias)) }
}

/// Takes the alias out of fields; null is none.
pub fn take_alias(fields: &mut Fields) -> Result<Option<String>, FieldError> {
    let Some(value) = fields.remove("alias") else { return Ok(None) };
    let given: Option<String> = typed("alias", value)?;
    given.as_deref().map_or(Ok(()), alias)?;
    Ok(given)
}

impl VmDescription {
    /// Understands fields, without `uuid` and `alias`.
    pub fn new(uuid: Uuid, alias: Option<String>, mut fields: Fields) -> Result<VmDescription, FieldError> {
        // No devices are described in one way only, so that a list of none does not look like a change.
        fields.retain(|name, value| name != "pci_devices" || !value.as_array().is_some_and(Vec::is_empty));
        let file = understood(fields.clone())?;
        if file.control.is_some() {
            return Err(FieldError::invalid("control", Reason::Control));
        }
        if matches!(file.iommufd, Some(UseIommufd::File(_))) {
            return Err(FieldError::invalid("iommufd", Reason::OpenFile));
        }
        if let Some(at) = file.pci_devices.iter().position(|device| device.path.starts_with("fd:")) {
            return Err(FieldError::invalid(format!("pci_devices.{at}.path"), Reason::OpenFile));
        }
        match file.clone().description() {
            Err(IncompleteError::NoKernel) => {
                return Err(FieldError::Missing { field: "kernel".to_owned() });
            }
            Err(error @ IncompleteError::Cpus(_)) => {
                return Err(FieldError::invalid("cpus", Reason::Incomplete(error)));
            }
            Ok(_) => {}
        }
        Ok(VmDescription { uuid, alias, fields, file })
    }

    /// Understands a file's contents.
    pub fn parse(text: &str) -> Result<VmDescription, FieldError> {
        let whole = |error| FieldError::invalid("the description", Reason::Json(error));
        let mut fields: Fields = serde_json::from_str(text).map_err(whole)?;
        let uuid = match fields.remove("uuid") {
            Some(value) => uuid_of(value)?,
            None => return Err(FieldError::Missing { field: "uuid".to_owned() }),
        };
        let alias = take_alias(&mut fields)?;
        VmDescription::new(uuid, alias, fields)
    }

    /// As it is written.
    pub fn to_json(&self) -> Value {
        let mut all = self.fields.clone();
        all.insert("uuid".to_owned(), self.uuid.to_string().into());
        if let Some(alias) = &self.alias {
            all.insert("alias".to_owned(), alias.clone().into());
        }
        Value::Object(all)
    }

    /// For messages: the uuid, and the alias behind it.
    pub fn name(&self) -> String {
        match &self.alias {
            Some(alias) => format!("{} ({alias})", self.uuid),
            None => self.uuid.to_string(),
        }
    }

    /// The devices.
    pub fn devices(&self) -> &[PciDevice] {
        &self.file.pci_devices
    }
}

/// A uuid as a field has it.
pub fn uuid_of(value: Value) -> Result<Uuid, FieldError> {
    let text: String = typed("uuid", value)?;
    Uuid::try_parse(&text).map_err(|error| FieldError::invalid("uuid", Reason::Uuid(error)))
}

/// A VM for a program: its fields, what it does, and its devices as vmadm shows them.
#[derive(Debug, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    fields: Fields,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    crashed: bool,
}

impl Shown {
    /// Of a VM with this state.
    pub fn new(vm: &VmDescription, state: super::running::VmState) -> Shown {
        let Value::Object(mut fields) = vm.to_json() else { return Shown::new_empty(state) };
        if let Some(Value::Array(devices)) = fields.get_mut("pci_devices") {
            for device in devices.iter_mut().filter_map(Value::as_object_mut) {
                device.insert("model".to_owned(), "passthru".into());
            }
        }
        Shown { fields, ..Shown::new_empty(state) }
    }

    fn new_empty(state: super::running::VmState) -> Shown {
        Shown { fields: Fields::new(), state: state.name(), pid: state.pid(), crashed: state.is_crashed() }
    }
}
