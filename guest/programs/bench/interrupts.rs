//! Interrupts of functions that raise one when a register is written.

use runtime::function::Function;
use runtime::msi::Msi;
use runtime::msix::MsiX;
use runtime::window::Window;
use runtime::{Boot, Check, apic, ensure, interrupt};

use crate::device::{EDU, SIMULATED};
use crate::{Bench, Measured, Why, absent};

const VECTOR: u8 = 0x50;
/// For an interrupt that must come; microseconds.
const PATIENCE: u64 = 5_000_000;

/// In BAR0 of slotpass' simulated function: raises the vector that is written.
const SIMULATED_TRIGGER: u64 = 0x48;
/// Raises vector 0, by an eventfd that the write signals.
const SIMULATED_DOORBELL: u64 = 0x50;
/// In BAR0 of an edu: raises an interrupt with that status, which must be acknowledged.
const EDU_RAISE: u64 = 0x60;
const EDU_ACKNOWLEDGE: u64 = 0x64;

enum Kind<'a> {
    Simulated(MsiX<'a>),
    Edu(Msi<'a>),
}

/// A function with one vector live.
struct Raiser<'a> {
    registers: Window,
    kind: Kind<'a>,
}

impl<'a> Raiser<'a> {
    fn of(function: &'a Check<Function>, boot: &Boot) -> Result<Self, Why> {
        let function = match function {
            Ok(function) => function,
            Err(why) => absent!("{why}"),
        };
        let message = apic::message(boot.apic_id, VECTOR);
        let kind = match function.id() {
            SIMULATED => {
                let msix = MsiX::of(function)?;
                msix.set_enabled(true);
                msix.program(0, message, false);
                Kind::Simulated(msix)
            }
            EDU => {
                let msi = Msi::of(function)?;
                msi.enable(message, 1);
                Kind::Edu(msi)
            }
            _ => absent!("{} is no function with a register known to raise an interrupt", function.slot()),
        };
        Ok(Self { registers: function.memory_bar(0)?, kind })
    }

    /// The register, and what is written to it.
    fn trigger(&self) -> (Window, u32) {
        match self.kind {
            Kind::Simulated(_) => (self.registers.part(SIMULATED_TRIGGER, 4), 0),
            Kind::Edu(_) => (self.registers.part(EDU_RAISE, 4), 1),
        }
    }

    /// A register of which a write does nothing but signal, if there is one.
    fn doorbell(&self) -> (Window, u32) {
        match self.kind {
            Kind::Simulated(_) => (self.registers.part(SIMULATED_DOORBELL, 4), 0),
            Kind::Edu(_) => self.trigger(),
        }
    }

    fn acknowledge(&self) {
        if let Kind::Edu(_) = self.kind {
            self.registers.write32(EDU_ACKNOWLEDGE, 1);
        }
    }
}

impl Drop for Raiser<'_> {
    fn drop(&mut self) {
        match &self.kind {
            Kind::Simulated(msix) => {
                msix.set_mask(0, true);
                msix.set_enabled(false);
            }
            Kind::Edu(msi) => msi.disable(),
        }
    }
}

/// The write alone, while the interrupt is held back.
pub fn doorbell(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let Bench { boot, samples, function, .. } = bench;
    let raiser = Raiser::of(function, boot)?;
    let (register, value) = raiser.doorbell();
    Ok(samples.measure(name, || {
        let next = interrupt::count(VECTOR) + 1;
        apic::hold_back(0xf);
        let spent = register.cycles_of_write32(0, value);
        apic::hold_back(0);
        ensure!(interrupt::reaches(VECTOR, next, PATIENCE), "the interrupt never came");
        raiser.acknowledge();
        Ok(spent)
    })?)
}

/// From the write to the first instruction of the handler.
pub fn interrupt(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let Bench { boot, samples, function, .. } = bench;
    let raiser = Raiser::of(function, boot)?;
    let (register, value) = raiser.trigger();
    Ok(samples.measure(name, || {
        let spent = until_handled(VECTOR, || register.stamped_write32(0, value))?;
        raiser.acknowledge();
        Ok(spent)
    })?)
}

/// Cycles from what `raise` returns to the first instruction of the handler.
pub fn until_handled(vector: u8, raise: impl FnOnce() -> u64) -> Check<u64> {
    let next = interrupt::count(vector) + 1;
    let begin = raise();
    ensure!(interrupt::reaches(vector, next, PATIENCE), "the interrupt never came");
    Ok(interrupt::handled_at(vector).wrapping_sub(begin))
}
