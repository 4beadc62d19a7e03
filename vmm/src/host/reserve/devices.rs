//! Which functions a user means.

use passthru::host::vfio::{OpenError, sysfs};
use passthru::pci::HostAddress;

use super::Host;
use super::inventory::{Function, Inventory};
use super::refusal::Refusal;
use crate::host::physical_path;

/// The functions with these names, each once: an address, a directory in sysfs, a physical path.
pub fn find<'a>(
    host: &Host,
    inventory: &'a Inventory,
    names: &[String],
) -> Result<Vec<&'a Function>, Refusal> {
    let mut found: Vec<&Function> = Vec::new();
    for name in names {
        let function = one(host, inventory, name)?;
        if !found.iter().any(|other| other.address() == function.address()) {
            found.push(function);
        }
    }
    Ok(found)
}

/// The function with this name.
pub fn one<'a>(host: &Host, inventory: &'a Inventory, name: &str) -> Result<&'a Function, Refusal> {
    let unknown = || Refusal::Unknown(OpenError::UnknownDevice { name: name.to_owned() });
    let address: HostAddress = if physical_path::is_physical(name) {
        physical_path::find_in(&host.sysfs, name)?
    } else {
        sysfs::find_in(&host.functions(), name)?.address
    };
    inventory.get(address).ok_or_else(unknown)
}
