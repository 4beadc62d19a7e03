//! Which processes have a function's device file open, whatever VMM they are.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use passthru::host::vfio::sysfs::{self, SysfsFunction};
use passthru::pci::HostAddress;

/// Where Linux lists processes.
const PROCESSES: &str = "/proc";
/// Directory of a function with the name of its device file.
const CDEV_CLASS: &str = "vfio-dev";
/// Where the kernel has the device files of functions.
const DEVICE_FILES: &str = "/dev/vfio/devices/";
/// What an open function is called that was opened by group (`vfio_device_open_file` in `drivers/vfio/group.c`).
const OPENED_BY_GROUP: &str = "anon_inode:[vfio-device]";
/// The namespace in which all processes of the host are (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
const ALL_PROCESSES: &str = "pid:[4026531836]";

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

/// Who has a function open, as far as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    /// Those it sees, by number.
    pub seen: Vec<Holder>,
    /// Those it does not.
    pub hidden: Hidden,
}

/// Whether processes that this one does not see may have a function open: those of other users, of which root alone is told,
/// and those outside of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// No: all processes were looked at, or none of them has any function of its driver open.
    None,
    /// They have this many functions open that its driver holds, and it may be among them.
    Open(u64),
    /// It is not known: its driver is part of the kernel, which does not count.
    Unknown,
}

/// The processes that have the function's own file open, that of its group, or that of another member of its group, which nobody
/// else can have then.
pub fn of(function: &SysfsFunction) -> Holders {
    of_in(Path::new(PROCESSES), Path::new(sysfs::DEVICES), function.address)
}

fn of_in(processes: &Path, devices: &Path, address: HostAddress) -> Holders {
    let directory = devices.join(address.to_string());
    let files = files(&directory);
    let view = View::of(processes);
    let seen = view.opened.iter().filter(|opened| !opened.files.is_disjoint(&files));
    let seen = seen.map(|opened| holder(processes, opened.pid)).collect();
    // The kernel counts functions of a driver that are open as uses of its module (`vfio_df_device_first_open`).
    let count = fs::read_to_string(directory.join("driver/module/refcnt")).ok();
    let hidden = match count.and_then(|count| count.trim().parse::<u64>().ok()) {
        _ if view.is_whole => Hidden::None,
        None => Hidden::Unknown,
        Some(count) => match count.saturating_sub(view.functions()) {
            0 => Hidden::None,
            others => Hidden::Open(others),
        },
    };
    Holders { seen, hidden }
}

/// What is seen of all processes.
struct View {
    opened: Vec<Opened>,
    /// Functions' own files that they have open. One that is handed on is still one.
    device_files: BTreeSet<PathBuf>,
    /// Functions that they opened by group.
    by_group: u64,
    /// No process is hidden.
    is_whole: bool,
}

/// What a process has open of VFIO's.
struct Opened {
    pid: u32,
    files: BTreeSet<PathBuf>,
}

impl View {
    fn of(processes: &Path) -> View {
        let namespace = fs::read_link(processes.join("self/ns/pid"));
        let entries = fs::read_dir(processes).into_iter().flatten().flatten();
        let pids: BTreeSet<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // Without the first of all, /proc lists this user's alone (`hidepid`).
        let is_all =
            namespace.is_ok_and(|namespace| namespace == Path::new(ALL_PROCESSES)) && pids.contains(&1);
        let mut view =
            View { opened: Vec::new(), device_files: BTreeSet::new(), by_group: 0, is_whole: is_all };
        for pid in pids {
            view.add(processes, pid);
        }
        view
    }

    /// Functions that they have open.
    fn functions(&self) -> u64 {
        self.by_group.saturating_add(self.device_files.len() as u64)
    }

    fn add(&mut self, processes: &Path, pid: u32) {
        let descriptors = match fs::read_dir(processes.join(pid.to_string()).join("fd")) {
            Ok(descriptors) => descriptors,
            // One that has ended meanwhile hides nothing.
            Err(error) => {
                self.is_whole = self.is_whole && error.kind() == io::ErrorKind::NotFound;
                return;
            }
        };
        let mut files = BTreeSet::new();
        for descriptor in descriptors.flatten() {
            let target = match fs::read_link(descriptor.path()) {
                Ok(target) => target,
                Err(error) => {
                    // Capabilities may open the directory to those that may not follow what is in there.
                    self.is_whole = self.is_whole && error.kind() == io::ErrorKind::NotFound;
                    continue;
                }
            };
            if target == Path::new(OPENED_BY_GROUP) {
                self.by_group += 1;
            }
            if target.starts_with(DEVICE_FILES) {
                self.device_files.insert(target.clone());
            }
            if target.starts_with("/dev/vfio") {
                files.insert(target);
            }
        }
        if !files.is_empty() {
            self.opened.push(Opened { pid, files });
        }
    }
}

fn holder(processes: &Path, pid: u32) -> Holder {
    let name = fs::read_to_string(processes.join(pid.to_string()).join("comm")).unwrap_or_default();
    Holder { pid, name: name.trim_end().to_owned() }
}

/// The files by which the function in this directory, or another member of its group, can be opened.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let names = |directory: PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    };
    let own = |directory: &Path| {
        names(directory.join(CDEV_CLASS)).map(|name| Path::new(DEVICE_FILES).join(name)).collect::<Vec<_>>()
    };
    let group = directory.join("iommu_group");
    let members = group.join("devices");
    let mut files: BTreeSet<PathBuf> = own(directory).into_iter().collect();
    files.extend(names(members.clone()).flat_map(|member| own(&members.join(member))));
    // The second is that of a function that is behind no IOMMU.
    let number = sysfs::link_name(&group);
    files.extend(number.iter().flat_map(|number| {
        [format!("/dev/vfio/{number}"), format!("/dev/vfio/noiommu-{number}")].map(PathBuf::from)
    }));
    files
}

#[cfg(test)]
mod tests;
