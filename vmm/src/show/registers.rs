//! Configuration space register by register: the function's beside the guest's, and who answers.

use passthru::function::Function;
use passthru::pci::capability::{self, Capability, ExtendedCapability};
use passthru::pci::registers::EXTENDED_CAPABILITIES;
use serde::Serialize;

use super::fields::{self, Field};
use super::meaning;

/// What becomes of bits of a register. The order is that in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Reads and writes go to the function.
    Passed,
    /// Reads come from the function each time; writes do nothing.
    ReadOnly,
    /// The guest has a value of its own: what it writes is kept for it, or slotpass has put in what fits the guest.
    Emulated,
    /// Reads as the function had it when it was attached; writes do nothing.
    Shadowed,
    /// The function has it set; the guest reads zero.
    Hidden,
}

impl Access {
    /// As it is written in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Access::Passed => "passed",
            Access::ReadOnly => "read-only",
            Access::Emulated => "emulated",
            Access::Shadowed => "shadowed",
            Access::Hidden => "hidden",
        }
    }
}

/// A register, or bytes that have no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Register {
    /// Offset of the first byte.
    pub offset: u16,
    /// Bytes.
    pub size: u16,
    /// Offset of the capability that it belongs to.
    pub capability: Option<u16>,
    /// That capability's name; `header`, or nothing.
    pub of: String,
    /// Its name; nothing for bytes without one.
    pub name: Option<&'static str>,
    /// What the function has: a number in hexadecimal; of more than four bytes, the bytes.
    pub physical: String,
    /// What the guest reads.
    pub guest: String,
    /// What the function's value means.
    pub physical_meaning: Option<String>,
    /// What the guest's value means.
    pub guest_meaning: Option<String>,
    /// The guest reads something else.
    pub differs: bool,
    /// What becomes of its bits.
    pub access: Vec<Access>,
    /// The same of those bits that differ: why they do.
    pub reason: Vec<Access>,
}

/// Whose register it is.
struct Owner {
    name: String,
    capability: Option<u16>,
    /// Bytes; a register beyond them is somebody else's.
    len: u16,
}

/// One byte of both.
#[derive(Clone, Copy, Debug, Default)]
struct Byte {
    physical: u8,
    guest: u8,
    writable: u8,
    live: u8,
    forward: u8,
}

impl Byte {
    fn access(&self, of: u8) -> Vec<Access> {
        let constant = !(self.writable | self.live | self.forward);
        let same = constant & !(self.physical ^ self.guest);
        let classes = [
            (self.forward, Access::Passed),
            (self.live & !self.forward, Access::ReadOnly),
            (self.writable | constant & self.guest & !self.physical, Access::Emulated),
            (same & self.physical, Access::Shadowed),
            (constant & self.physical & !self.guest, Access::Hidden),
        ];
        classes.into_iter().filter(|(bits, _)| bits & of != 0).map(|(_, access)| access).collect()
    }
}

/// The function's configuration space and the guest's.
pub struct Comparison {
    bytes: Vec<Byte>,
    told: Vec<bool>,
    rows: Vec<Register>,
}

impl Comparison {
    /// Compares; live registers of the guest's read as `physical` has them.
    pub fn new(physical: &[u8], function: &Function) -> Comparison {
        let registers = function.registers();
        // What cannot be read without root is not compared.
        let mut bytes = vec![Byte::default(); physical.len().min(registers.len())];
        for (byte, from) in bytes.iter_mut().zip(physical) {
            byte.physical = *from;
        }
        for (dword, offset) in bytes.chunks_mut(4).zip((0..=u16::MAX).step_by(4)) {
            let register = registers.dword(offset);
            let read = function.read_config(offset, 4, |_, _| false);
            for (byte, shift) in dword.iter_mut().zip([0, 8, 16, 24]) {
                let of = |value: u32| (value >> shift) as u8;
                byte.writable = of(register.writable);
                byte.live = of(register.live);
                byte.forward = of(register.forward);
                byte.guest = of(read.value) & !of(read.live) | byte.physical & of(read.live);
            }
        }
        Comparison { told: vec![false; bytes.len()], bytes, rows: Vec::new() }
    }

    /// What the guest reads.
    pub fn guest(&self) -> Vec<u8> {
        self.bytes.iter().map(|byte| byte.guest).collect()
    }

