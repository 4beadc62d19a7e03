//! What bhyve's variables say of a VM, in the words of a `--config` file.

use std::collections::BTreeMap;
use std::fmt;

use passthru::pci::Slot;

use super::device;
use super::error::{BhyveError, Fault, Origin, node};
use super::number;
use super::variables::Variables;
use crate::config::VmFile;
use crate::machine::MOST_CPUS;
use crate::memory::RamSize;

/// A VM as far as slotpass can have it, and what is to be said of the rest.
#[derive(Debug)]
pub struct Described {
    /// Functions, memory and processors.
    pub file: VmFile,
    /// In no order that counts.
    pub notes: Vec<Note>,
}

/// Something that a user may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// bhyve would refuse this for guest memory that is not wired. slotpass always wires it.
    NotWired,
    /// bhyve would refuse this for its MP table, which has bus 0 only. slotpass has none.
    MpTable {
        /// A slot that it would refuse.
        slot: Slot,
    },
    /// A device that bhyve emulates and slotpass does not.
    Device {
        /// Where it was asked for.
        from: Origin,
        /// Its slot, which is free.
        slot: Slot,
        /// bhyve's name for it.
        device: String,
    },
    /// A host bridge or LPC bridge, for which slotpass has its own.
    Bridge {
        /// Where it was asked for.
        from: Origin,
        /// Its slot.
        slot: Slot,
        /// bhyve's name for it.
        device: String,
    },
    /// A variable that nothing here reads.
    Variable {
        /// Where it was set.
        from: Origin,
        /// Its name.
        key: String,
    },
    /// An option that sets none.
    Option(Origin),
}

