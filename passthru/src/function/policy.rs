//! What a guest finds in a function's configuration space: one rule for every dword of the header and of each
//! capability, and what becomes of the rest.
//!
//! * The header, PM, MSI, MSI-X and PCI Express are emulated: reads are answered from the shadow, apart from status
//!   bits that the function sets; nothing that moves power, links or interrupts reaches it.
//! * Vital product data, vendor-specific capabilities and the bytes from 0x40 on that belong to no capability are the
//!   function's own registers: reads and writes go there.
//! * Function-level reset is hidden: the bit that announces it, and the Advanced Features capability. So are capabilities
//!   that are not named here: some would show the host's addresses (Enhanced Allocation).
//! * Of the extended capabilities a guest sees error reporting, serial number and vendor-specific ones, read-only.
//!   The others speak of what a guest cannot have here (SR-IOV, ATS, PASID, resizable BARs, ARI, ACS): they are gone,
//!   bodies too, and the list is linked anew.

use super::registers::{Register, Registers};
use crate::pci::bar::{Bar, BarKind};
use crate::pci::capability::{Capability, ExtendedCapability, read_u16, read_u32};
use crate::pci::registers::*;

/// What a guest's function is to be, beside what the host's is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Other functions are at the same device.
    pub multi_function: bool,
}

/// What becomes of one dword, given what the function has there.
#[derive(Clone, Copy)]
struct Rule {
    /// Offset of the dword, from the start of the header or capability.
    at: u16,
    /// Bits that read as the function has them now.
    keep: u32,
    /// Bits that read as one.
    set: u32,
    /// Bits that the guest may change in the shadow.
    writable: u32,
    /// Bits that are read from the function each time.
    live: u32,
    /// Bits whose writes go to the function.
    forward: u32,
    /// Of them those that a one clears.
    clear: u32,
}

const NOTHING: Rule = Rule { at: 0, keep: 0, set: 0, writable: 0, live: 0, forward: 0, clear: 0 };
const ALL: u32 = u32::MAX;

/// Status bits that the function sets and a one clears: parity error, aborts, system error (PCIe 6.0 §7.5.1.1.4).
const STATUS_ERRORS: u32 = 0xf900 << 16;

const HEADER: [Rule; 7] = [
    Rule { at: 0x00, keep: ALL, ..NOTHING },
    Rule {
        at: 0x04,
        // 66 MHz, fast back-to-back and DEVSEL timing stay; the capability bit is set with the list.
        keep: 0x06a0 << 16,
        // Bus master, parity response, SERR and INTx disable; I/O and memory are added with the BARs.
        writable: 0x0544,
        live: STATUS_ERRORS,
        forward: STATUS_ERRORS,
        clear: STATUS_ERRORS,
        ..NOTHING
    },
    Rule { at: 0x08, keep: ALL, ..NOTHING },
    // Header layout, without the host's multi-function bit. Cache line size is scratch.
    Rule { at: 0x0c, keep: 0x007f_0000, writable: 0xff, ..NOTHING },
    Rule { at: 0x28, keep: ALL, ..NOTHING },
    Rule { at: 0x2c, keep: ALL, ..NOTHING },
    // Interrupt line is scratch; the pin reads 0, no INTx.
    Rule { at: 0x3c, keep: 0xffff_0000, writable: 0xff, ..NOTHING },
];

/// Power management (PCIe 6.0 §7.5.2): the state, D0 or D3hot, is kept for the guest, and the function stays in D0 with
/// its registers, which "no soft reset" promises. No PME.
const POWER: [Rule; 2] =
    [Rule { at: 0, keep: 0x01ff_0000, ..NOTHING }, Rule { at: 4, set: 0x8, writable: 0x3, ..NOTHING }];

