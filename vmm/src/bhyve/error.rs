//! Why a description of bhyve's cannot be used.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use passthru::pci::{Slot, SlotError};

use crate::machine::MOST_CPUS;
use crate::memory::InvalidSize;

/// Where something was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    Line {
        /// The file.
        file: Arc<Path>,
        /// From 1.
        line: usize,
    },
    /// With an option of bhyve's, as `-s 0:8:0,passthru,/dev/ppt0`.
    Option(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line { file, line } => write!(f, "{}:{line}", on_one_line(file)),
            Origin::Option(text) => text
                .chars()
                .take(LONGEST)
                .flat_map(char::escape_debug)
                .try_for_each(|char| f.write_char(char)),
        }
    }
}

/// Characters of a text that a message has at most.
const LONGEST: usize = 100;

/// A user's text, as a message has it: in quotes, on one line, and cut off where it is long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted(String);

impl<T: AsRef<str>> From<T> for Quoted {
    fn from(text: T) -> Quoted {
        let text = text.as_ref();
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => Quoted(text.get(..end).unwrap_or_default().to_owned() + "…"),
            None => Quoted(text.to_owned()),
        }
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn on_one_line(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

/// Why a description of bhyve's cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BhyveError {
    /// A file cannot be read.
    #[error("{}: {source}", on_one_line(.path))]
    Read {
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// A file that is none of bhyve's.
    #[error("{}: more than {most} bytes; this is no file of bhyve_config(5)", on_one_line(.path))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is read at most.
        most: u64,
    },
    /// Something that is said there.
    #[error("{at}: {fault}")]
    At {
        /// Where.
        at: Origin,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with something that a description says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no text.
    #[error("not UTF-8, or a NUL in it")]
    NoText,
    /// bhyve's form of a variable.
    #[error("{0} is not KEY=VALUE")]
    NotKeyValue(Quoted),
    /// An empty part of a key, or one that is too long.
    #[error("{0} is no name of a variable, such as pci.0.8.0.device")]
    Key(Quoted),
    /// A variable below one that has a value.
    #[error("{key} is below {value}, which has a value of its own")]
    BelowValue {
        /// The new variable.
        key: Quoted,
        /// The one with a value.
        value: Quoted,
    },
    /// A value for what others are below.
    #[error("{0} cannot have a value, since other variables are below it")]
    AboveOthers(Quoted),
    /// A `%` that bhyve would take for one with a warning.
    #[error("value {0}: a % is neither %(VARIABLE) nor escaped as \\%")]
    Percent(Quoted),
    /// An unknown name in `%(name)`.
    #[error("it refers to variable {0}, which is not set")]
    NoVariable(Quoted),
    /// References in a circle, or too many of them.
    #[error("value {0}: its references do not end, or give too long a text")]
    Endless(Quoted),
    /// Neither true nor false.
    #[error("{key}: {value} is not true, on, yes, 1, false, off, no or 0")]
    Boolean {
        /// The variable.
        key: String,
        /// Its value.
        value: Quoted,
    },
    /// No number, or out of range.
    #[error("{key}: {value} is not a number from {least} to {most}")]
    Number {
        /// The variable.
        key: String,
        /// Its value.
        value: Quoted,
        /// The smallest one allowed.
        least: u64,
        /// The largest one allowed.
        most: u64,
    },
    /// No size.
    #[error("memory.size: {0} is not a number of bytes with or without a unit, such as 2G")]
    Size(Quoted),
    /// More, less or other memory than slotpass gives a guest.
    #[error("memory.size: {0}")]
    Memory(InvalidSize),
    /// More processors than slotpass gives a guest.
    #[error("{0} processors; slotpass gives a guest 1 to {MOST_CPUS}")]
    Cpus(u64),
    /// As bhyve counts them.
    #[error("{sockets} sockets of {cores} cores of {threads} threads are not {cpus} processors")]
    Topology {
        /// Processors asked for.
        cpus: u64,
        /// Sockets.
        sockets: u64,
        /// Cores of each.
        cores: u64,
        /// Threads of each.
        threads: u64,
    },
    /// bhyve's `-c`.
    #[error("{0} is not [[cpus=]N][,sockets=N][,cores=N][,threads=N]")]
    TopologyOption(Quoted),
    /// A key below `pci.` that bhyve would never look at.
    #[error(
        "{0} is not pci.BUS.SLOT.FUNC.VARIABLE: bus 0 to 255, slot 0 to 31, func 0 to 7, decimal without zeros before"
    )]
    Node(Quoted),
    /// bhyve's `-s`.
    #[error("{0} is not SLOT,DEVICE[,CONF], such as 0:8:0,passthru,/dev/ppt0")]
    SlotOption(Quoted),
    /// Its first part.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// bhyve's "already occupied".
    #[error("slot {slot} is already occupied by {by}")]
    Occupied {
        /// The slot.
        slot: Slot,
        /// What is there.
        by: Quoted,
    },
    /// bhyve's "unknown device".
    #[error("slot {slot}: bhyve has no device {device}")]
    UnknownDevice {
        /// The slot.
        slot: Slot,
        /// What is asked for.
        device: Quoted,
    },
    /// Variables of a slot without the one that counts.
    #[error("slot {0} has no device: {node}.device is missing", node = node(*.0))]
    NoDevice(Slot),
    /// A function that is not named.
    #[error(
        "slot {slot}: passthru needs a function: {node}.path=/dev/pptN (illumos), or {node}.pptdev=pptN, or all of \
         {node}.bus, .slot and .func (FreeBSD)", node = node(*.slot)
    )]
    NoFunction {
        /// The slot.
        slot: Slot,
    },
    /// A function that is named more than once.
    #[error("slot {slot}: passthru has a function by {first} and by {second}; only one of them can count")]
    TwoFunctions {
        /// The slot.
        slot: Slot,
        /// A variable.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// The third part of bhyve's `-s`.
    #[error(
        "{0} is no function for passthru: /dev/pptN (illumos), pptN, pci0:B:S:F, pciB:S:F or B/S/F (FreeBSD)"
    )]
    Conf(Quoted),
    /// A path that no ppt device has.
    #[error("{0} is not /dev/pptN")]
    Path(Quoted),
    /// A name that no ppt device has.
    #[error("{0} is not pptN")]
    Pptdev(Quoted),
    /// bhyve's "unsupported domain".
    #[error("{0}: bhyve passes through functions of PCI domain 0 only")]
    Domain(Quoted),
    /// Not how MSI-X pages can be read.
    #[error("msix-page={0} is neither trap nor read-only")]
    MsixPage(Quoted),
    /// An empty value behind a comma.
    #[error("{0} has no value")]
    NoValue(Quoted),
    /// Quotes that do not end.
    #[error("a quote or a backslash has nothing after it")]
    Quotes,
    /// No such option.
    #[error("bhyve has no option {0:?}")]
    UnknownOption(char),
    /// Nothing behind it.
    #[error("no value after it")]
    MissingValue,
    /// `-h`.
    #[error("with it bhyve shows its help and runs nothing")]
    Help,
    /// What bhyve would refuse or not look at.
    #[error("{word} comes after the VM's name {name}, where bhyve reads no options")]
    AfterName {
        /// The word.
        word: Quoted,
        /// The VM's name.
        name: Quoted,
    },
    /// Files that lead to each other, or a great many.
    #[error("more than {0} files")]
    Files(usize),
}

/// A slot's node in the tree of variables.
pub fn node(slot: Slot) -> String {
    format!("pci.{}.{}.{}", slot.bus(), slot.device(), slot.function())
}

impl Fault {
    /// With the place where it was said.
    pub fn at(self, at: &Origin) -> BhyveError {
        BhyveError::At { at: at.clone(), fault: self }
    }
}
