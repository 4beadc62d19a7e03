//! A VM's description: from a JSON file and the command line.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use passthru::pci::Slot;
use serde::{Deserialize, Deserializer, de};

use crate::machine::{Description, EventPolicy, Image, MOST_CPUS, OnError, OnRequest, UseIommufd};
use crate::memory::{Backing, RamSize};
use crate::port_options::{PortOptions, PortWindow};
use crate::slot_map::msix_page::MsixPage;
use crate::slot_map::{Assignment, DeviceName};
use crate::vcpu_options::{DisabledExits, Pin, VcpuOptions};

/// Bytes of a file at most; a description has far fewer.
const LONGEST: u64 = 1 << 20;

/// A VM's JSON file. Unknown fields are refused; those that are absent have the defaults of the command line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmFile {
    /// Kernel image.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: Option<String>,
    /// Size of the guest's memory, as `"512M"`.
    #[serde(default, deserialize_with = "from_text")]
    pub memory: Option<RamSize>,
    /// Reserved huge pages back the guest's memory.
    #[serde(default)]
    pub hugepages: bool,
    /// Processors.
    pub cpus: Option<u32>,
    /// Which vCPU runs on which of the host's CPUs, as `["0=2", "1=4-5"]`.
    #[serde(default, deserialize_with = "from_texts")]
    pub cpu_affinity: Vec<Pin>,
    /// Nanoseconds at most that KVM looks for an interrupt before a halted vCPU sleeps.
    pub halt_poll: Option<u32>,
    /// What the guest executes without an exit, as `"hlt,pause,mwait"`.
    #[serde(default, deserialize_with = "from_text")]
    pub disable_exits: Option<DisabledExits>,
    /// The control socket's path.
    pub control: Option<PathBuf>,
    /// A reset by the guest ends it.
    #[serde(default)]
    pub no_reboot: bool,
    /// Functions that cannot be reset are refused.
    #[serde(default)]
    pub require_reset: bool,
    /// How functions are opened: `"auto"`, `"on"`, `"off"` or `"fd:N"`.
    #[serde(default, deserialize_with = "from_text")]
    pub iommufd: Option<UseIommufd>,
    /// What is done when a function fails: `"stop"`, `"log"` or `"pass"`.
    #[serde(default, deserialize_with = "from_text")]
    pub on_error: Option<OnError>,
    /// What is done when the host wants a function back: `"ask"`, `"ask:SECONDS"`, `"take"` or `"stop"`.
    #[serde(default, deserialize_with = "from_text")]
    pub on_request: Option<OnRequest>,
    /// Functions to pass through.
    #[serde(default)]
    pub pci_devices: Vec<PciDevice>,
    /// Buses, 1 to 15, that have a root port, for hot plug.
    #[serde(default)]
    pub ports: Vec<u8>,
    /// Room of each root port, as `"64M,1G"`: memory below 4 GiB, and prefetchable memory.
    #[serde(default, deserialize_with = "from_text")]
    pub port_window: Option<PortWindow>,
}

/// A function to pass through.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciDevice {
    /// Host function: an address, a path in sysfs, `fd:N`, or `sim:NAME`.
    pub path: String,
    /// Its place in the guest: `B:D:F`, `D:F` or `D`.
    #[serde(deserialize_with = "slot")]
    pub pci_slot: Slot,
    /// Behind a root port.
    #[serde(default)]
    pub port: bool,
    /// What the guest finds as its expansion ROM, instead of its own.
    pub rom: Option<PathBuf>,
    /// How the guest reads the pages with its MSI-X structures: `"read-only"` or `"trap"`.
    #[serde(default, deserialize_with = "from_text")]
    pub msix_page: Option<MsixPage>,
}

fn from_text<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

fn from_texts<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(de::Error::custom)
}

fn slot<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Slot, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

