//! Descriptions from what a user asks for, in vmadm's forms. Nothing here reads or writes a file.

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

use super::description::{self, FieldError, Fields, Reason, VmDescription, take_alias, typed, uuid_of};
use super::folders::absolute;
use super::running::VmState;
use super::slots::{self, Functions};
use crate::config::PciDevice;

const DEVICES: &str = "pci_devices";
const ADD: &str = "add_pci_devices";
const UPDATE: &str = "update_pci_devices";
const REMOVE: &str = "remove_pci_devices";

/// A new VM. It gets a uuid unless it has one.
pub fn create(mut fields: Fields, functions: &dyn Functions) -> Result<VmDescription, Vec<FieldError>> {
    fields.retain(|_, value| !value.is_null());
    let made = (|| {
        let uuid = fields.remove("uuid").map(uuid_of).transpose()?.unwrap_or_else(Uuid::new_v4);
        let alias = take_alias(&mut fields)?;
        if let Some((name, devices)) = added(&mut fields)? {
            fields.insert(DEVICES.to_owned(), Value::Array(new_devices(name, devices)?));
        }
        make_absolute(&mut fields, &["kernel", "initrd"]);
        VmDescription::new(uuid, alias, fields)
    })();
    checked(made, functions)
}

/// A VM with changes. Fields are replaced, or removed by null; devices come by `pci_devices` or `add_pci_devices`, change
/// by `update_pci_devices`, and go by `remove_pci_devices`, in the opposite order.
pub fn update(
    old: &VmDescription,
    mut change: Fields,
    state: VmState,
    functions: &dyn Functions,
) -> Result<VmDescription, Vec<FieldError>> {
    let made = (|| {
        if let Some(uuid) = change.remove("uuid")
            && uuid_of(uuid)? != old.uuid
        {
            return Err(FieldError::invalid("uuid", Reason::UuidChanged));
        }
        let alias = if change.contains_key("alias") { take_alias(&mut change)? } else { old.alias.clone() };
        let mut fields = old.fields.clone();
        let mut devices = match fields.remove(DEVICES) {
            Some(Value::Array(devices)) => devices,
            _ => Vec::new(),
        };
        let coming = added(&mut change)?;
        if let Some(paths) = change.remove(REMOVE) {
            remove(&mut devices, typed(REMOVE, paths)?, functions)?;
        }
        if let Some(updates) = change.remove(UPDATE) {
            update_devices(&mut devices, updates, functions)?;
        }
        if let Some((name, coming)) = coming {
            devices.extend(new_devices(name, coming)?);
        }
        // What is kept stays as it is: whoever changes it now may be in another folder.
        make_absolute(&mut change, &["kernel", "initrd"]);
        for (name, value) in change {
            if value.is_null() {
                // One that is not known is not removed in silence.
                description::understood(Fields::from_iter([(name.clone(), Value::Null)]))
                    .err()
                    .filter(|error| matches!(error, FieldError::Unknown { .. }))
                    .map_or(Ok(()), Err)?;
                fields.remove(&name);
            } else {
                fields.insert(name, value);
            }
        }
        if !devices.is_empty() {
            fields.insert(DEVICES.to_owned(), Value::Array(devices));
        }
        let new = VmDescription::new(old.uuid, alias, fields)?;
        only_stopped(old, &new, state)?;
        Ok(new)
    })();
    checked(made, functions)
}

fn checked(
    made: Result<VmDescription, FieldError>,
    functions: &dyn Functions,
) -> Result<VmDescription, Vec<FieldError>> {
    let vm = made.map_err(|error| vec![error])?;
    slots::check(&vm, functions)?;
    Ok(vm)
}

/// What a running VM's process has read and does not read again.
fn only_stopped(old: &VmDescription, new: &VmDescription, state: VmState) -> Result<(), FieldError> {
    let Some(pid) = state.pid() else { return Ok(()) };
    let names = old.fields.keys().chain(new.fields.keys());
    let mut changed = names.filter(|name| old.fields.get(*name) != new.fields.get(*name));
    changed.next().map_or(Ok(()), |field| {
        Err(FieldError::OnlyStopped { field: field.clone(), state: state.name(), pid })
    })
}

/// The devices that come, and the name of the field that has them.
fn added(fields: &mut Fields) -> Result<Option<(&'static str, Value)>, FieldError> {
    match (fields.remove(DEVICES), fields.remove(ADD)) {
        (Some(_), Some(_)) => Err(FieldError::BothLists),
        (Some(devices), None) => Ok(Some((DEVICES, devices))),
        (None, Some(devices)) => Ok(Some((ADD, devices))),
        (None, None) => Ok(None),
    }
}

