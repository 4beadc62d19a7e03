//! A function of the host, from sysfs alone.

use std::fs;
use std::path::Path;

use passthru::function::pieces::Backing;
use passthru::host::vfio::Interface;
use passthru::host::vfio::sysfs::{self, Member, SysfsFunction};
use passthru::pci::HostAddress;
use passthru::pci::registers::CONVENTIONAL_SIZE;

use super::access::{self, Access};
use super::iommu::{self, Reserved};
use crate::host::holders::{self, Hidden, Holders};
use crate::host::{physical_path, sriov};
use crate::machine::UseIommufd;
use crate::show::{self, Shown, Stands};
use crate::slot_map::msix_page::MsixPage;
use crate::slot_map::{Assignment, DeviceName};

/// `linux/ioport.h`
const IORESOURCE_IO: u64 = 0x100;
const IORESOURCE_UNSET: u64 = 0x2000_0000;
/// BARs in `resource`.
const BARS: usize = 6;
/// First BAR in configuration space.
const FIRST_BAR: usize = 0x10;
/// Header type, and which bit of it is not the type (PCIe 6.0 §7.5.1.1.9).
const HEADER_TYPE: usize = 0x0e;
const MULTI_FUNCTION: u8 = 0x80;

/// What a user asks about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As it is named.
    pub name: DeviceName,
    /// What it is.
    pub found: Found,
}

/// What there is of that name.
#[derive(Clone, Debug)]
pub enum Found {
    /// A function of this host.
    Host(Box<Function>),
    /// A simulated one, which needs nothing of the host. How many vectors it has.
    Simulated(u64),
    /// Nothing, and why.
    Nothing(String),
}

/// A function of this host.
#[derive(Clone, Debug)]
pub struct Function {
    /// What is needed to open it. A group that VFIO made up is none.
    pub sysfs: SysfsFunction,
    /// Vendor and device by name, or by number.
    pub label: String,
    /// What its configuration space says of its kind; nothing when it cannot be read.
    pub header_type: Option<u8>,
    /// All of its configuration space was there to be read, not only the 64 bytes that others than root see.
    pub is_all_seen: bool,
    /// Its configuration space reads all-ones.
    pub is_gone: bool,
    /// Members of its group that drivers of the host hold.
    pub offenders: Vec<Member>,
    /// Ranges that its group cannot use.
    pub reserved: Vec<Reserved>,
    /// The IOMMU unit that it is behind.
    pub unit: Option<String>,
    /// Who has it or a member of its group open.
    pub holders: Holders,
    /// By its own file and iommufd, not by group and container.
    pub by_device_file: bool,
    /// The file by which it is opened; nothing where there is none of that kind.
    pub file: Option<String>,
    /// Whether that can be opened.
    pub access: Access,
    /// The kernel's words for its resets, those of it alone.
    pub resets: Vec<String>,
    /// What a reset of its bus would take along.
    pub neighbours: Vec<Neighbour>,
    /// `D0`, `D3hot`, `D3cold`, `unknown`, or `error`, before it was looked at.
    pub power_state: Option<String>,
    /// `active`, `suspended`, `error`, `unsupported`.
    pub runtime_status: Option<String>,
    /// The host's firmware used it as its display.
    pub is_boot_display: bool,
    /// Virtual functions that it has now.
    pub virtual_functions: u32,
    /// The function of which it is a virtual one.
    pub physical: Option<Member>,
    /// Its BARs as the kernel placed them.
    pub resources: Vec<Resource>,
    /// What the guest would see, or why it could not.
    pub shown: Result<Guests, String>,
}

/// Another function of its bus, or behind that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it is, and who has it.
    pub member: Member,
    /// Its IOMMU group.
    pub group: Option<u32>,
}

impl Neighbour {
    /// Where it is.
    pub fn address(&self) -> HostAddress {
        self.member.address
    }
}

/// A BAR that the function has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// 0 to 5.
    pub bar: u8,
    /// Where the host has it.
    pub start: u64,
    /// Bytes; 0 if the kernel gave it up.
    pub size: u64,
    /// The kernel has no place for it.
    pub is_unassigned: bool,
    /// It is memory.
    pub is_memory: bool,
}

/// What the guest would see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guests {
    /// Parts of BARs that are not mapped.
    pub trapped: Vec<(u8, u64, u64, Backing)>,
    /// How many parts are mapped.
    pub mapped: u64,
    /// Message vectors.
    pub vectors: u64,
    /// What is left out of the function, and why.
    pub problems: Vec<String>,
}