/// Why a VM's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// A directory, device, pipe or socket. A pipe might never end, or never begin.
    #[error("{}: not a regular file, but a directory, device, pipe or socket", .path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// It has more bytes than any description.
    #[error("{}: has more than {LONGEST} bytes, which no description needs", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is not what it should be.
    #[error("{path}:{line}:{column}: {}{message}", field_prefix(.field))]
    Content {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// As `pci_devices[0].pci_slot`; empty when it is the file as a whole.
        field: String,
        /// What is wrong.
        message: String,
    },
}

/// A number of processors that no guest has.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is not 1 to {MOST_CPUS}; interrupt messages have 8 bits for a processor, of which one value means all"
)]
pub struct CpusError(pub u32);

/// Why a file describes no machine.
#[derive(Debug, thiserror::Error)]
pub enum IncompleteError {
    /// It says nothing to boot.
    #[error("no kernel")]
    NoKernel,
    /// Processors.
    #[error("cpus: {0}")]
    Cpus(#[from] CpusError),
}

/// Whether a guest can have so many processors.
pub fn check_cpus(cpus: u32) -> Result<(), CpusError> {
    if (1..=MOST_CPUS).contains(&cpus) { Ok(()) } else { Err(CpusError(cpus)) }
}

fn field_prefix(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("field {field}: ") }
}

