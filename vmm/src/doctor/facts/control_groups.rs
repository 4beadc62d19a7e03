//! How much memory the control groups of this process leave it (Linux `Documentation/admin-guide/cgroup-v2.rst` and
//! `cgroup-v1/memory.rst`).

/// The files of a version, below where it is mounted.
struct Version {
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    /// What is used and would be given up for others: file contents that are also on a disk.
    reclaimable: [&'static str; 2],
}

const SECOND: Version = Version {
    mount: "",
    limit: "memory.max",
    used: "memory.current",
    reclaimable: ["active_file", "inactive_file"],
};
const FIRST: Version = Version {
    mount: "memory/",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: ["total_active_file", "total_inactive_file"],
};

/// Bytes that the group and those above it leave free; nothing where none has a limit. `text` is `/proc/self/cgroup`; `read`
/// has a file below `/sys/fs/cgroup`.
///
/// In a container the path may be one that is not seen there, and what is mounted is the container's own group.
pub fn memory_room(text: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let group = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => Some((&SECOND, path.to_owned())),
            _ if controllers.split(',').any(|name| name == "memory") => Some((&FIRST, path.to_owned())),
            _ => None,
        }
    };
    let groups = text.lines().filter_map(group);
    groups.filter_map(|(version, path)| version.room(&path, &read)).min()
}

impl Version {
    fn room(&self, path: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
        let mut path = path.trim_matches('/');
        let mut least = None;
        loop {
            least = least.into_iter().chain(self.room_of(path, &read)).min();
            if path.is_empty() {
                return least;
            }
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }

    /// Of one group alone.
    fn room_of(&self, path: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
        let slash = if path.is_empty() { "" } else { "/" };
        let file = |name: &str| read(&format!("{}{path}{slash}{name}", self.mount));
        let number = |text: String| text.trim().parse::<u64>().ok();
        // Without a limit it is "max" in the second version, and about the largest i64 in the first.
        let limit = file(self.limit).and_then(number).filter(|limit| *limit < i64::MAX as u64 / 2)?;
        let used = file(self.used).and_then(number).unwrap_or(0);
        let stat = file("memory.stat").unwrap_or_default();
        let reclaimable = stat.lines().filter_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            self.reclaimable.contains(&name).then(|| bytes.trim().parse::<u64>().ok())?
        });
        Some(limit.saturating_sub(used.saturating_sub(reclaimable.sum())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_leaves_least_counts() {
        let none = "9223372036854771712\n";
        for (name, text, files, expected) in [
            ("no limit", "0::/a/b\n", &[("a/b/memory.max", "max\n")][..], None),
            (
                "one above",
                "0::/a/b/c\n",
                &[("a/b/memory.max", "max\n"), ("a/memory.max", "1000\n")],
                Some(1000),
            ),
            ("the least", "0::/a/b\n", &[("a/b/memory.max", "3000"), ("a/memory.max", "1000")], Some(1000)),
            (
                "what is used",
                "0::/a/b\n",
                &[("a/b/memory.max", "3000"), ("a/b/memory.current", "2500"), ("a/memory.max", "1000")],
                Some(500),
            ),
            (
                "what can be had back",
                "0::/a\n",
                &[
                    ("a/memory.max", "3000"),
                    ("a/memory.current", "2500"),
                    ("a/memory.stat", "anon 1000\nactive_file 700\ninactive_file 800\nfile 1500\n"),
                ],
                Some(2000),
            ),
            (
                "more used than there may be",
                "0::/\n",
                &[("memory.max", "10"), ("memory.current", "20")],
                Some(0),
            ),
            ("a container", "0::/\n", &[("memory.max", "1000\n"), ("memory.current", "1\n")], Some(999)),
            ("a path that is not seen", "0::/../x\n", &[("memory.max", "1000\n")], Some(1000)),
            (
                "version 1",
                "4:cpu,memory:/a\n0::/\n",
                &[
                    ("memory/memory.limit_in_bytes", none),
                    ("memory/a/memory.limit_in_bytes", "3000\n"),
                    ("memory/a/memory.usage_in_bytes", "2500\n"),
                    (
                        "memory/a/memory.stat",
                        "active_file 1\ntotal_active_file 500\ntotal_inactive_file 500\n",
                    ),
                ],
                Some(1500),
            ),
            ("version 1 without", "4:memory:/a\n", &[("memory/a/memory.limit_in_bytes", none)], None),
            ("another controller", "1:cpu:/a\n", &[("a/memory.max", "1")], None),
            ("nonsense", "x\n1:memory\n", &[("memory/memory.limit_in_bytes", "1")], None),
        ] {
            let read =
                |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
            assert_eq!(memory_room(text, read), expected, "{name}");
        }
    }
}
