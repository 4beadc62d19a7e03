//! A command line of bhyve(8), as a shell would split it.

use std::ffi::OsStr;
use std::path::Path;

use passthru::pci::Slot;

use super::config;
use super::description::{self, Described, Note};
use super::device;
use super::error::{BhyveError, Fault, Origin, node};
use super::variables::Variables;

/// Options without a value, and the variables that some of them set; of illumos, FreeBSD and older versions of both.
const FLAGS: &[(char, Option<(&str, &str)>)] = &[
    ('a', Some(("x86.x2apic", "false"))),
    ('A', Some(("acpi_tables", "true"))),
    ('b', None),
    ('C', Some(("memory.guest_in_core", "true"))),
    ('d', Some(("suspend_at_boot", "true"))),
    ('D', Some(("destroy_on_poweroff", "true"))),
    ('e', Some(("x86.strictio", "true"))),
    ('H', Some(("x86.vmexit_on_hlt", "true"))),
    ('I', None),
    ('M', None),
    ('P', Some(("x86.vmexit_on_pause", "true"))),
    ('S', Some(("memory.wired", "true"))),
    ('u', Some(("rtc.use_localtime", "false"))),
    ('w', Some(("x86.strictmsr", "false"))),
    ('W', Some(("virtio_msix", "false"))),
    ('x', Some(("x86.x2apic", "true"))),
    ('Y', Some(("x86.mptable", "false"))),
];
/// Options with a value.
const WITH_VALUE: &str = "BcfgGkKlmnoprsU";
/// Characters of a slot at most; `255:31:7` and some zeros.
const LONGEST_SLOT: usize = 32;
/// Files that `-k` may name.
const MOST_FILES: usize = 64;

/// What a command line says of a VM. It may begin with the program's name; the files that `-k` names are read.
pub fn parse(text: &str) -> Result<Described, BhyveError> {
    let words = shlex::split(text).ok_or_else(|| Fault::Quotes.at(&Origin::Option("--bhyve-args".into())))?;
    let mut line = CommandLine::default();
    line.read(words)?;
    description::describe(&line.variables, line.notes)
}

#[derive(Default)]
struct CommandLine {
    variables: Variables,
    notes: Vec<Note>,
    files: usize,
}

impl CommandLine {
    /// As getopt(3) goes through it: letters together or alone, values in the same word or the next.
    fn read(&mut self, words: Vec<String>) -> Result<(), BhyveError> {
        let mut words = words.into_iter().peekable();
        words.next_if(|word| is_program(word));
        while let Some(word) = words.next_if(|word| word.starts_with('-') && word != "-") {
            if word == "--" {
                break;
            }
            let mut letters = word.chars();
            letters.next();
            while let Some(letter) = letters.next() {
                let name = Origin::Option(format!("-{letter}").into());
                if let Some((_, variable)) = FLAGS.iter().find(|(flag, _)| *flag == letter) {
                    match variable {
                        Some((key, value)) => self.variables.set(key, value, &name)?,
                        None => self.notes.push(Note::Option(name)),
                    }
                } else if WITH_VALUE.contains(letter) {
                    let value = match letters.as_str() {
                        "" => words.next().ok_or_else(|| Fault::MissingValue.at(&name))?,
                        rest => rest.to_owned(),
                    };
                    self.option(letter, &value)?;
                    break;
                } else {
                    let fault = if letter == 'h' { Fault::Help } else { Fault::UnknownOption(letter) };
                    return Err(fault.at(&name));
                }
            }
        }
        let Some(name) = words.next() else { return Ok(()) };
        if let Some(word) = words.next() {
            let from = Origin::Option("--bhyve-args".into());
            return Err(Fault::AfterName { word: word.into(), name: name.into() }.at(&from));
        }
        // bhyve has no use for an empty name either.
        if name.is_empty() {
            return Ok(());
        }
        let from = Origin::Option(name.as_str().into());
        self.variables.set("name", &name, &from)
    }

    fn option(&mut self, letter: char, value: &str) -> Result<(), BhyveError> {
        let from = Origin::Option(format!("-{letter} {value}").into());
        let set = |variables: &mut Variables, key| match value {
            "" => Err(Fault::MissingValue.at(&from)),
            value => variables.set(key, value, &from),
        };
        match letter {
            's' => self.slot(value, &from),
            'm' => set(&mut self.variables, "memory.size"),
            'U' => set(&mut self.variables, "uuid"),
            'K' => set(&mut self.variables, "keyboard.layout"),
            'o' => self.variables.assign(value, &from),
            'c' => self.topology(value, &from),
            'k' => {
                self.files += 1;
                if self.files > MOST_FILES {
                    return Err(Fault::Files(MOST_FILES).at(&from));
                }
                config::add_file(&mut self.variables, Path::new(value))
            }
            _ => {
                self.notes.push(Note::Option(from));
                Ok(())
            }
        }
    }

    /// `-c`: nothing at all is one processor.
    fn topology(&mut self, text: &str, from: &Origin) -> Result<(), BhyveError> {
        let wrong = || Fault::TopologyOption(text.into()).at(from);
        if text.is_empty() {
            for key in ["cpus", "sockets", "cores", "threads"] {
                self.variables.set(key, "1", from)?;
            }
            return Ok(());
        }
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or(("cpus", part));
            if value.is_empty() || !["cpus", "sockets", "cores", "threads"].contains(&key) {
                return Err(wrong());
            }
            self.variables.set(key, value, from)?;
        }
        Ok(())
    }

    /// `-s`.
    fn slot(&mut self, text: &str, from: &Origin) -> Result<(), BhyveError> {
        let wrong = || Fault::SlotOption(text.into()).at(from);
        let (place, rest) = text.split_once(',').ok_or_else(wrong)?;
        if place.len() > LONGEST_SLOT || !place.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') {
            return Err(wrong());
        }
        let slot: Slot = place.parse().map_err(|error| Fault::Slot(error).at(from))?;
        let (emulation, conf) = match rest.split_once(',') {
            Some((emulation, conf)) => (emulation, Some(conf)),
            None => (rest, None),
        };
        if emulation.is_empty() {
            return Err(wrong());
        }
        let node = node(slot);
        if self.variables.is_node(&node) {
            let device = self.variables.get(&format!("{node}.device"))?;
            let by = device.map_or_else(|| node.clone(), |(device, _)| device).into();
            return Err(Fault::Occupied { slot, by }.at(from));
        }
        self.variables.set(&format!("{node}.device"), emulation, from)?;
        match conf {
            // How others are configured is not looked at: they are left out.
            Some(conf) if emulation == device::PASSTHRU => {
                device::set_conf(&mut self.variables, &node, conf, from)
            }
            _ => Ok(()),
        }
    }
}

fn is_program(word: &str) -> bool {
    let name = Path::new(word).file_name().and_then(OsStr::to_str);
    matches!(name, Some("bhyve" | "zhyve"))
}
