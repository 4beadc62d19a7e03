//! Where VMs are kept, and where those that run have their sockets.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Names the folder of descriptions and logs where `--state-dir` does not.
pub const STATE_VARIABLE: &str = "SLOTPASS_STATE_DIR";
/// Names the folder of sockets and records where `--run-dir` does not.
pub const RUN_VARIABLE: &str = "SLOTPASS_RUN_DIR";

const STATE: &str = "/var/lib/slotpass";
const RUN: &str = "/run/slotpass";

/// The two folders of all VMs; absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Descriptions and logs, in a folder for each VM. It outlives the host.
    pub state: PathBuf,
    /// Locks, sockets, and the records of functions, which end with the host.
    pub run: PathBuf,
}

impl Folders {
    /// Those that were given, else those that the environment names, else those of this user: root's are
    /// `/var/lib/slotpass` and `/run/slotpass`; others' are below `$XDG_STATE_HOME` (`~/.local/state`) and
    /// `$XDG_RUNTIME_DIR`.
    pub fn choose(state: Option<PathBuf>, run: Option<PathBuf>) -> Folders {
        let is_root = rustix::process::geteuid().is_root();
        choose(state, run, is_root, |name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// Those of root where neither arguments nor the environment name others.
    pub fn of_root() -> Folders {
        Folders { state: STATE.into(), run: RUN.into() }
    }

    /// What is kept of a VM.
    pub fn of_vm(&self, vm: Uuid) -> VmFolders {
        VmFolders { state: self.state.join(vm.to_string()), run: self.run.join(vm.to_string()) }
    }

    /// The records of functions.
    pub fn devices(&self) -> PathBuf {
        self.run.join("devices")
    }
}

fn choose(
    state: Option<PathBuf>,
    run: Option<PathBuf>,
    is_root: bool,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Folders {
    let path = |name| variable(name).map(PathBuf::from);
    let of_user = |base: Option<PathBuf>, fixed: &str| {
        base.filter(|_| !is_root).map_or_else(|| PathBuf::from(fixed), |base| base.join("slotpass"))
    };
    let home = || path("HOME").map(|home| home.join(".local/state"));
    let state = state
        .or_else(|| path(STATE_VARIABLE))
        .unwrap_or_else(|| of_user(path("XDG_STATE_HOME").or_else(home), STATE));
    let run = run.or_else(|| path(RUN_VARIABLE)).unwrap_or_else(|| of_user(path("XDG_RUNTIME_DIR"), RUN));
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    Folders { state: absolute(state), run: absolute(run) }
}

/// The two folders of one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFolders {
    /// Its description and logs.
    pub state: PathBuf,
    /// Its lock and sockets.
    pub run: PathBuf,
}

impl VmFolders {
    /// What is kept of it.
    pub fn description(&self) -> PathBuf {
        self.state.join("vm.json")
    }

    /// What slotpass says about it.
    pub fn platform_log(&self) -> PathBuf {
        self.state.join("platform.log")
    }

    /// What its serial port said.
    pub fn console_log(&self) -> PathBuf {
        self.state.join("console.log")
    }

    /// Held by its process.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// Where its process is asked for things.
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Its serial port.
    pub fn console_socket(&self) -> PathBuf {
        self.run.join("console.sock")
    }
}

/// A path as it is in every folder.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_root_and_of_others() {
        let all = [
            ("HOME", "/home/u"),
            ("XDG_STATE_HOME", "/home/u/state"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            (STATE_VARIABLE, "/s"),
            (RUN_VARIABLE, "/r"),
        ];
        for (variables, given, is_root, state, run) in [
            (&all[..], true, false, "/given", "/given"),
            (&all[..], false, true, "/s", "/r"),
            (&all[..3], false, true, "/var/lib/slotpass", "/run/slotpass"),
            (&all[..3], false, false, "/home/u/state/slotpass", "/run/user/7/slotpass"),
            (&all[..1], false, false, "/home/u/.local/state/slotpass", "/run/slotpass"),
            (&[], false, false, "/var/lib/slotpass", "/run/slotpass"),
        ] {
            let given = || given.then(|| PathBuf::from("/given"));
            let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
            let folders = choose(given(), given(), is_root, variable);
            assert_eq!(folders, Folders { state: state.into(), run: run.into() });
        }
    }
}
