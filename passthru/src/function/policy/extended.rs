//! The capabilities of the extended configuration space: those that a guest sees are read-only.

use super::Given;
use super::rule::ALL;
use crate::function::registers::{Register, Registers};
use crate::pci::capability::{ExtendedCapability, read_u32};
use crate::pci::registers::extended_id;

/// How a capability reaches the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Reads go to the function.
    Live,
    /// As the function had it when it was attached.
    Constant,
}
use Treatment::*;

/// What is not named here is hidden. All of these would have the guest change what is the host's, or promise what the
/// guest cannot have:
///
/// * requester ids and what is made of them: ARI, ACS, SR-IOV, ATS, page requests, PASID, multicast;
/// * addresses: resizable BARs, of the function and of its virtual functions, whose size is fixed while the host has
///   them mapped;
/// * links and their power: LTR, L1 substates, link equalization, lane margining, downstream port containment,
///   precision time, virtual channels, power budgeting, dynamic power allocation;
/// * protocols with the host's firmware or with the platform: data object exchange, TPH, designated vendor-specific
///   (CXL), integrity and data encryption, readiness notifications.
#[rustfmt::skip]
const TREATMENTS: [(u16, Treatment); 3] = [
    (extended_id::AER,           Live),     // what happened; masks, severities and clearing are the host's
    (extended_id::SERIAL_NUMBER, Constant), // of the card
    (extended_id::VENDOR,        Live),     // drivers know it, nobody else: reading has to do
];

/// Puts those in that the guest sees, and gives them in the order of the list.
pub fn build<'a>(
    registers: &mut Registers,
    given: &Given,
    list: &'a [ExtendedCapability],
) -> Vec<&'a ExtendedCapability> {
    let mut visible = Vec::new();
    for capability in list.iter().filter(|c| c.intact) {
        let treatment = TREATMENTS.iter().find(|(id, _)| *id == capability.id);
        let Some((_, treatment)) = treatment else { continue };
        visible.push(capability);
        for offset in (capability.offset + 4..capability.offset + capability.len).step_by(4) {
            let shadow = read_u32(given.raw, offset);
            let live = if *treatment == Live { ALL } else { 0 };
            registers.update(offset, |r| *r = Register { shadow, live, ..Register::default() });
        }
    }
    visible
}
