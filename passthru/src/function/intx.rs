//! INTx: the interrupt that a function has without being told where to send it (PCI 3.0 §2.2.6).

use super::effect::Effect;
use super::registers::Registers;
use crate::pci::registers::*;

/// The INTx of a function.
#[derive(Clone, Copy, Debug)]
pub struct Intx {
    /// The function has a pin, and the host can deliver it.
    available: bool,
    /// The host was told to.
    on: bool,
}

impl Intx {
    /// Off.
    pub fn new(available: bool) -> Intx {
        Intx { available, on: false }
    }

    /// The host delivers it.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The guest may have made the function interrupt: it let it answer, or reach memory. Before, a function that was reset
    /// has no reason to, and a guest that goes on to use messages never needs the line.
    pub fn may_be_asserted(&self, registers: &Registers) -> bool {
        self.on || registers.word(COMMAND) & (COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER) != 0
    }

    /// Brings the host to it.
    pub fn settle(&mut self, on: bool, effects: &mut Vec<Effect>) {
        let on = on && self.available;
        if self.on != on {
            self.on = on;
            effects.push(Effect::SetIntx(on));
        }
    }
}