impl Note {
    /// Whether it is more than something left out that no guest misses.
    pub fn is_warning(&self) -> bool {
        matches!(self, Note::NotWired | Note::MpTable { .. } | Note::Device { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::NotWired => f.write_str(
                "bhyve would say \"passthru requires guest memory to be wired\": give it -S or memory.wired=true; \
                 slotpass needs neither",
            ),
            Note::MpTable { slot } => write!(
                f,
                "bhyve would say \"MPtable is incompatible with multiple PCI hierarchies\", for slot {slot}: give it -Y \
                 or x86.mptable=false; slotpass needs neither"
            ),
            Note::Device { from, slot, device } => {
                write!(f, "{from}: {device:?} of slot {slot} is left out: slotpass emulates no devices")
            }
            Note::Bridge { from, slot, device } => {
                write!(f, "{from}: {device:?} of slot {slot} is left out: slotpass has its own")
            }
            Note::Variable { from, key } => write!(f, "{from}: {key:?} is left out: it means nothing to slotpass"),
            Note::Option(from) => write!(f, "{from}: left out: it means nothing to slotpass"),
        }
    }
}

/// What bhyve can have in a slot, on illumos or FreeBSD, beside [`device::PASSTHRU`].
const EMULATIONS: &[&str] = &[
    "ahci",
    "ahci-cd",
    "ahci-hd",
    "dummy",
    "e1000",
    "fbuf",
    "hda",
    "nvme",
    "uart",
    "virtio-9p",
    "virtio-blk",
    "virtio-console",
    "virtio-input",
    "virtio-net",
    "virtio-net-viona",
    "virtio-rnd",
    "virtio-scsi",
    "virtio-viona",
    "xhci",
];
/// Those that every machine has of its own.
const BRIDGES: &[&str] = &["hostbridge", "amd_hostbridge", "lpc"];

/// Variables that are read, or that ask for what slotpass does anyway.
const KNOWN: &[&str] = &[
    "acpi_tables",
    "cores",
    "cpus",
    "memory.size",
    "memory.wired",
    "name",
    "sockets",
    "threads",
    "x86.mptable",
];

/// Reads what can be used of all variables.
pub fn describe(variables: &Variables, mut notes: Vec<Note>) -> Result<Described, BhyveError> {
    let mut file = VmFile { cpus: cpus(variables)?, memory: memory(variables)?, ..VmFile::default() };
    for (slot, first) in slots(variables)? {
        let Some((device, from)) = variables.get(&format!("{}.device", node(slot)))? else {
            return Err(Fault::NoDevice(slot).at(first));
        };
        let from = from.clone();
        match device.as_str() {
            device::PASSTHRU => file.pci_devices.push(device::read(variables, slot, &from, &mut notes)?),
            bridge if BRIDGES.contains(&bridge) => notes.push(Note::Bridge { from, slot, device }),
            emulation if EMULATIONS.contains(&emulation) => notes.push(Note::Device { from, slot, device }),
            _ => return Err(Fault::UnknownDevice { slot, device: device.into() }.at(&from)),
        }
    }
    let wired = variables.boolean("memory.wired")?.unwrap_or(false);
    if !wired && !file.pci_devices.is_empty() {
        notes.push(Note::NotWired);
    }
    let mp_table = variables.boolean("x86.mptable")?.unwrap_or(true);
    let off_bus_0 = file.pci_devices.iter().map(|device| device.pci_slot).find(|slot| slot.bus() != 0);
    if let Some(slot) = off_bus_0.filter(|_| mp_table) {
        notes.push(Note::MpTable { slot });
    }
    let others = variables.all().filter(|(key, _)| !KNOWN.contains(key) && !is_slot(key));
    notes.extend(others.map(|(key, from)| Note::Variable { from: from.clone(), key: key.to_owned() }));
    Ok(Described { file, notes })
}

/// Whether a variable is below the node of a slot. There are others below `pci.`, which begin with a letter.
fn is_slot(key: &str) -> bool {
    key.strip_prefix("pci.").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// The slots that have variables, and where the first of each was set.
fn slots(variables: &Variables) -> Result<BTreeMap<Slot, &Origin>, BhyveError> {
    let mut slots = BTreeMap::new();
    for (key, from) in variables.all().filter(|(key, _)| is_slot(key)) {
        // bhyve asks for each slot by its name: what is written in another way is never found.
        let slot = slot_of(key).filter(|slot| key.starts_with(&format!("{}.", node(*slot))));
        let slot = slot.ok_or_else(|| Fault::Node(key.into()).at(from))?;
        slots.entry(slot).or_insert(from);
    }
    Ok(slots)
}

fn slot_of(key: &str) -> Option<Slot> {
    let mut parts = key.split('.').skip(1);
    let mut number = || parts.next().and_then(number::decimal).and_then(|number| u8::try_from(number).ok());
    Slot::new(number()?, number()?, number()?)
}

/// As bhyve computes them: without `sockets` there is one for each processor.
fn cpus(variables: &Variables) -> Result<Option<u32>, BhyveError> {
    let count = |key| variables.integer(key, 1..=u64::from(u16::MAX));
    let (cpus, sockets) = (count("cpus")?, count("sockets")?);
    let (cores, threads) = (count("cores")?, count("threads")?);
    let Some((_, from)) = cpus.or(sockets).or(cores).or(threads) else { return Ok(None) };
    let value = |variable: Option<(u64, &Origin)>| variable.map(|(value, _)| value);
    let sockets = value(sockets).or(value(cpus)).unwrap_or(1);
    let (cores, threads) = (value(cores).unwrap_or(1), value(threads).unwrap_or(1));
    // Three numbers of 16 bits.
    let product = sockets * cores * threads;
    match value(cpus) {
        Some(cpus) if cpus != product => Err(Fault::Topology { cpus, sockets, cores, threads }.at(from)),
        _ => match u32::try_from(product) {
            Ok(cpus @ 1..=MOST_CPUS) => Ok(Some(cpus)),
            _ => Err(Fault::Cpus(product).at(from)),
        },
    }
}

fn memory(variables: &Variables) -> Result<Option<RamSize>, BhyveError> {
    let Some((text, from)) = variables.get("memory.size")? else { return Ok(None) };
    let bytes = number::size(&text).ok_or_else(|| Fault::Size(text.into()).at(from))?;
    RamSize::try_from(bytes).map(Some).map_err(|error| Fault::Memory(error).at(from))
}
