//! Which processes have a function's device file open, whatever VMM they are.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use passthru::host::vfio::sysfs::SysfsFunction;

/// Where Linux lists processes.
const PROCESSES: &str = "/proc";

/// A process with an open device file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name as the kernel has it, up to 15 characters.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name.escape_debug())
    }
}

/// The processes that have the function's own file or that of its group open, by number. Other users' processes are seen by
/// root only. Members of a group have a file in common, so that the process may use another one of them.
pub fn of(function: &SysfsFunction) -> Vec<Holder> {
    of_in(Path::new(PROCESSES), function)
}

fn of_in(processes: &Path, function: &SysfsFunction) -> Vec<Holder> {
    let files = files(function);
    let Ok(entries) = fs::read_dir(processes) else { return Vec::new() };
    let pids: BTreeSet<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let has_open = |pid: &u32| {
        let descriptors = fs::read_dir(processes.join(pid.to_string()).join("fd"));
        let mut targets =
            descriptors.into_iter().flatten().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        targets.any(|target| files.iter().any(|file| target == Path::new(file)))
    };
    let holder = |pid: u32| {
        let name = fs::read_to_string(processes.join(pid.to_string()).join("comm")).unwrap_or_default();
        Holder { pid, name: name.trim_end().to_owned() }
    };
    pids.into_iter().filter(has_open).map(holder).collect()
}

/// The files by which the function can be opened.
fn files(function: &SysfsFunction) -> Vec<String> {
    let own = function.cdev.iter().map(|name| format!("/dev/vfio/devices/{name}"));
    let group = function
        .group
        .iter()
        .flat_map(|group| [format!("/dev/vfio/{group}"), format!("/dev/vfio/noiommu-{group}")]);
    own.chain(group).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use passthru::pci::bar::BarKind;

    use super::*;

    #[test]
    fn processes_are_found_by_what_they_have_open() {
        let processes = tempfile::tempdir().unwrap();
        for (pid, name, target) in [
            ("31", "slotpass\n", "/dev/vfio/14"),
            ("4", "qemu\n", "/dev/vfio/devices/vfio0"),
            ("5", "other\n", "/dev/vfio/1"),
            ("self", "no pid\n", "/dev/vfio/14"),
        ] {
            let directory = processes.path().join(pid);
            fs::create_dir_all(directory.join("fd")).unwrap();
            fs::write(directory.join("comm"), name).unwrap();
            symlink("/dev/null", directory.join("fd/0")).unwrap();
            symlink(target, directory.join("fd/3")).unwrap();
        }
        fs::create_dir(processes.path().join("6")).unwrap();
        let mut function = SysfsFunction {
            address: "0000:01:00.0".parse().unwrap(),
            driver: None,
            group: Some(14),
            file: None,
            cdev: Some("vfio0".to_owned()),
            resources: [(0, BarKind::Io); 6],
            rom: 0,
            ids: 0,
            class: 0,
        };
        let shown = |function: &SysfsFunction| {
            of_in(processes.path(), function).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown(&function), ["process 4 (qemu)", "process 31 (slotpass)"]);
        (function.group, function.cdev) = (None, None);
        assert!(shown(&function).is_empty());
    }
}
