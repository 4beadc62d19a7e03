//! The header (PCIe 6.0 §7.5.1).

use super::Given;
use super::rule::{ALL, NOTHING, Rule, apply};
use crate::function::registers::{Register, Registers};
use crate::pci::bar::{self, Bar, BarKind};
use crate::pci::registers::*;

/// Status bits that the function sets and a one clears: parity error, aborts, system error (§7.5.1.1.4).
const STATUS_ERRORS: u32 = 0xf900 << 16;

const RULES: [Rule; 7] = [
    // Vendor and device.
    Rule { at: 0x00, keep: ALL, ..NOTHING },
    Rule {
        at: 0x04,
        // 66 MHz, fast back-to-back and DEVSEL timing stay. Immediate readiness is not promised: what the guest does
        // may need the host's help. The capability bit is set with the list.
        keep: 0x06a0 << 16,
        // Bus master, parity response, SERR and INTx disable; I/O and memory are added with the BARs. Special cycles,
        // write-and-invalidate, palette snooping and fast back-to-back are of buses that the guest has not.
        writable: 0x0544,
        live: STATUS_ERRORS,
        forward: STATUS_ERRORS,
        clear: STATUS_ERRORS,
        ..NOTHING
    },
    // Revision and class.
    Rule { at: 0x08, keep: ALL, ..NOTHING },
    // Header layout, without the host's multi-function bit. Cache line size is scratch, the latency timer is of
    // conventional buses, and a self-test (BIST) could hold the host's bus up.
    Rule { at: 0x0c, keep: 0x007f_0000, writable: 0xff, ..NOTHING },
    // CardBus CIS pointer, which leads into the function's own BARs.
    Rule { at: 0x28, keep: ALL, ..NOTHING },
    // Subsystem ids.
    Rule { at: 0x2c, keep: ALL, ..NOTHING },
    // Interrupt line is scratch, the pin is added where INTx is; minimum grant and maximum latency stay.
    Rule { at: 0x3c, keep: 0xffff_0000, writable: 0xff, ..NOTHING },
];

/// The header, BARs and all.
pub fn build(registers: &mut Registers, given: &Given, bars: &[Bar]) {
    let raw = given.raw;
    apply(registers, raw, 0, 0x40, &RULES);
    base_addresses(registers, bars);
    if given.quirks.intx_unmaskable {
        // A bit that cannot be set is how software finds out that INTx cannot be disabled.
        registers.update(COMMAND, |r| r.writable &= !u32::from(COMMAND_INTX_DISABLE));
    }
    if given.shape.multi_function {
        registers.update(HEADER_TYPE, |r| r.shadow |= u32::from(HEADER_MULTI_FUNCTION) << 16);
    }
    let pin = raw.get(usize::from(INTERRUPT_PIN)).copied().unwrap_or(0);
    // Five and more are reserved: such a function has no pin that could be told.
    if given.offer.intx && !given.quirks.no_intx && matches!(pin, 1..=4) {
        registers.update(INTERRUPT_PIN, |r| r.shadow |= u32::from(pin) << 8);
        registers.update(STATUS, |r| r.live |= u32::from(STATUS_INTERRUPT) << 16);
    }
}

fn base_addresses(registers: &mut Registers, bars: &[Bar]) {
    for bar in bars {
        let mask = bar.address_mask();
        // Of a ROM's register the lowest bit lets it answer (§7.5.1.2.4).
        let (shadow, enable) = if bar.index == bar::ROM { (0, 1) } else { (bar.kind.type_bits(), 0) };
        registers.update(bar.register(), |r| {
            *r = Register { shadow, writable: mask as u32 | enable, ..Register::default() };
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
