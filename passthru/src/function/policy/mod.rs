//! What a guest finds in a function's configuration space: one rule for every bit of the header and of each capability,
//! and what becomes of the rest.
//!
//! | what | where | how |
//! |---|---|---|
//! | header | `header` | emulated; status errors are read from and cleared in the function |
//! | capabilities of the first 256 bytes | `standard` | a table: emulated, the function's own, constant or hidden |
//! | power management | `power` | emulated: D0 and D3hot, no events |
//! | PCI Express | `express` | emulated: the type and link of the guest's slot, nothing that moves the host's |
//! | MSI, MSI-X | `msi`, `msix` | emulated |
//! | extended capabilities | `extended` | a table: read-only or hidden |
//! | the lists | `list` | linked anew |
//! | bytes from 0x40 on that no capability has | here | the function's own |
//!
//! Nothing that moves power, links, interrupts or resets reaches the function by its registers: where a guest may ask
//! for it, [`Controls`] says which register's writes mean it. What is hidden reads zero, registers included. A capability
//! whose registers are another's too is hidden, see [`crate::pci::capability`].

mod express;
mod extended;
mod header;
mod list;
mod power;
mod rule;
mod standard;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use super::quirks::Quirks;
use super::registers::Registers;
use crate::pci::bar::Bar;
use crate::pci::capability::{Capability, ExtendedCapability};
use crate::pci::registers::*;

/// Where the guest's function stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// On a root bus. A PCI Express endpoint is integrated into the root complex there.
    #[default]
    RootBus,
    /// Behind a port of the guest.
    BehindPort {
        /// Speed of its link, from 1 for 2.5 GT/s to 6 for 64 GT/s.
        speed: u8,
        /// Width of its link, in lanes.
        width: u8,
    },
}

/// What a guest's function is to be, beside what the host's is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Other functions are at the same device.
    pub multi_function: bool,
    /// Where it stands.
    pub place: Place,
    /// Reads of the pages that hold its MSI-X table and pending bits exit as well, for a function that has registers beside
    /// them.
    pub trap_msix: bool,
}

/// What the host can do, as far as the registers show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The function can be reset by itself at any time.
    pub reset: bool,
    /// Its INTx reaches the guest.
    pub intx: bool,
    /// D3hot is passed on to it.
    pub power_states: bool,
}

/// The registers of a function.
#[derive(Clone, Debug)]
pub struct Built {
    /// All of them, before MSI and MSI-X.
    pub registers: Registers,
    /// Those whose writes mean more.
    pub controls: Controls,
}

/// Where the registers are whose writes are more than a change of bits. Which those bits are is in
/// [`crate::pci::registers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Power Management Control/Status (PMCSR), a word.
    pub power: Option<u16>,
    /// Device Control of PCI Express, a word; if its function-level reset is offered.
    pub device_control: Option<u16>,
    /// Control of Advanced Features, a byte; if its function-level reset is offered.
    pub advanced_features: Option<u16>,
}

/// What all rules are given.
struct Given<'a> {
    raw: &'a [u8],
    shape: Shape,
    offer: Offer,
    quirks: &'a Quirks,
}

impl Given<'_> {
    /// A function-level reset that the function announces can be offered.
    fn resets(&self) -> bool {
        self.offer.reset && !self.quirks.no_flr
    }
}

/// Builds the registers of a function whose physical configuration space is `raw`, before MSI and MSI-X, which
/// `msi` and `msix` put in themselves. The lists name what is really there; `shown` says which of
/// the interrupt capabilities the guest is to see.
#[allow(clippy::too_many_arguments)]
pub fn build(
    raw: &[u8],
    bars: &[Bar],
    list: &[Capability],
    extended: &[ExtendedCapability],
    shape: Shape,
    offer: Offer,
    quirks: &Quirks,
    shown: impl Fn(&Capability) -> bool,
) -> Built {
    let len = if raw.len() > CONVENTIONAL_SIZE { EXPRESS_SIZE } else { CONVENTIONAL_SIZE };
    let mut registers = Registers::new(len);
    let given = Given { raw, shape, offer, quirks };
    for offset in (0x40..CONVENTIONAL_SIZE as u16).step_by(4) {
        registers.update(offset, |r| *r = standard::own());
    }
    header::build(&mut registers, &given, bars);
    let (visible, controls) = standard::build(&mut registers, &given, list, shown);
    list::link(&mut registers, &visible);
    if len == EXPRESS_SIZE {
        let visible = extended::build(&mut registers, &given, extended);
        list::link_extended(&mut registers, &visible);
    }
    Built { registers, controls }
}