/// What a name leads to, before the function's own files are read.
enum Named {
    Host(SysfsFunction),
    Other(Found),
}

impl Asked {
    /// Looks for what the assignments name. By which of the kernel's interfaces functions are opened is decided for all of them
    /// together, as by `run`.
    pub fn find(assignments: &[Assignment], iommufd: UseIommufd) -> Vec<Asked> {
        let named: Vec<Named> = assignments.iter().map(|assignment| named(&assignment.device)).collect();
        let functions: Vec<&SysfsFunction> = named
            .iter()
            .filter_map(|named| match named {
                Named::Host(function) => Some(function),
                Named::Other(_) => None,
            })
            .collect();
        let by_device_file = matches!(iommufd.interface(&functions), Interface::Cdev(_));
        let pairs = assignments.iter().zip(named);
        pairs
            .map(|(assignment, named)| {
                let stands = if assignment.port { Stands::BehindPort } else { Stands::RootBus };
                let found = match named {
                    Named::Host(sysfs) => {
                        let how = assignment.msix_page;
                        Found::Host(Box::new(Function::read(sysfs, stands, how, by_device_file)))
                    }
                    Named::Other(found) => found,
                };
                Asked { name: assignment.device.clone(), found }
            })
            .collect()
    }
}

fn named(name: &DeviceName) -> Named {
    let nothing = |error: String| Named::Other(Found::Nothing(error));
    match name {
        DeviceName::Simulated(_) => match Shown::of(name, Stands::RootBus, MsixPage::default()) {
            Ok(shown) => Named::Other(Found::Simulated(shown.guest_vectors())),
            Err(error) => nothing(error.to_string()),
        },
        DeviceName::Host(text) | DeviceName::Ppt(text) => match physical_path::resolve(text) {
            Ok(text) => sysfs::find(&text).map_or_else(|error| nothing(error.to_string()), Named::Host),
            Err(error) => nothing(error.to_string()),
        },
    }
}

impl Function {
    fn read(sysfs: SysfsFunction, stands: Stands, msix_page: MsixPage, by_device_file: bool) -> Function {
        let address = sysfs.address;
        let sysfs = SysfsFunction { group: iommu::group(address), ..sysfs };
        let directory = Path::new(sysfs::DEVICES).join(address.to_string());
        let line = |file: &str| {
            let text = fs::read_to_string(directory.join(file)).ok()?;
            Some(text.trim().to_owned())
        };
        // Before configuration space, whose reading wakes the function from D3cold.
        let (power_state, runtime_status) = (line("power_state"), line("power/runtime_status"));
        let config = fs::read(directory.join("config")).unwrap_or_default();
        let member = |address: HostAddress| Member { address, driver: sysfs::driver(address) };
        let neighbours: Vec<Neighbour> = show::sharing_bus(&directory)
            .iter()
            .filter_map(|name| name.parse().ok())
            .map(|address| Neighbour { member: member(address), group: iommu::group(address) })
            .collect();
        let file = file_of(&sysfs, by_device_file);
        let holders = match sysfs.file {
            // Whoever hands it over has it open.
            Some(_) => Holders { seen: Vec::new(), hidden: Hidden::None },
            None => holders::of(&sysfs),
        };
        let shown = Shown::of(&DeviceName::Host(address.to_string()), stands, msix_page);
        Function {
            label: shown.as_ref().map_or_else(|_| ids(&sysfs), Shown::label),
            header_type: config.get(HEADER_TYPE).map(|kind| kind & !MULTI_FUNCTION),
            is_all_seen: config.len() >= CONVENTIONAL_SIZE,
            is_gone: config.len() >= 4 && config.iter().take(64).all(|byte| *byte == 0xff),
            offenders: sysfs::offenders(address),
            reserved: sysfs.group.map(iommu::reserved).unwrap_or_default(),
            unit: sysfs::link_name(&directory.join("iommu")),
            holders,
            by_device_file,
            access: file.as_deref().map_or(Access::Absent, |file| access::of(Path::new(file))),
            file,
            resets: show::alone(
                resets(line("reset_method"), directory.join("reset").exists()),
                !neighbours.is_empty(),
            ),
            neighbours,
            power_state,
            runtime_status,
            is_boot_display: line("boot_vga").as_deref() == Some("1"),
            virtual_functions: sriov::virtual_functions(&directory),
            physical: sysfs::link_name(&directory.join("physfn"))
                .and_then(|name| name.parse().ok())
                .map(member),
            resources: resources(&line("resource").unwrap_or_default(), &config),
            shown: shown.map_err(|error| error.to_string()).map(|shown| Guests {
                trapped: shown.trapped().collect(),
                mapped: shown.mapped_parts(),
                vectors: shown.guest_vectors(),
                problems: shown.problems().to_vec(),
            }),
            sysfs,
        }
    }

