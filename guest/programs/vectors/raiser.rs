//! Functions that raise any of their vectors on demand.

use runtime::config::ConfigSpace;
use runtime::function::{Function, Id};
use runtime::window::Window;
use runtime::{Boot, Check, fail};

use crate::nvme::Nvme;

const SIMULATED: u32 = 0x0001_5350;
/// In BAR0 of slotpass' simulated function.
const TRIGGER: u64 = 0x48;
const CLASS: u16 = 0x08;
/// Mass storage, non-volatile memory, NVM Express.
const NVME: u32 = 0x01_0802;

pub enum Raiser {
    Simulated(Window),
    Nvme(Nvme),
}

impl Raiser {
    pub fn of(boot: &Boot, function: &Function) -> Check<Self> {
        match (function.id(), function.read32(CLASS) >> 8) {
            (SIMULATED, _) => Ok(Self::Simulated(function.memory_bar(0)?)),
            (_, NVME) => Ok(Self::Nvme(Nvme::start(boot, function)?)),
            (id, class) => fail!("{} of class {class:#08x} cannot raise vectors", Id(id)),
        }
    }

    /// Raises a vector once: it has been sent, or is pending, when this returns.
    pub fn raise(&mut self, vector: u16) -> Check {
        match self {
            Self::Simulated(registers) => {
                registers.write32(TRIGGER, vector.into());
                Ok(())
            }
            Self::Nvme(drive) => drive.raise(vector),
        }
    }
}
