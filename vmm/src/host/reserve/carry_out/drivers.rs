//! Functions and their drivers, by sysfs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use passthru::host::vfio::sysfs;
use passthru::pci::HostAddress;

use super::ChangeError;
use crate::host::reserve::change::Switch;
use crate::host::reserve::{Host, inventory};

/// Where modprobe is if `PATH` does not say so: a user who became root may not have these in it.
const SUPERUSER: &str = "/usr/sbin:/sbin";

/// More ids of one device a driver is not told.
const MOST_IDS: usize = 64;

fn modprobe(arguments: &[&str]) -> io::Result<std::process::Output> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("modprobe");
    command.args(arguments).env("PATH", format!("{path}:{SUPERUSER}")).stdin(Stdio::null()).output()
}

/// The modules that modprobe would load for a device, by name.
pub fn modules_for(modalias: &str) -> Vec<String> {
    let Ok(output) = modprobe(&["-q", "-R", modalias]) else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

pub fn load_vfio_pci(host: &Host) -> Result<(), ChangeError> {
    let is_there = || host.sysfs.join("bus/pci/drivers").join(sysfs::DRIVER).is_dir();
    if is_there() {
        return Ok(());
    }
    let why = match modprobe(&[sysfs::DRIVER]) {
        Ok(_) if is_there() => return Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            if said.is_empty() { format!("modprobe ended with {}", output.status) } else { said }
        }
        Err(error) => format!("cannot run modprobe: {error}"),
    };
    Err(ChangeError::NoDriver { why })
}

fn write(address: HostAddress, path: &Path, text: &str) -> Result<(), ChangeError> {
    let written =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| ChangeError::Sysfs { address, path: path.to_owned(), source })
}

fn directory(host: &Host, address: HostAddress) -> PathBuf {
    host.functions().join(address.to_string())
}

fn driver(host: &Host, address: HostAddress) -> Option<String> {
    sysfs::link_name(&directory(host, address).join("driver"))
}

fn set_override(host: &Host, address: HostAddress, driver: Option<&str>) -> Result<(), ChangeError> {
    let text = format!("{}\n", driver.unwrap_or_default());
    write(address, &directory(host, address).join("driver_override"), &text)
}

/// Takes it from whoever has it.
fn unbind(host: &Host, address: HostAddress) -> Result<(), ChangeError> {
    match write(address, &directory(host, address).join("driver/unbind"), &address.to_string()) {
        // Nobody has it, or it was just taken.
        Err(_) if driver(host, address).is_none() => Ok(()),
        written => written,
    }
}

/// Offers it to those drivers that may take it. That none did is no error of this.
fn probe(host: &Host, address: HostAddress) -> Result<(), ChangeError> {
    match write(address, &host.sysfs.join("bus/pci/drivers_probe"), &address.to_string()) {
        Err(_) if driver(host, address).is_some() => Ok(()),
        written => written,
    }
}

/// The override comes first, so that no driver of the host takes the function in between, and stays, so that none does when
/// modules are loaded later.
pub fn to_vfio(host: &Host, switch: &Switch) -> Result<(), ChangeError> {
    let address = switch.address;
    if switch.new_override() {
        set_override(host, address, Some(sysfs::DRIVER))?;
    }
    if !switch.is_vfio() {
        if switch.driver.is_some() {
            unbind(host, address)?;
        }
        probe(host, address)?;
    }
    match driver(host, address) {
        Some(now) if sysfs::is_vfio(&now) => Ok(()),
        now => Err(ChangeError::NotTaken { address, now }),
    }
}

/// Who has it then.
pub fn to_host(
    host: &Host,
    switch: &Switch,
    report: &mut dyn FnMut(String),
) -> Result<Option<String>, ChangeError> {
    let address = switch.address;
    if switch.clear_override() {
        set_override(host, address, None)?;
    }
    if switch.is_vfio() {
        unbind(host, address)?;
    }
    if driver(host, address).is_none() {
        // A host that was booted with the function reserved may not have loaded its driver. There may be none.
        if let Some(modalias) = &switch.modalias {
            let _ = modprobe(&["-q", modalias]);
        }
        probe(host, address)?;
    }
    if driver(host, address).as_deref() == Some(sysfs::DRIVER) && forget_ids(host, address)? {
        report(format!(
            "{address}: {} was told its ids, and forgot them until the next boot; for who says them then: \
             grep -r vfio-pci /etc/modprobe.d /proc/cmdline",
            sysfs::DRIVER
        ));
        unbind(host, address)?;
        probe(host, address)?;
    }
    match driver(host, address) {
        Some(now) if sysfs::is_vfio(&now) => Err(ChangeError::TakenAgain { address, now }),
        now => Ok(now),
    }
}

/// Has vfio-pci forget ids that it was told (its parameter `ids`, its file `new_id`), because of which it takes a function
/// that has no override. Whether it knew them.
pub fn forget_ids(host: &Host, address: HostAddress) -> Result<bool, ChangeError> {
    let id = |file| fs::read_to_string(directory(host, address).join(file)).unwrap_or_default();
    let number = |file| id(file).trim().trim_start_matches("0x").to_owned();
    let path = host.sysfs.join("bus/pci/drivers").join(sysfs::DRIVER).join("remove_id");
    let ids = format!("{} {}", number("vendor"), number("device"));
    let mut knew = false;
    // Each time it forgets one of those that are like these, with whatever subsystem.
    for _ in 0..MOST_IDS {
        match write(address, &path, &ids) {
            Err(ChangeError::Sysfs { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => break,
            written => written?,
        }
        knew = true;
    }
    Ok(knew)
}

/// Gives a function back to whom it was with.
pub fn restore(host: &Host, switch: &Switch) -> Result<(), ChangeError> {
    let address = switch.address;
    if inventory::driver_override(&directory(host, address)) != switch.driver_override {
        set_override(host, address, switch.driver_override.as_deref())?;
    }
    let now = driver(host, address);
    if now == switch.driver {
        return Ok(());
    }
    if now.is_some() {
        unbind(host, address)?;
    }
    let Some(old) = &switch.driver else { return Ok(()) };
    let bind = host.sysfs.join("bus/pci/drivers").join(old).join("bind");
    write(address, &bind, &address.to_string())
}
