//! Processes that have a device file of a function open.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Use, function_above, text};
use crate::host::reserve::Host;
use crate::host::reserve::inventory::Function;

/// Directories below that of a function: hosts, targets, drives, partitions.
const DEEPEST: usize = 12;
/// udev has a new device open for a moment, to look at it. Who has it open for longer uses it.
const MOMENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// Those that have one open, and still do a moment later.
pub fn read(host: &Host, function: &Function) -> Vec<Use> {
    let mut nodes = BTreeSet::new();
    collect(host, function, &function.directory, 0, &mut nodes);
    nodes.extend(nvidia(host, function));
    if nodes.is_empty() {
        return Vec::new();
    }
    let begin = Instant::now();
    loop {
        let found = open(host, &nodes);
        let waits = found.iter().any(|found| matches!(found, Use::Open { .. }));
        if !waits || begin.elapsed() > MOMENT {
            return found;
        }
        thread::sleep(PAUSE);
    }
}

fn open(host: &Host, nodes: &BTreeSet<PathBuf>) -> Vec<Use> {
    let own = std::process::id();
    let mut hidden = None;
    // The first process is always there, but others than root may not be shown it (proc(5), hidepid).
    if !host.processes.join("1").exists() {
        hidden = Some(libc::EACCES);
    }
    let processes = fs::read_dir(&host.processes).into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = Vec::new();
    for pid in pids.filter(|pid| *pid != own) {
        let directory = host.processes.join(pid.to_string());
        let files = match fs::read_dir(directory.join("fd")) {
            Ok(files) => files,
            Err(error) => {
                // It may have ended meanwhile.
                let ended = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH));
                hidden = if ended { hidden } else { hidden.or(error.raw_os_error()) };
                continue;
            }
        };
        for target in files.flatten().filter_map(|file| fs::read_link(file.path()).ok()) {
            if nodes.contains(&target) {
                let (file, name) = (target.to_string_lossy().into_owned(), text(&directory.join("comm")));
                found.push(Use::Open { file, pid, name });
            }
        }
    }
    // No need to know more if it is in use anyway.
    if let (true, Some(errno), Some(node)) = (found.is_empty(), hidden, nodes.first()) {
        found.push(Use::Unknown { whether: format!("a process has {} open", node.display()), errno });
    }
    found
}

/// The file of a display with NVIDIA's own driver, which sysfs does not know. Taking the display from that driver waits until
/// nobody has the file open.
fn nvidia(host: &Host, function: &Function) -> Option<PathBuf> {
    let driver = function.sysfs.driver.as_deref().filter(|driver| *driver == "nvidia")?;
    let address = function.address().to_string();
    let information =
        text(&host.processes.join("driver").join(driver).join("gpus").join(address).join("information"));
    let minor = information.lines().find_map(|line| line.strip_prefix("Device Minor:"))?;
    let minor: u32 = minor.trim().parse().ok()?;
    Some(host.nodes.join(format!("{driver}{minor}")))
}

/// The device files of what is in a directory of sysfs, but not of functions behind it.
fn collect(host: &Host, function: &Function, directory: &Path, depth: usize, nodes: &mut BTreeSet<PathBuf>) {
    if depth > DEEPEST {
        return;
    }
    if directory.join("dev").is_file() {
        let uevent = text(&directory.join("uevent"));
        let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        nodes.extend(name.map(|name| host.nodes.join(name)));
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        if is_directory && function_above(&path).is_some_and(|(address, _)| address == function.address()) {
            collect(host, function, &path, depth + 1, nodes);
        }
    }
}
