//! The I/O APIC at its usual place (Intel 82093AA data sheet, chapter 3): its pin n is GSI n.

use crate::window::Window;

const BASE: u64 = 0xfec0_0000;
const SELECT: u64 = 0x00;
const DATA: u64 = 0x10;
/// First of the redirection table, two registers for each pin.
const REDIRECTION: u32 = 0x10;

const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

fn write(register: u32, value: u32) {
    let registers = Window::device(BASE, 0x20);
    registers.write32(SELECT, register);
    registers.write32(DATA, value);
}

/// The GSI that INTx pin `pin` (1 to 4) of a device is wired to, as slotpass' `_PRT` has it: 16 to 23, rotated by device.
#[must_use]
pub fn intx_gsi(device: u8, pin: u8) -> u8 {
    16 + (device + pin.saturating_sub(1)) % 8
}

/// Lets a PCI interrupt line (level, active low) raise `vector` at one vCPU.
pub fn route(gsi: u8, vector: u8, apic_id: u8) {
    route_level(gsi, ACTIVE_LOW | u32::from(vector), apic_id);
}

/// Lets a level interrupt that is active high raise `vector` at one vCPU.
pub fn route_high(gsi: u8, vector: u8, apic_id: u8) {
    route_level(gsi, u32::from(vector), apic_id);
}

fn route_level(gsi: u8, entry: u32, apic_id: u8) {
    let register = REDIRECTION + 2 * u32::from(gsi);
    write(register, MASKED);
    write(register + 1, u32::from(apic_id) << 24);
    write(register, LEVEL | entry);
}

pub fn mask(gsi: u8) {
    write(REDIRECTION + 2 * u32::from(gsi), MASKED);
}