    /// All registers, by offset.
    pub fn registers(mut self, list: &[Capability], extended: &[ExtendedCapability]) -> Vec<Register> {
        self.fields(&Owner { name: "header".to_owned(), capability: None, len: 0x40 }, fields::HEADER);
        let raw: Vec<u8> = self.bytes.iter().map(|byte| byte.physical).collect();
        for capability in list {
            let name = fields::capability_name(capability.id);
            let owner = Owner { name, capability: Some(capability.offset), len: capability.len };
            self.field(&owner, &POINTER);
            self.fields(&owner, &fields::of_capability(&raw, capability));
            self.unnamed(&owner, capability.offset, capability.offset.saturating_add(capability.len));
        }
        for capability in extended {
            let name = fields::extended_name(capability.id);
            let owner = Owner { name, capability: Some(capability.offset), len: capability.len };
            self.field(&owner, &EXTENDED_POINTER);
            self.fields(&owner, fields::of_extended(capability));
            self.unnamed(&owner, capability.offset, capability.offset.saturating_add(capability.len));
        }
        let nobody = Owner { name: String::new(), capability: None, len: 0 };
        self.unnamed(&nobody, 0x40, EXTENDED_CAPABILITIES);
        self.unnamed(&nobody, EXTENDED_CAPABILITIES, u16::MAX);
        self.rows.sort_by_key(|row| row.offset);
        self.rows
    }

    fn fields(&mut self, owner: &Owner, fields: &[Field]) {
        for field in fields {
            self.field(owner, field);
        }
    }

    fn field(&mut self, owner: &Owner, field: &Field) {
        let start = usize::from(owner.capability.unwrap_or(0)) + usize::from(field.at);
        let range = start..start + usize::from(field.len);
        // Of what overlaps in a broken function the first counts.
        let is_free = self.told.get(range.clone()).is_some_and(|told| told.iter().all(|told| !told));
        if is_free && field.at + u16::from(field.len) <= owner.len {
            self.row(range.start, range.end, owner, Some(field));
        }
    }

    /// Bytes that no register has told of, in runs of the same kind.
    fn unnamed(&mut self, owner: &Owner, from: u16, to: u16) {
        let end = usize::from(to).min(self.bytes.len());
        let mut at = usize::from(from);
        let kind = |byte: &Byte| (byte.access(0xff), byte.access(byte.physical ^ byte.guest));
        while at < end {
            let (Some(first), Some(false)) = (self.bytes.get(at), self.told.get(at)) else {
                at += 1;
                continue;
            };
            let wanted = kind(first);
            let rest = self.bytes.iter().zip(&self.told).take(end).skip(at);
            let len = rest.take_while(|(byte, told)| !**told && kind(byte) == wanted).count();
            // Zeros that nobody can change tell nothing.
            if !wanted.0.is_empty() {
                self.row(at, at + len, owner, None);
            }
            at += len.max(1);
        }
    }

    fn row(&mut self, start: usize, end: usize, owner: &Owner, field: Option<&Field>) {
        let Some(bytes) = self.bytes.get(start..end) else { return };
        if let Some(told) = self.told.get_mut(start..end) {
            told.fill(true);
        }
        let physical: Vec<u8> = bytes.iter().map(|byte| byte.physical).collect();
        let guest: Vec<u8> = bytes.iter().map(|byte| byte.guest).collect();
        let gather = |bits: fn(&Byte) -> u8| {
            let mut all: Vec<Access> = bytes.iter().flat_map(|byte| byte.access(bits(byte))).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let meaning = |bytes: &[u8]| field.and_then(|f| f.meaning).map(|meaning| meaning(number(bytes)));
        self.rows.push(Register {
            offset: start as u16,
            size: (end - start) as u16,
            capability: owner.capability,
            of: owner.name.clone(),
            name: field.map(|field| field.name),
            physical: shown(&physical),
            guest: shown(&guest),
            physical_meaning: meaning(&physical),
            guest_meaning: meaning(&guest),
            differs: physical != guest,
            access: gather(|_| 0xff),
            reason: gather(|byte| byte.physical ^ byte.guest),
        });
    }
}

const POINTER: Field = Field { at: 0, len: 2, name: "id and next capability", meaning: Some(meaning::next) };
const EXTENDED_POINTER: Field =
    Field { at: 0, len: 4, name: "id and next capability", meaning: Some(meaning::extended_next) };

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn shown(bytes: &[u8]) -> String {
    match bytes.len() {
        len @ 0..=4 => format!("{:#0width$x}", number(bytes), width = 2 + 2 * len),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}

/// The capabilities of a configuration space.
pub fn lists(config: &[u8]) -> (Vec<Capability>, Vec<ExtendedCapability>) {
    (capability::walk(config).0, capability::walk_extended(config).0)
}
