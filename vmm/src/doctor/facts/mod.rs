//! What is known before anything is judged. All of it is read here, from sysfs, proc and device files; nothing is changed,
//! and no function is opened. A VM is made, of which nothing is left.

pub mod access;
mod control_groups;
pub mod function;
pub mod host;
pub mod iommu;
pub mod kvm;
pub mod process;

use std::collections::BTreeSet;

use passthru::host::vfio::sysfs;

use function::{Asked, Found, Function};
use host::Host;
use process::Process;

/// All of it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The host in general.
    pub host: Host,
    /// This process.
    pub process: Process,
    /// What was asked about.
    pub asked: Vec<Asked>,
}

impl Facts {
    /// The functions of this host among what was asked about.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.asked.iter().filter_map(|asked| match &asked.found {
            Found::Host(function) => Some(&**function),
            Found::Simulated(_) | Found::Nothing(_) => None,
        })
    }

    /// Functions are opened by their own files and iommufd.
    pub fn by_device_file(&self) -> bool {
        self.functions().next().is_some_and(|_| self.functions().all(|function| function.by_device_file))
    }

    /// The VFIO drivers that hold the functions, if there are any and all are held by one.
    pub fn vfio_drivers(&self) -> Vec<&str> {
        let held = self.functions().map(|function| function.sysfs.driver.as_deref());
        let drivers: Option<BTreeSet<&str>> =
            held.map(|driver| driver.filter(|driver| sysfs::is_vfio(driver))).collect();
        drivers.into_iter().flatten().collect()
    }
}
