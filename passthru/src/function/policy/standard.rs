//! The capabilities of the first 256 bytes: which of them a guest sees, and as what.

use super::rule::{ALL, NOTHING, Rule, apply};
use super::{Controls, Given, express, power};
use crate::function::registers::{Register, Registers};
use crate::pci::capability::{Capability, read_u32};
use crate::pci::registers::*;

/// How a capability reaches the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// By rules of its own, in a file of this folder or in `msi` and `msix`.
    Emulated,
    /// The function's own registers: reads and writes go there.
    Own,
    /// As the function had it when it was attached.
    Constant,
    /// Not at all, registers included.
    Hidden,
}
use Treatment::*;

/// What is not named here is hidden: nobody knows what its registers do.
#[rustfmt::skip]
const TREATMENTS: [(u8, Treatment); 22] = [
    (capability_id::NULL,                Hidden),   // says nothing
    (capability_id::POWER,               Emulated), // see `power`
    (capability_id::AGP,                 Hidden),   // sets a bridge of the host up
    (capability_id::VPD,                 Emulated), // a serial ROM behind two registers, the function's own
    (capability_id::SLOT,                Hidden),   // numbers the host's chassis
    (capability_id::MSI,                 Emulated), // see `msi`
    (capability_id::HOT_SWAP,            Hidden),   // takes a card out of the host
    (capability_id::PCI_X,               Emulated), // drivers want it, and its status names the host's bus
    (capability_id::HYPER_TRANSPORT,     Hidden),   // holds links and interrupts of the host
    (capability_id::VENDOR,              Own),      // drivers know it, nobody else
    (capability_id::DEBUG_PORT,          Constant), // leads into the function's own BAR
    (capability_id::COMPACT_PCI,         Hidden),   // rules over a bus of the host
    (capability_id::HOT_PLUG,            Hidden),   // rules over slots of the host
    (capability_id::SUBSYSTEM,           Constant), // ids
    (capability_id::AGP_8X,              Hidden),   // sets a bridge of the host up
    (capability_id::SECURE,              Hidden),   // never specified
    (capability_id::EXPRESS,             Emulated), // see `express`
    (capability_id::MSIX,                Emulated), // see `msix`
    (capability_id::SATA,                Constant), // leads into the function's own BAR
    (capability_id::ADVANCED_FEATURES,   Emulated), // function-level reset
    (capability_id::ENHANCED_ALLOCATION, Hidden),   // has addresses of the host
    (capability_id::FLATTENING_PORTAL,   Hidden),   // of bridges
];

/// Vital product data (PCIe 6.0 §7.9.18): address, flag and data. The guest reads them: the flag, which a write would set,
/// is always written as zero, since what is written is there for the card's next user as well.
const VPD: [Rule; 2] = [
    Rule { at: 0, live: 0xffff_0000, forward: 0x7fff_0000, clear: 0x8000_0000, ..NOTHING },
    Rule { at: 4, live: ALL, ..NOTHING },
];

/// PCI-X (PCI-X 2.0 §7.2): the command is kept for the guest, since sizes and orders on the host's bus are the host's.
/// The status has bus and device number as after a reset, for those that it has are the host's. No errors: clearing
/// them is the host's.
const PCI_X: [Rule; 2] = [
    Rule { at: 0, keep: 0x007f_0000, writable: 0x007f_0000, ..NOTHING },
    Rule { at: 4, keep: 0xdff3_0000, set: 0xfff8, ..NOTHING },
];

/// Advanced Features (ECN "Advanced Capabilities for Conventional PCI"): length, the capabilities, and in the status
/// whether transactions are pending. The control's only bit starts a reset and reads zero.
const ADVANCED_FEATURES: [Rule; 2] =
    [Rule { at: 0, keep: 0x03ff_0000, ..NOTHING }, Rule { at: 4, live: 0x0100, ..NOTHING }];

/// Puts those in that the guest sees, and gives them in the order of the list.
pub fn build<'a>(
    registers: &mut Registers,
    given: &Given,
    list: &'a [Capability],
    shown: impl Fn(&Capability) -> bool,
) -> (Vec<&'a Capability>, Controls) {
    for capability in list {
        let end = capability.offset.saturating_add(capability.len);
        for offset in (capability.offset..end).step_by(4) {
            registers.update(offset, |r| *r = Register::default());
        }
    }
    let (mut visible, mut controls): (Vec<&Capability>, _) = (Vec::new(), Controls::default());
    for capability in list.iter().filter(|c| c.intact && shown(c)) {
        // Of what software looks for once, the first counts; only vendor-specific ones may be many.
        let again = capability.id != capability_id::VENDOR && visible.iter().any(|c| c.id == capability.id);
        if !again && body(registers, given, capability, list, &mut controls) {
            visible.push(capability);
        }
    }
    (visible, controls)
}

/// Puts one capability's registers in, unless the guest does not see it.
fn body(
    registers: &mut Registers,
    given: &Given,
    capability: &Capability,
    list: &[Capability],
    controls: &mut Controls,
) -> bool {
    let (raw, base, len) = (given.raw, capability.offset, capability.len);
    match (treatment(capability.id), capability.id) {
        (Hidden, _) => return false,
        (Own, _) => {
            // The first dword's id and pointer are ours, and its length is constant.
            registers.update(base, |r| {
                *r = Register { shadow: read_u32(raw, base) & 0x00ff_0000, ..own() };
                (r.live, r.forward) = (0xff00_0000, 0xff00_0000);
            });
            for offset in (base..base + len).step_by(4).skip(1) {
                registers.update(offset, |r| *r = own());
            }
        }
        (Constant, _) => {
            for offset in (base..base + len).step_by(4) {
                registers.update(offset, |r| r.shadow = read_u32(raw, offset));
            }
        }
        (Emulated, capability_id::POWER) => {
            controls.power = Some(power::build(registers, raw, capability, &given.offer));
        }
        (Emulated, capability_id::EXPRESS) => {
            let room = room(base, list);
            let Some(form) = express::form(raw, capability, room, given.shape.place) else { return false };
            controls.device_control = express::build(registers, given, capability, &form);
        }
        (Emulated, capability_id::ADVANCED_FEATURES) => {
            let resets = read_u32(raw, base) & advanced_features::FUNCTION_LEVEL_RESET != 0;
            if !(resets && given.resets()) {
                return false;
            }
            apply(registers, raw, base, len, &ADVANCED_FEATURES);
            controls.advanced_features = Some(base + advanced_features::CONTROL);
        }
        (Emulated, capability_id::VPD) => apply(registers, raw, base, len, &VPD),
        (Emulated, capability_id::PCI_X) => apply(registers, raw, base, len, &PCI_X),
        // MSI and MSI-X put themselves in.
        (Emulated, _) => {}
    }
    true
}

/// A dword that is the function's own.
pub fn own() -> Register {
    Register { live: ALL, forward: ALL, ..Register::default() }
}

fn treatment(id: u8) -> Treatment {
    TREATMENTS.iter().find(|(known, _)| *known == id).map_or(Hidden, |(_, treatment)| *treatment)
}

/// Bytes from `offset` on until another capability starts.
fn room(offset: u16, list: &[Capability]) -> u16 {
    let next = list.iter().map(|c| c.offset).filter(|o| *o > offset).min();
    next.unwrap_or(CONVENTIONAL_SIZE as u16) - offset
}