/// PCI Express (PCIe 6.0 §7.5.3) of a root-complex integrated endpoint: no Link, Slot or Root registers. Payload and
/// request sizes are the host's; what a guest writes is kept for it to read.
const EXPRESS: [Rule; 5] = [
    // Version and interrupt message number; the type is set to 9, root-complex integrated endpoint.
    Rule { at: 0x00, keep: 0x3e0f_0000, set: 9 << 20, ..NOTHING },
    // All but function-level reset.
    Rule { at: 0x04, keep: !(1 << 28), ..NOTHING },
    Rule {
        at: 0x08,
        keep: 0x7fff,
        writable: 0x7fff,
        live: 0x003f << 16,
        forward: 0x000f << 16,
        clear: 0x000f << 16,
        ..NOTHING
    },
    // Of the second set only completion timeouts.
    Rule { at: 0x24, keep: 0x1f, ..NOTHING },
    Rule { at: 0x28, keep: 0x1f, writable: 0x1f, ..NOTHING },
];

/// Vital product data (PCIe 6.0 §7.9.18).
const VPD: [Rule; 2] = [
    Rule { at: 0, live: 0xffff_0000, forward: 0xffff_0000, ..NOTHING },
    Rule { at: 4, live: ALL, forward: ALL, ..NOTHING },
];

/// Type field of the PCI Express capabilities register.
const EXPRESS_ENDPOINT: u16 = 0;
const EXPRESS_LEGACY_ENDPOINT: u16 = 1;
const EXPRESS_INTEGRATED_ENDPOINT: u16 = 9;

/// Builds the registers of a function whose physical configuration space is `raw`, before MSI and MSI-X, which
/// `msi` and `msix` put in themselves. The lists name what is really there; `shown` says which of
/// the interrupt capabilities the guest is to see.
pub fn build(
    raw: &[u8],
    bars: &[Bar],
    list: &[Capability],
    extended: &[ExtendedCapability],
    shape: Shape,
    shown: impl Fn(&Capability) -> bool,
) -> Registers {
    let len = if raw.len() > CONVENTIONAL_SIZE { EXPRESS_SIZE } else { CONVENTIONAL_SIZE };
    let mut registers = Registers::new(len);

    // Later steps overrule earlier ones where a broken function's capabilities overlap: what belongs to no capability
    // first, then those that are the function's own registers, then all that is emulated or hidden.
    for offset in (0x40..CONVENTIONAL_SIZE as u16).step_by(4) {
        registers.update(offset, own);
    }
    for capability in list {
        let end = capability.offset.saturating_add(length(raw, capability, list));
        for offset in (capability.offset..end).step_by(4) {
            registers.update(offset, |r| *r = Register::default());
        }
    }
    let visible: Vec<&Capability> = list.iter().filter(|c| is_visible(raw, c) && shown(c)).collect();
    for pass in [Treatment::Own, Treatment::ReadOnly, Treatment::Emulated] {
        for capability in visible.iter().filter(|c| treatment(c.id) == pass) {
            capability_body(&mut registers, raw, capability, list);
        }
    }
    apply(&mut registers, raw, 0, &HEADER);
    header_bars(&mut registers, bars);
    if shape.multi_function {
        registers.update(HEADER_TYPE, |r| r.shadow |= u32::from(HEADER_MULTI_FUNCTION) << 16);
    }
    link(&mut registers, &visible);
    if len == EXPRESS_SIZE {
        extended_list(&mut registers, raw, extended);
    }
    registers
}

fn apply(registers: &mut Registers, raw: &[u8], base: u16, rules: &[Rule]) {
    for rule in rules {
        let offset = base.saturating_add(rule.at);
        // A capability that claims to be where its registers cannot all be has only those that fit.
        if usize::from(offset) >= CONVENTIONAL_SIZE {
            continue;
        }
        let now = read_u32(raw, offset);
        registers.update(offset, |r| {
            *r = Register {
                shadow: now & rule.keep | rule.set,
                writable: rule.writable,
                live: rule.live,
                forward: rule.forward,
                clear: rule.clear,
            }
        });
    }
}