/// Devices as they are kept.
fn new_devices(name: &str, devices: Value) -> Result<Vec<Value>, FieldError> {
    let mut devices: Vec<Fields> = typed(name, devices)?;
    for (at, device) in devices.iter_mut().enumerate() {
        let field = format!("{name}.{at}");
        device.retain(|_, value| !value.is_null());
        make_absolute(device, &["rom"]);
        // vmadm shows it for each device, and takes it back.
        if device.remove("model").is_some_and(|model| model != "passthru") {
            return Err(FieldError::invalid(format!("{field}.model"), Reason::Model));
        }
        typed::<PciDevice>(&field, Value::Object(device.clone()))?;
        if device.get("path").is_some_and(|path| path == "") {
            return Err(FieldError::Missing { field: format!("{field}.path") });
        }
    }
    Ok(devices.into_iter().map(Value::Object).collect())
}

fn understood(devices: &[Value]) -> Result<Vec<PciDevice>, FieldError> {
    typed(DEVICES, Value::Array(devices.to_vec()))
}

fn remove(devices: &mut Vec<Value>, paths: Vec<String>, functions: &dyn Functions) -> Result<(), FieldError> {
    for (number, path) in paths.iter().enumerate() {
        let field = format!("{REMOVE}.{number}");
        let at = slots::position(&understood(devices)?, path, &field, functions)?;
        devices.remove(at);
    }
    Ok(())
}

/// One device's changes. What is not given stays; null takes it away.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceUpdate {
    path: String,
    #[serde(default, deserialize_with = "given")]
    pci_slot: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    port: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    rom: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    msix_page: Option<Value>,
    model: Option<String>,
}

/// null is given as well.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn update_devices(
    devices: &mut [Value],
    updates: Value,
    functions: &dyn Functions,
) -> Result<(), FieldError> {
    let updates: Vec<DeviceUpdate> = typed(UPDATE, updates)?;
    for (number, update) in updates.into_iter().enumerate() {
        let field = format!("{UPDATE}.{number}");
        if update.model.is_some_and(|model| model != "passthru") {
            return Err(FieldError::invalid(format!("{field}.model"), Reason::Model));
        }
        let path = format!("{field}.path");
        let at = slots::position(&understood(devices)?, &update.path, &path, functions)?;
        let Some(device) = devices.get_mut(at).and_then(Value::as_object_mut) else { continue };
        let gives_rom = update.rom.is_some();
        let changes = [
            ("pci_slot", update.pci_slot),
            ("port", update.port),
            ("rom", update.rom),
            ("msix_page", update.msix_page),
        ];
        for (name, value) in changes.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            match value {
                Value::Null => device.remove(name),
                value => device.insert(name.to_owned(), value),
            };
        }
        if gives_rom {
            make_absolute(device, &["rom"]);
        }
        typed::<PciDevice>(&field, Value::Object(device.clone()))?;
    }
    Ok(())
}

/// Files keep their meaning in the process that opens them, which runs in another folder.
fn make_absolute(fields: &mut Fields, names: &[&str]) {
    for name in names {
        if let Some(Value::String(path)) = fields.get_mut(*name)
            && !path.is_empty()
            && let Some(absolute) = absolute(Path::new(path)).to_str()
        {
            *path = absolute.to_owned();
        }
    }
}

/// A change from arguments, as vmadm takes them: `alias=web`, `cpus=2`, `initrd=`, which removes it.
pub fn from_arguments<'a>(
    arguments: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Fields, FieldError> {
    /// Their values are texts, whatever they look like.
    const TEXTS: [&str; 11] = [
        "uuid",
        "alias",
        "kernel",
        "initrd",
        "cmdline",
        "memory",
        "iommufd",
        "on_error",
        "on_request",
        "port_window",
        "disable_exits",
    ];
    let value = |name: &str, text: &str| match text {
        "" => Ok(Value::Null),
        text if TEXTS.contains(&name) => Ok(text.into()),
        text => {
            serde_json::from_str(text).map_err(|error| FieldError::invalid(name, Reason::Argument(error)))
        }
    };
    arguments.into_iter().map(|(name, text)| Ok((name.to_owned(), value(name, text)?))).collect()
}
