//! VMs by name: from `create` to `delete`, and what may happen between.

mod consoles;
mod crashes;
mod doctor;
mod life;
mod logs;
mod races;
mod starts;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ended, Running, Slotpass};

/// Far more than anything here needs.
const LIMIT: Duration = Duration::from_secs(60);

/// Folders of VMs, and a kernel for them. VMs that still run are ended with it.
struct Vms {
    folder: TempDir,
}

impl Vms {
    fn new() -> Vms {
        let folder = TempDir::with_prefix("slotpass-vms-").unwrap();
        fs::write(folder.path().join("exit.elf"), guest::EXIT).unwrap();
        Vms { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with these arguments and the VMs of this.
    fn slotpass(&self, arguments: &str) -> Slotpass {
        self.by(Slotpass::new(), arguments)
    }

    fn by(&self, run: Slotpass, arguments: &str) -> Slotpass {
        let mut run = run.args(arguments.split_whitespace());
        run.command().env("SLOTPASS_STATE_DIR", self.path("state")).env("SLOTPASS_RUN_DIR", self.path("run"));
        run
    }

    fn run(&self, arguments: &str) -> Ended {
        self.slotpass(arguments).end()
    }

    fn json(&self, arguments: &str, input: &Value) -> Ended {
        self.slotpass(arguments).input(input.to_string()).end()
    }

    /// A VM whose guest does what these words say; gives its uuid.
    #[track_caller]
    fn create(&self, alias: &str, words: &str) -> String {
        let vm = json!({
            "alias": alias, "kernel": self.path("exit.elf"), "cmdline": words, "memory": "64M",
            "pci_devices": [ { "path": "sim:demo", "pci_slot": "0:8:0" } ],
        });
        let ended = self.json("create", &vm).expect_code(0).expect_silent_stderr();
        ended.stdout.trim().to_owned()
    }

    #[track_caller]
    fn start(&self, alias: &str) {
        self.run(&format!("start {alias}")).expect_code(0).expect_silent_stderr();
    }

    #[track_caller]
    fn get(&self, alias: &str) -> Value {
        serde_json::from_str(&self.run(&format!("get {alias}")).expect_code(0).stdout).unwrap()
    }

    #[track_caller]
    fn state(&self, alias: &str) -> String {
        self.get(alias)["state"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn pid(&self, alias: &str) -> i32 {
        i32::try_from(self.get(alias)["pid"].as_i64().unwrap()).unwrap()
    }

    #[track_caller]
    fn wait_until(&self, what: &str, seen: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !seen() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn wait_for_state(&self, alias: &str, state: &str) {
        self.wait_until(state, || self.state(alias) == state);
    }

    /// Waits until the guest has said this.
    #[track_caller]
    fn wait_for_output(&self, alias: &str, part: &str) {
        self.wait_until(part, || self.run(&format!("log --console {alias}")).stdout.contains(part));
    }

    /// What is in the VM's run-time folder.
    fn left(&self, uuid: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("run").join(uuid)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// How many processes run this VM.
    fn processes(&self, uuid: &str) -> usize {
        let is_one = |entry: &fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.contains(&b"vm-process".as_slice()) && words.contains(&uuid.as_bytes())
        };
        fs::read_dir("/proc").unwrap().flatten().filter(is_one).count()
    }

    /// A client of a VM's console whose stdin stays open.
    fn console(&self, alias: &str) -> (Running, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        (self.slotpass(&format!("console {alias}")).stdin(reader).start(), writer)
    }
}

impl Drop for Vms {
    fn drop(&mut self) {
        let vms = self.run("vms -p -o uuid,pid").stdout;
        for (uuid, pid) in vms.lines().filter_map(|line| line.split_once(':')) {
            if pid != "--" {
                self.run(&format!("stop --force {uuid}"));
            }
        }
    }
}

/// A process that nobody else's id can be: it holds a lock that says so.
fn kill(pid: i32, signal: i32) {
    // SAFETY: a call without pointers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid}: {}", std::io::Error::last_os_error());
}