impl VmFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<VmFile, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        // To open a pipe for good waits for somebody who writes.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(ConfigError::NotRegular { path: path.to_owned() });
        }
        let mut text = String::new();
        let length = file.take(LONGEST + 1).read_to_string(&mut text).map_err(failed)?;
        if length as u64 > LONGEST {
            return Err(ConfigError::TooLong { path: path.to_owned() });
        }
        VmFile::parse(path, &text)
    }

    /// Reads a text, which messages say to be from this file.
    pub fn parse(path: &Path, text: &str) -> Result<VmFile, ConfigError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let content = |field: String, error: &serde_json::Error| {
            let (line, column) = (error.line(), error.column());
            // serde_json ends its messages with the position, which comes first here.
            let message = error.to_string();
            let position = format!(" at line {line} column {column}");
            let message = message.strip_suffix(&position).unwrap_or(&message).to_owned();
            ConfigError::Content { path: path.to_owned(), line, column, field, message }
        };
        let file = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let field = error.path().to_string();
            // The path of what is no field: the whole, or something that ended before its name was read.
            let field = if matches!(field.as_str(), "." | "?") { String::new() } else { field };
            content(field, error.inner())
        })?;
        json.end().map_err(|error| content(String::new(), &error))?;
        Ok(file)
    }

    /// The machine that it describes.
    pub fn description(self) -> Result<Description, IncompleteError> {
        let assignments = self.assignments().collect();
        let cpus = self.cpus.unwrap_or(1);
        let kernel = self.kernel.ok_or(IncompleteError::NoKernel)?;
        check_cpus(cpus)?;
        Ok(Description {
            image: Image::Files { kernel, initrd: self.initrd },
            command_line: self.cmdline.unwrap_or_default(),
            memory: self.memory.unwrap_or_default(),
            backing: if self.hugepages { Backing::ReservedHugePages } else { Backing::Transparent },
            cpus,
            vcpu_options: VcpuOptions {
                pins: self.cpu_affinity,
                halt_poll: self.halt_poll,
                disabled_exits: self.disable_exits.unwrap_or_default(),
            },
            assignments,
            ports: PortOptions { empty: self.ports, window: self.port_window.unwrap_or_default() },
            events: EventPolicy {
                error: self.on_error.unwrap_or_default(),
                request: self.on_request.unwrap_or_default(),
            },
            control: self.control,
            require_reset: self.require_reset,
            iommufd: self.iommufd.unwrap_or_default(),
            ppt: None,
            no_reboot: self.no_reboot,
            page_times: false,
            console: None,
            records: None,
            running: None,
        })
    }

    /// The functions to pass through.
    pub fn assignments(&self) -> impl Iterator<Item = Assignment> {
        self.pci_devices.iter().map(|device| Assignment {
            slot: device.pci_slot,
            device: DeviceName::from(device.path.as_str()),
            port: device.port,
            rom: device.rom.clone(),
            msix_page: device.msix_page.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_as_smartos_writes_it() {
        let file = VmFile::parse(
            Path::new("vm.json"),
            r#"{ "kernel": "/boot/vmlinuz", "memory": "1G", "cpus": 2,
                 "pci_devices": [ { "path": "0000:01:00.0", "pci_slot": "0:8:0" },
                                  { "path": "sim:demo", "pci_slot": "8:1", "msix_page": "trap" } ] }"#,
        )
        .unwrap();
        let slots: Vec<String> = file.assignments().map(|a| a.to_string()).collect();
        assert_eq!(slots, ["0:8:0=0000:01:00.0", "0:8:1=sim:demo,msix-page=trap"]);
    }

    #[test]
    fn control_socket_and_policies() {
        let text = r#"{ "control": "vm.sock", "on_error": "log", "on_request": "ask:3" }"#;
        let file = VmFile::parse(Path::new("vm.json"), text).unwrap();
        assert_eq!((file.control, file.on_error), (Some("vm.sock".into()), Some(OnError::Log)));
        assert_eq!(file.on_request, "ask:3".parse().ok());
        let wrong = VmFile::parse(Path::new("vm.json"), r#"{ "on_error": "cry" }"#).unwrap_err().to_string();
        assert!(wrong.contains("field on_error") && wrong.contains("stop, log or pass"), "{wrong}");
    }

    #[test]
    fn root_ports() {
        let file = VmFile::parse(
            Path::new("vm.json"),
            r#"{ "pci_devices": [ { "path": "sim:demo", "pci_slot": "1:0:0", "port": true },
                                  { "path": "sim:demo", "pci_slot": "0:8:0" } ],
                 "ports": [2, 3], "port_window": "16M,8G" }"#,
        )
        .unwrap();
        assert_eq!(file.assignments().map(|a| a.port).collect::<Vec<_>>(), [true, false]);
        assert_eq!((file.ports, file.port_window), (vec![2, 3], "16M,8G".parse().ok()));
        let wrong = VmFile::parse(Path::new("vm.json"), r#"{ "port_window": "1" }"#).unwrap_err().to_string();
        assert!(wrong.contains("field port_window") && wrong.contains("64M,1G"), "{wrong}");
    }

    #[test]
    fn nothing_but_a_file_and_not_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let text = |path: &Path| VmFile::read(path).unwrap_err().to_string();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            assert_eq!(
                text(path),
                format!("{}: not a regular file, but a directory, device, pipe or socket", path.display())
            );
        }
        let long = folder.path().join("long.json");
        File::create(&long).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(text(&long).contains("more than 1048576 bytes"), "{}", text(&long));
        assert!(text(&folder.path().join("none")).contains("No such file"));
    }

    #[test]
    fn errors_say_line_column_and_field() {
        for (text, want) in [
            (
                "{\n \"cpus\": \"two\" }",
                "vm.json:2:14: field cpus: invalid type: string \"two\", expected u32",
            ),
            ("{", "vm.json:1:1: EOF while parsing an object"),
            ("{ \"kernl\": 1 }", "vm.json:1:9: field kernl: unknown field `kernl`, expected one of"),
            (
                "{\"pci_devices\":\n[{\"path\": \"x\", \"pci_slot\": \"0:32:0\"}]}",
                "vm.json:2:36: field pci_devices[0].pci_slot: slot '0:32:0': device 32 is out of range (0 to 31)",
            ),
            ("{\"pci_devices\": [{\"path\": \"x\"}]}", "field pci_devices[0]: missing field `pci_slot`"),
            (
                "{\"pci_devices\": [{\"path\": \"x\", \"pci_slot\": \"8\", \"msix_page\": \"x\"}]}",
                "field pci_devices[0].msix_page: 'x' is none of trap and read-only",
            ),
            ("{} x", "vm.json:1:4: trailing characters"),
        ] {
            let error = VmFile::parse(Path::new("vm.json"), text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
