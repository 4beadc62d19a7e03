//! A rule: what becomes of one dword, given what the function has there.

use crate::function::registers::{Register, Registers};
use crate::pci::capability::read_u32;

/// Every bit.
pub const ALL: u32 = u32::MAX;

/// What becomes of one dword. A bit in no mask reads zero and ignores writes.
#[derive(Clone, Copy, Default)]
pub struct Rule {
    /// Offset of the dword, from the start of the header or capability.
    pub at: u16,
    /// Bits that read as the function had them when it was attached.
    pub keep: u32,
    /// Bits that read as one.
    pub set: u32,
    /// Bits that the guest may change in the shadow.
    pub writable: u32,
    /// Bits that are read from the function each time.
    pub live: u32,
    /// Bits whose writes go to the function.
    pub forward: u32,
    /// Of them those that a one clears.
    pub clear: u32,
}

/// A rule by which a dword reads zero, to name only what differs.
pub const NOTHING: Rule = Rule { at: 0, keep: 0, set: 0, writable: 0, live: 0, forward: 0, clear: 0 };

/// Applies the rules of a capability, or of the header, that starts at `base` and has room for `len` bytes.
pub fn apply(registers: &mut Registers, raw: &[u8], base: u16, len: u16, rules: &[Rule]) {
    for rule in rules.iter().filter(|r| r.at < len) {
        let offset = base.saturating_add(rule.at);
        let now = read_u32(raw, offset);
        registers.update(offset, |r| {
            *r = Register {
                shadow: now & rule.keep | rule.set,
                writable: rule.writable,
                live: rule.live,
                forward: rule.forward,
                clear: rule.clear,
                ..Register::default()
            }
        });
    }
}