    /// Its address, as Linux writes it.
    pub fn name(&self) -> String {
        self.sysfs.address.to_string()
    }
}

/// The file by which it is opened: its own, or that of its group.
fn file_of(sysfs: &SysfsFunction, by_device_file: bool) -> Option<String> {
    match by_device_file {
        true => sysfs.cdev.as_ref().map(|name| format!("/dev/vfio/devices/{name}")),
        false => sysfs.group.map(|group| format!("/dev/vfio/{group}")),
    }
}

/// `reset_method` is there since Linux 5.15; before, `reset` says that there is one.
fn resets(methods: Option<String>, is_resettable: bool) -> Vec<String> {
    match methods {
        Some(methods) => methods.split_whitespace().map(str::to_owned).collect(),
        None if is_resettable => vec!["as the kernel decides".to_owned()],
        None => Vec::new(),
    }
}

fn ids(sysfs: &SysfsFunction) -> String {
    format!("{:04x}:{:04x}", sysfs.ids & 0xffff, sysfs.ids >> 16)
}

/// The lines of `resource`, with what configuration space says of BARs that the kernel does not list.
fn resources(text: &str, config: &[u8]) -> Vec<Resource> {
    let mut found = Vec::new();
    let mut upper_half = false;
    for (bar, line) in (0u8..).zip(text.lines()).take(BARS) {
        let mut words = line.split_whitespace().map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16));
        let (Some(Ok(start)), Some(Ok(end)), Some(Ok(flags))) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let at = FIRST_BAR + 4 * usize::from(bar);
        let register =
            config.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        let is_upper_half = std::mem::replace(&mut upper_half, register & 0x7 == 0x4);
        let is_listed = flags != 0 && end >= start;
        // A register that is not zero, of a BAR that the kernel does not list: it found no place and gave up.
        if !is_listed && (is_upper_half || matches!(register, 0 | u32::MAX)) {
            continue;
        }
        let is_io = if is_listed { flags & IORESOURCE_IO != 0 } else { register & 1 != 0 };
        found.push(Resource {
            bar,
            start,
            size: if is_listed { (end - start).saturating_add(1) } else { 0 },
            is_unassigned: !is_listed || flags & IORESOURCE_UNSET != 0 || (start == 0 && !is_io),
            is_memory: !is_io,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_open_a_function_has_its_file_and_no_other() {
        let mut sysfs = crate::doctor::tests::drive().sysfs;
        assert_eq!(file_of(&sysfs, false).as_deref(), Some("/dev/vfio/14"));
        assert_eq!(file_of(&sysfs, true), None, "a kernel without files of functions");
        sysfs.cdev = Some("vfio3".to_owned());
        assert_eq!(file_of(&sysfs, true).as_deref(), Some("/dev/vfio/devices/vfio3"));
        sysfs.group = None;
        assert_eq!(file_of(&sysfs, false), None);
    }

    #[test]
    fn resets_of_kernels_old_and_new() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(resets(text("flr bus"), true), ["flr", "bus"]);
        assert!(resets(text(""), true).is_empty() && resets(None, false).is_empty());
        assert_eq!(resets(None, true).len(), 1);
    }

    #[test]
    fn bars_without_a_place() {
        let text = "0x00000000febd0000 0x00000000febd3fff 0x0000000000140204\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x0000000000000000 0x0000000000ffffff 0x0000000020140204\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x000000000000c040 0x000000000000c05f 0x0000000000040101\n\
                    0x00000000fe000000 0x00000000fe003fff 0x0000000000042208\n";
        let mut config = vec![0; 64];
        config[0x10] = 0x04;
        // The upper half of BAR 0, and BAR 4, which the kernel gave up.
        (config[0x14], config[0x18], config[0x20]) = (0x01, 0x04, 0x08);
        let found = resources(text, &config);
        let shown: Vec<_> = found.iter().map(|r| (r.bar, r.size, r.is_unassigned, r.is_memory)).collect();
        assert_eq!(
            shown,
            [
                (0, 0x4000, false, true),
                (2, 0x100_0000, true, true),
                (4, 0, true, true),
                (5, 0x20, false, false)
            ]
        );
        assert!(resources("garbage\n", &[0xff; 64]).is_empty());
        assert!(resources("0x0 0x0 0x0\n", &[]).is_empty());
    }
}
