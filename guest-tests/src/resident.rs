//! What memory a VMM has of its own while its guest runs.

use std::fmt::Write as _;

use crate::{Failure, Machine, RunningGuest, expect};

/// A line of `/proc/PID/smaps` with an address range, and what is told of that mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    /// A file, `[heap]` and the like; empty for anonymous memory.
    name: String,
    size_kib: u64,
    resident_kib: u64,
    /// Two letters each, as in proc_pid_smaps(5).
    flags: Vec<String>,
}

/// What a process has resident.
#[derive(Clone, Debug)]
pub struct Resident(Vec<Mapping>);

impl Machine<'_> {
    pub fn resident(&mut self, running: RunningGuest) -> Result<Resident, Failure> {
        let smaps = self.command("look at its memory", &format!("cat /proc/{}/smaps", running.pid))?;
        Ok(Resident::read(&smaps))
    }
}

impl Resident {
    fn read(smaps: &str) -> Self {
        let mut mappings: Vec<Mapping> = Vec::new();
        for line in smaps.lines() {
            let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let number = || rest.trim().trim_end_matches(" kB").parse().unwrap_or_default();
            match (first, mappings.last_mut()) {
                ("Size:", Some(mapping)) => mapping.size_kib = number(),
                ("Rss:", Some(mapping)) => mapping.resident_kib = number(),
                ("VmFlags:", Some(mapping)) => {
                    mapping.flags = rest.split_whitespace().map(str::to_owned).collect();
                }
                // An address range, permissions, an offset, a device, an inode, and a name.
                _ if !first.ends_with(':') => mappings.push(Mapping {
                    name: rest.split_whitespace().skip(4).collect::<Vec<_>>().join(" "),
                    size_kib: 0,
                    resident_kib: 0,
                    flags: Vec::new(),
                }),
                _ => {}
            }
        }
        Self(mappings)
    }

    /// KiB of all that is neither the guest's memory, which is so large, nor what else of the guest's address space slotpass
    /// has mapped: parts of functions, and what reads all-ones. Fails if any of these is not there.
    pub fn beside_the_guest(&self, memory_mib: u64) -> Result<u64, Failure> {
        // `dc` and `dd`: neither for children nor for core files (madvise(2)). No other anonymous memory is so.
        let is_memory = |mapping: &&Mapping| {
            mapping.name.is_empty() && ["dc", "dd"].iter().all(|flag| mapping.flags.iter().any(|f| f == flag))
        };
        let is_of_function = |mapping: &&Mapping| mapping.name.contains("vfio");
        let is_all_ones = |mapping: &&Mapping| mapping.name.starts_with("/memfd:all-ones");
        let memory: u64 = self.0.iter().filter(is_memory).map(|mapping| mapping.size_kib).sum();
        expect!(
            memory == memory_mib << 10,
            "{memory} KiB are the guest's, of {memory_mib} MiB:\n{}",
            self.largest()
        );
        expect!(
            self.0.iter().any(|mapping| is_of_function(&mapping)),
            "no function is mapped:\n{}",
            self.largest()
        );
        expect!(
            self.0.iter().any(|mapping| is_all_ones(&mapping)),
            "nothing reads all-ones:\n{}",
            self.largest()
        );
        let own = self
            .0
            .iter()
            .filter(|mapping| !is_memory(mapping) && !is_of_function(mapping) && !is_all_ones(mapping));
        Ok(own.map(|mapping| mapping.resident_kib).sum())
    }

    /// The mappings with most resident memory, a line each.
    pub fn largest(&self) -> String {
        let mut mappings: Vec<&Mapping> = self.0.iter().filter(|mapping| mapping.resident_kib > 0).collect();
        mappings.sort_by_key(|mapping| std::cmp::Reverse(mapping.resident_kib));
        let mut text = String::new();
        for Mapping { name, size_kib, resident_kib, flags } in mappings.iter().take(24) {
            let _ = writeln!(text, "{resident_kib:8} KiB of {size_kib:8} {name} {}", flags.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
555500000000-555500400000 r-xp 00000000 08:01 42                         /usr/bin/slotpass
Size:               4096 kB
Rss:                1500 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0000400000 rw-p 00000000 00:00 0 
Size:               4096 kB
Rss:                4000 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me dc ac dd hg
7f0000400000-7f0000401000 rw-p 00000000 00:00 0 
Size:                  4 kB
Rss:                   4 kB
VmFlags: rd wr mr mw me dc ac
7f0000500000-7f0000501000 rw-s 00000000 00:0e 7                          anon_inode:[vfio-device]
Size:                  4 kB
Rss:                   4 kB
VmFlags: rd wr sh
7f0000600000-7f0000800000 r--s 00000000 00:01 9                          /memfd:all-ones (deleted)
Size:               2048 kB
Rss:                 100 kB
VmFlags: rd sh
";

    #[test]
    fn what_is_the_guests_is_taken_off() {
        assert_eq!(Resident::read(SMAPS).beside_the_guest(4).unwrap(), 1504);
    }

    #[test]
    fn what_is_taken_off_has_to_be_there() {
        for (without, memory) in [("", 8), ("vfio", 4), ("all-ones", 4), (" dd", 4)] {
            let smaps = if without.is_empty() { SMAPS.to_owned() } else { SMAPS.replace(without, "") };
            let failure = Resident::read(&smaps).beside_the_guest(memory);
            assert!(failure.is_err(), "{without} {memory}: {failure:?}");
        }
    }
}
