//! What is on drives: file systems and swap.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Use, Uses, names, text};
use crate::host::reserve::Host;
use crate::host::reserve::inventory::Function;

/// Device-mapper and md devices on each other: more levels are a mistake.
const DEEPEST: usize = 16;

pub fn read(host: &Host, uses: &mut Uses) {
    for Mount { number, at, source } in mounts(&text(&host.processes.join("self/mountinfo"))) {
        let found = Use::Mounted { at, source: source.clone() };
        for directory in below(host, &number, &source) {
            uses.add(&directory, &found);
        }
    }
    // The first line is a heading.
    for line in text(&host.processes.join("swaps")).lines().skip(1) {
        let source = unescaped(line.split_whitespace().next().unwrap_or_default());
        for directory in of_node(host, Path::new(&source)).iter().flat_map(|number| drives(host, number)) {
            uses.add(&directory, &Use::Swap { source: source.clone() });
        }
    }
}

/// The block devices of a function that the kernel does not let others have: it has them open itself.
pub fn claimed(host: &Host, function: &Function) -> Vec<Use> {
    let classes = host.sysfs.join("class/block");
    let mut claimed = Vec::new();
    for name in names(&classes) {
        let is_of_it = fs::canonicalize(classes.join(&name)).is_ok_and(|directory| {
            drives_of(&directory, 0).iter().any(|d| d.starts_with(&function.directory))
        });
        if !is_of_it || is_virtual(&classes.join(&name)) {
            continue;
        }
        // sysfs has `!` where a device's name has a slash.
        let node = host.nodes.join(name.replace('!', "/"));
        // Without writing, so that closing it makes udev look at nothing.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(&node);
        claimed.extend(opened.err().and_then(|error| refused(name, &node, &error)));
    }
    claimed.sort();
    claimed
}

/// What it means that a block device cannot be opened for oneself.
pub(super) fn refused(name: String, node: &Path, error: &io::Error) -> Option<Use> {
    match error.raw_os_error().unwrap_or(libc::EIO) {
        libc::EBUSY => Some(Use::Claimed { device: name }),
        // There is nothing to be used: no node, no drive behind it, an empty slot for cards.
        libc::ENOENT | libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM => None,
        errno => Some(Use::Unknown { whether: format!("the kernel has {} open", node.display()), errno }),
    }
}

/// Made of other block devices, which are looked at themselves.
fn is_virtual(directory: &Path) -> bool {
    fs::read_dir(directory.join("slaves")).is_ok_and(|mut slaves| slaves.next().is_some())
}

struct Mount {
    /// `MAJOR:MINOR`
    number: String,
    at: String,
    source: String,
}

/// Lines of `mountinfo` (proc(5)): `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(2);
            let number = left.next()?.to_owned();
            let at = unescaped(left.nth(1)?);
            Some(Mount { number, at, source: unescaped(right.split(' ').nth(1)?) })
        })
        .collect()
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut result: Vec<u8> = parts.next().unwrap_or_default().into();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                result.push(byte);
                result.extend(part.bytes().skip(3));
            }
            None => result.extend([b"\\", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&result).into_owned()
}

/// The directories of the drives below a mount. File systems that are on several drives, or on none, have device numbers
/// that say nothing: then it is the source, or who else is in the same btrfs.
fn below(host: &Host, number: &str, source: &str) -> Vec<PathBuf> {
    let own = drives(host, number);
    if !own.is_empty() {
        return own;
    }
    let Some(number) = of_node(host, Path::new(source)) else { return shares(host, source) };
    let named = drives(host, &number);
    let file_systems = host.sysfs.join("fs/btrfs");
    for name in names(&file_systems) {
        let devices = file_systems.join(name).join("devices");
        let all: Vec<PathBuf> = names(&devices)
            .iter()
            .filter_map(|device| fs::canonicalize(devices.join(device)).ok())
            .flat_map(|directory| drives_of(&directory, 0))
            .collect();
        if all.iter().any(|directory| named.contains(directory)) {
            return all;
        }
    }
    named
}

/// Directories of a machine around this one (virtio 9p and virtiofs), which are called by their tags.
fn shares(host: &Host, source: &str) -> Vec<PathBuf> {
    let devices = host.sysfs.join("bus/virtio/devices");
    let plan9 =
        names(&devices).into_iter().map(|name| (devices.join(&name).join("mount_tag"), devices.join(&name)));
    let virtiofs = host.sysfs.join("fs/virtiofs");
    let others = names(&virtiofs).into_iter();
    let others = others.map(|name| (virtiofs.join(&name).join("tag"), virtiofs.join(&name).join("device")));
    let tag = |path: &Path| text(path).trim_end_matches('\0').to_owned();
    plan9
        .chain(others)
        .filter(|(path, _)| !source.is_empty() && tag(path) == source)
        .filter_map(|(_, device)| fs::canonicalize(device).ok())
        .collect()
}

/// The number of a block device by its node.
fn of_node(host: &Host, node: &Path) -> Option<String> {
    // Of another host (in tests) nodes are not there; names are.
    let name = node.strip_prefix("/dev").ok()?;
    match fs::metadata(host.nodes.join(name)) {
        Ok(file) if file.file_type().is_block_device() => {
            Some(format!("{}:{}", libc::major(file.rdev()), libc::minor(file.rdev())))
        }
        _ => Some(text(&host.sysfs.join("class/block").join(name.file_name()?).join("dev")))
            .filter(|number| !number.is_empty()),
    }
}

/// The directories of the drives that a block device with this number is on in the end.
fn drives(host: &Host, number: &str) -> Vec<PathBuf> {
    match fs::canonicalize(host.sysfs.join("dev/block").join(number)) {
        Ok(directory) => drives_of(&directory, 0),
        Err(_) => Vec::new(),
    }
}

fn drives_of(directory: &Path, depth: usize) -> Vec<PathBuf> {
    if depth > DEEPEST {
        return Vec::new();
    }
    // A partition is in its drive's directory.
    let whole = match directory.join("partition").exists() {
        true => directory.parent().unwrap_or(directory),
        false => directory,
    };
    let below = names(&whole.join("slaves"));
    if !below.is_empty() {
        let slaves: BTreeSet<PathBuf> =
            below.iter().filter_map(|name| fs::canonicalize(whole.join("slaves").join(name)).ok()).collect();
        return slaves.iter().flat_map(|slave| drives_of(slave, depth + 1)).collect();
    }
    // A drive with several ways to it is below none of them; its subsystem has links to them.
    if let Some(subsystem) =
        whole.parent().filter(|parent| parent.parent().is_some_and(|p| p.ends_with("nvme-subsystem")))
    {
        return names(subsystem)
            .iter()
            .filter(|name| name.starts_with("nvme") && subsystem.join(name).is_symlink())
            .filter_map(|name| fs::canonicalize(subsystem.join(name)).ok())
            .collect();
    }
    vec![whole.to_owned()]
}