fn own(register: &mut Register) {
    *register = Register { live: ALL, forward: ALL, ..Register::default() };
}

fn header_bars(registers: &mut Registers, bars: &[Bar]) {
    for bar in bars {
        let mask = bar.address_mask();
        registers.update(bar.register(), |r| {
            *r = Register { shadow: bar.kind.type_bits(), writable: mask as u32, ..Register::default() };
        });
        if bar.kind.is_64bit() {
            registers.update(bar.register() + 4, |r| {
                *r = Register { writable: (mask >> 32) as u32, ..Register::default() };
            });
        }
        let decode = if bar.kind == BarKind::Io { COMMAND_IO } else { COMMAND_MEMORY };
        registers.update(COMMAND, |r| r.writable |= u32::from(decode));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// The function's own registers: reads and writes go there.
    Own,
    /// As the function had them when it was attached.
    ReadOnly,
    /// By rules, or by `msi` and `msix`.
    Emulated,
    Hidden,
}

fn treatment(id: u8) -> Treatment {
    match id {
        capability_id::POWER | capability_id::EXPRESS | capability_id::MSI | capability_id::MSIX => {
            Treatment::Emulated
        }
        capability_id::VPD | capability_id::VENDOR => Treatment::Own,
        capability_id::SUBSYSTEM | capability_id::SATA | capability_id::PCI_X => Treatment::ReadOnly,
        _ => Treatment::Hidden,
    }
}

fn is_visible(raw: &[u8], capability: &Capability) -> bool {
    match capability.id {
        // A legacy endpoint cannot stand on a root bus as anything else, and a port's registers are no endpoint's.
        capability_id::EXPRESS => {
            matches!(express_type(raw, capability), EXPRESS_ENDPOINT | EXPRESS_INTEGRATED_ENDPOINT)
        }
        id => treatment(id) != Treatment::Hidden,
    }
}

fn express_type(raw: &[u8], capability: &Capability) -> u16 {
    read_u16(raw, capability.offset + 2) >> 4 & 0xf
}

/// Bytes of a capability: known from its id and contents, or up to whatever comes next; in any case within the first
/// 256 bytes.
fn length(raw: &[u8], capability: &Capability, list: &[Capability]) -> u16 {
    let room = CONVENTIONAL_SIZE as u16 - capability.offset;
    known_length(raw, capability, list).min(room)
}

fn known_length(raw: &[u8], capability: &Capability, list: &[Capability]) -> u16 {
    let control = read_u16(raw, capability.offset + 2);
    match capability.id {
        capability_id::POWER | capability_id::VPD | capability_id::SUBSYSTEM => 8,
        capability_id::SATA | capability_id::PCI_X | capability_id::ADVANCED_FEATURES => 8,
        capability_id::DEBUG_PORT => 4,
        capability_id::MSIX => 12,
        // 64-bit address and per-vector masking make it longer (PCIe 6.0 §7.7.1).
        capability_id::MSI => match (control & 0x80 != 0, control & 0x100 != 0) {
            (false, false) => 12,
            (true, false) => 16,
            (false, true) => 20,
            (true, true) => 24,
        },
        // Without Slot and Root registers; an integrated endpoint has no Link registers either.
        capability_id::EXPRESS => match (control & 0xf, express_type(raw, capability)) {
            (..=1, EXPRESS_INTEGRATED_ENDPOINT) => 0x0c,
            (..=1, _) => 0x14,
            (_, EXPRESS_INTEGRATED_ENDPOINT) => 0x2c,
            (_, EXPRESS_ENDPOINT | EXPRESS_LEGACY_ENDPOINT) => 0x34,
            _ => 0x3c,
        },
        capability_id::VENDOR => (control & 0xff).max(4),
        _ => {
            let next = list.iter().map(|c| c.offset).filter(|o| *o > capability.offset).min();
            next.unwrap_or(CONVENTIONAL_SIZE as u16) - capability.offset
        }
    }
}

fn capability_body(registers: &mut Registers, raw: &[u8], capability: &Capability, list: &[Capability]) {
    let base = capability.offset;
    match capability.id {
        capability_id::POWER => apply(registers, raw, base, &POWER),
        capability_id::EXPRESS => {
            let rules = if read_u16(raw, base + 2) & 0xf >= 2 { &EXPRESS[..] } else { &EXPRESS[..3] };
            apply(registers, raw, base, rules);
        }
        capability_id::VPD => apply(registers, raw, base, &VPD),
        capability_id::MSI | capability_id::MSIX => {}
        id => {
            let end = base.saturating_add(length(raw, capability, list));
            for offset in (base..end).step_by(4) {
                if treatment(id) == Treatment::Own {
                    registers.update(offset, own);
                } else {
                    let now = read_u32(raw, offset);
                    registers.update(offset, |r| *r = Register { shadow: now, ..Register::default() });
                }
            }
            // The id and the pointer are ours, and so is what shares their dword as far as it is constant: for a
            // vendor-specific capability its length.
            registers.update(base, |r| {
                r.live &= 0xff00_0000;
                r.forward &= 0xff00_0000;
                r.shadow = read_u32(raw, base) & 0x00ff_0000 | r.shadow & 0xffff_0000;
            });
        }
    }
}

/// Ties the capabilities that the guest sees into a list.
fn link(registers: &mut Registers, visible: &[&Capability]) {
    let mut next = 0;
    for capability in visible.iter().rev() {
        registers.update(capability.offset, |r| {
            r.shadow = r.shadow & 0xffff_0000 | u32::from(next) << 8 | u32::from(capability.id);
            r.writable &= 0xffff_0000;
            r.live &= 0xffff_0000;
            r.forward &= 0xffff_0000;
        });
        next = capability.offset;
    }
    registers.update(CAPABILITIES, |r| *r = Register { shadow: u32::from(next), ..Register::default() });
    if next != 0 {
        registers.update(STATUS, |r| r.shadow |= u32::from(STATUS_CAPABILITIES) << 16);
    }
}

/// The extended capabilities that the guest sees, read-only.
fn extended_list(registers: &mut Registers, raw: &[u8], list: &[ExtendedCapability]) {
    let mut visible: Vec<(&ExtendedCapability, u16, bool)> = Vec::new();
    for capability in list {
        let next = list.iter().map(|c| c.offset).filter(|o| *o > capability.offset).min();
        let room = next.unwrap_or(EXPRESS_SIZE as u16) - capability.offset;
        let (len, live) = match capability.id {
            extended_id::AER => (0x48, true),
            extended_id::SERIAL_NUMBER => (0x0c, false),
            extended_id::VENDOR => ((read_u32(raw, capability.offset + 4) >> 20) as u16, true),
            _ => continue,
        };
        visible.push((capability, len.clamp(4, room), live));
    }
    for (capability, len, live) in &visible {
        for offset in (capability.offset + 4..capability.offset + len).step_by(4) {
            let shadow = read_u32(raw, offset);
            registers.update(offset, |r| {
                *r = Register { shadow, live: if *live { ALL } else { 0 }, ..Register::default() };
            });
        }
    }
    let mut next = 0;
    for (capability, _, _) in visible.iter().rev() {
        let header = u32::from(next) << 20 | u32::from(capability.version) << 16 | u32::from(capability.id);
        registers.update(capability.offset, |r| *r = Register { shadow: header, ..Register::default() });
        next = capability.offset;
    }
    // The list starts at 0x100 whatever is there: a null capability (id 0, PCIe 6.0 §7.9.28) leads on when it is not
    // one of those shown.
    if next > EXTENDED_CAPABILITIES {
        let null = Register { shadow: u32::from(next) << 20 | 1 << 16, ..Register::default() };
        registers.update(EXTENDED_CAPABILITIES, |r| *r = null);
    }
}
