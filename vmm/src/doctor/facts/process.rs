//! This process: its user, capabilities and limits, all from `/proc/self`. `slotpass run` by the same user has the same.

use std::fs;
use std::path::Path;

use super::control_groups;

/// Bits of capability sets (`linux/capability.h`).
const IPC_LOCK: u32 = 14;
const SYS_RESOURCE: u32 = 24;
/// A limit that is none.
pub const UNLIMITED: u64 = u64::MAX;

/// A limit of `getrlimit(2)`; [`UNLIMITED`] for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What counts.
    pub soft: u64,
    /// As far as the soft one can be raised without privilege.
    pub hard: u64,
}

/// What is known of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Effective user id.
    pub uid: u32,
    /// The user's name, or the number as text.
    pub user: String,
    /// The memory lock limit does not count: CAP_IPC_LOCK, in the initial user namespace, where the kernel asks for it.
    pub locks_without_limit: bool,
    /// It may raise its own hard limits.
    pub raises_limits: bool,
    /// `RLIMIT_MEMLOCK`, in bytes.
    pub memory_lock: Option<Limit>,
    /// `RLIMIT_NOFILE`.
    pub open_files: Option<Limit>,
    /// The memory that its control groups leave free, in bytes; nothing without a limit.
    pub group_room: Option<u64>,
}

impl Process {
    /// Reads it.
    pub fn read() -> Process {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let group_room = control_groups::memory_room(&text("/proc/self/cgroup"), |path| {
            fs::read_to_string(Path::new("/sys/fs/cgroup").join(path)).ok()
        });
        let process = from_texts(
            &text("/proc/self/status"),
            &text("/proc/self/limits"),
            &text("/proc/self/uid_map"),
            &text("/etc/passwd"),
        );
        Process { group_room, ..process }
    }

    /// A command with this user's way to privilege in front.
    pub fn as_root(&self, command: &str) -> String {
        if self.uid == 0 { command.to_owned() } else { format!("sudo {command}") }
    }

    /// A command that writes a line to a file that is root's.
    pub fn write(&self, line: &str, path: &str) -> String {
        format!("echo '{line}' | {}", self.as_root(&format!("tee {path}")))
    }

    /// The same, behind what is there.
    pub fn append(&self, line: &str, path: &str) -> String {
        format!("echo '{line}' | {}", self.as_root(&format!("tee -a {path}")))
    }

    /// The user as `limits.conf(5)` names one. Who has no name in `/etc/passwd` is a range of ids that ends with it, which
    /// means it alone.
    pub fn in_limits(&self) -> String {
        if self.user == self.uid.to_string() { format!(":{}", self.uid) } else { self.user.clone() }
    }
}

fn from_texts(status: &str, limits: &str, uid_map: &str, passwd: &str) -> Process {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let uid = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0);
    let capabilities =
        field("CapEff:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default();
    // Capabilities of another user namespace count for nothing where the kernel asks for those of the initial one.
    let initial = uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
    let has = |bit: u32| initial && capabilities >> bit & 1 != 0;
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    Process {
        uid,
        user: passwd.lines().find_map(named).unwrap_or_else(|| uid.to_string()),
        locks_without_limit: has(IPC_LOCK),
        raises_limits: has(SYS_RESOURCE),
        memory_lock: limit(limits, "Max locked memory"),
        open_files: limit(limits, "Max open files"),
        group_room: None,
    }
}

/// A line of `/proc/self/limits`: name, soft and hard limit, unit.
fn limit(limits: &str, name: &str) -> Option<Limit> {
    let mut words = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
    let mut number = || match words.next()? {
        "unlimited" => Some(UNLIMITED),
        number => number.parse().ok(),
    };
    Some(Limit { soft: number()?, hard: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max open files            1024                 1048576              files     \n\
                          Max locked memory         8388608              unlimited            bytes     \n";

    #[test]
    fn user_capabilities_and_limits() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let map = "         0          0 4294967295\n";
        let status = "Name:\tslotpass\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000004000\n";
        let process = from_texts(status, LIMITS, map, passwd);
        assert_eq!((process.uid, process.user.as_str()), (1000, "ann"));
        assert!(process.locks_without_limit && !process.raises_limits);
        assert_eq!(process.memory_lock, Some(Limit { soft: 8 << 20, hard: UNLIMITED }));
        assert_eq!(process.open_files, Some(Limit { soft: 1024, hard: 1 << 20 }));
        assert_eq!(process.write("1", "/sys/x"), "echo '1' | sudo tee /sys/x");

        let inner = from_texts(status, LIMITS, "0 1000 1\n", "");
        assert!(!inner.locks_without_limit, "a container's root");
        assert_eq!((inner.user.as_str(), inner.in_limits().as_str()), ("1000", ":1000"));
        assert_eq!(process.in_limits(), "ann");
        assert_eq!(process.append("1", "/etc/x"), "echo '1' | sudo tee -a /etc/x");
        let root = from_texts("Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffbfff\n", "", map, passwd);
        assert!(!root.locks_without_limit && root.raises_limits);
        assert_eq!((root.as_root("x"), root.memory_lock), ("x".to_owned(), None));
    }
}
