//! Power management (PCIe 6.0 §7.5.2).

use super::Offer;
use super::rule::{NOTHING, Rule, apply};
use crate::function::registers::Registers;
use crate::pci::capability::Capability;
use crate::pci::registers::power;

const RULES: [Rule; 2] = [
    // Version, immediate readiness on the return to D0, and device-specific initialization. Neither D1 nor D2, of which
    // hosts make nothing. No PME, its clock or auxiliary current: waking would wake the host.
    Rule { at: 0x00, keep: 0x0037_0000, ..NOTHING },
    // The state alone is the guest's to write. PME enable and status are not offered; data select and scale tell of the
    // host's power supply, and the bridge's byte of a bus that is not there.
    Rule { at: power::CONTROL, keep: power::NO_SOFT_RESET as u32, writable: power::STATE as u32, ..NOTHING },
];

/// The capability, and where its PMCSR is.
pub fn build(registers: &mut Registers, raw: &[u8], capability: &Capability, offer: &Offer) -> u16 {
    apply(registers, raw, capability.offset, capability.len, &RULES);
    let control = capability.offset + power::CONTROL;
    if !offer.power_states {
        // The function stays in D0 whatever the guest writes, and so keeps its registers.
        registers.update(control, |r| r.shadow |= u32::from(power::NO_SOFT_RESET));
    }
    control
}
