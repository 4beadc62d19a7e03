//! The states that a list shows: those of VMs by name, and for other functions who has them open.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::Path;

use passthru::host::vfio::sysfs::{self, SysfsFunction};

use crate::host::holders::{self, Hidden, Holders};
use crate::vms::store::StoreError;
use crate::vms::{DeviceState, DeviceStates, Folders};

/// What is known of functions.
pub struct States {
    own: DeviceStates,
    /// Root has VMs by name, or had some, which others are not told of.
    has_hidden_vms: bool,
    is_unknown: Cell<bool>,
}

impl States {
    /// Of this user's VMs.
    pub fn read() -> Result<States, StoreError> {
        let is_root = rustix::process::geteuid().is_root();
        States::read_in(&Folders::choose(None, None), &Folders::of_root(), is_root)
    }

    fn read_in(own: &Folders, of_root: &Folders, is_root: bool) -> Result<States, StoreError> {
        let has_hidden_vms =
            !is_root && own != of_root && (may_be_there(&of_root.state) || may_be_there(&of_root.devices()));
        Ok(States { own: DeviceStates::read(own)?, has_hidden_vms, is_unknown: Cell::new(false) })
    }

    /// Of one function, where it is known.
    pub fn of(&self, function: &SysfsFunction) -> Option<String> {
        self.of_by(function, holders::of)
    }

    fn of_by(&self, function: &SysfsFunction, holders: impl Fn(&SysfsFunction) -> Holders) -> Option<String> {
        let state = self.own.of(function.address);
        if let DeviceState::Used { .. } | DeviceState::Dirty { .. } = state {
            return Some(state.to_string());
        }
        // Whoever uses it without a name, this program or another one.
        let is_bound = function.driver.as_deref().is_some_and(sysfs::is_vfio);
        let holders = is_bound.then(|| holders(function));
        if let Some(holder) = holders.as_ref().and_then(|holders| holders.seen.first()) {
            return Some(format!("used:{holder}"));
        }
        if self.has_hidden_vms || holders.is_some_and(|holders| holders.hidden != Hidden::None) {
            self.is_unknown.set(true);
            return None;
        }
        Some(state.to_string())
    }

    /// What is said if the state of a function was not known.
    pub fn remark(&self) -> Option<&'static str> {
        self.is_unknown.get().then_some(
            "states that are not known are --: what other users' VMs and processes have is told to root only; run with sudo",
        )
    }
}

/// One that cannot be looked for may be there.
fn may_be_there(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use passthru::pci::bar::BarKind;

    use super::*;
    use crate::host::holders::Holder;

    fn function(address: &str, driver: Option<&str>) -> SysfsFunction {
        SysfsFunction {
            address: address.parse().unwrap(),
            driver: driver.map(str::to_owned),
            group: Some(14),
            file: None,
            cdev: None,
            resources: [(0, BarKind::Io); 6],
            rom: 0,
            ids: 0,
            class: 0,
        }
    }

    #[test]
    fn states_are_those_of_vms_and_else_of_processes() {
        let folder = tempfile::tempdir().unwrap();
        let folders = |name: &str| Folders {
            state: folder.path().join(name).join("s"),
            run: folder.path().join(name).join("r"),
        };
        let (own, absent, of_root) = (folders("own"), folders("absent"), folders("root"));
        fs::create_dir_all(own.devices()).unwrap();
        fs::create_dir_all(of_root.devices()).unwrap();
        let record = r#"{"uuid":"x","slot":"0:8:0","pid":7}"#;
        fs::write(own.devices().join("00fe:01:00.0"), record).unwrap();
        let qemu = Holder { pid: 31, name: "qemu".to_owned() };
        let qemu = Holders { seen: vec![qemu], hidden: Hidden::Open(1) };
        let nobody = Holders { seen: Vec::new(), hidden: Hidden::None };
        let hidden = Holders { seen: Vec::new(), hidden: Hidden::Open(1) };
        let used = Some("used:process 31 (qemu)");
        for (address, driver, of_root, is_root, expected) in [
            // When a process is seen to have it open, when none has, and when one that is not seen may have.
            ("00fe:01:00.0", Some("vfio-pci"), &absent, true, [Some("dirty:x"); 3]),
            ("00fe:02:00.0", Some("vfio-pci"), &absent, true, [used, Some("unassigned"), None]),
            ("00fe:02:00.0", Some("nvme"), &absent, true, [Some("unassigned"); 3]),
            ("00fe:02:00.0", Some("vfio-pci"), &absent, false, [used, Some("unassigned"), None]),
            ("00fe:02:00.0", Some("nvme"), &absent, false, [Some("unassigned"); 3]),
            ("00fe:01:00.0", Some("nvme"), &of_root, false, [Some("dirty:x"); 3]),
            ("00fe:02:00.0", Some("vfio-pci"), &of_root, false, [used, None, None]),
            ("00fe:02:00.0", Some("nvme"), &of_root, false, [None; 3]),
            ("00fe:02:00.0", Some("nvme"), &of_root, true, [Some("unassigned"); 3]),
        ] {
            let states = States::read_in(&own, of_root, is_root).unwrap();
            let function = function(address, driver);
            let found = [&qemu, &nobody, &hidden].map(|holders| states.of_by(&function, |_| holders.clone()));
            assert_eq!(found.each_ref().map(Option::as_deref), expected, "{address} {driver:?} {is_root}");
            assert_eq!(states.remark().is_some(), found.contains(&None));
        }
    }
}
