//! The local APIC, by memory at its usual place (Intel SDM volume 3, chapter 11).

use crate::interrupt;
use crate::window::Window;

const BASE: u64 = 0xfee0_0000;
const ID: u64 = 0x20;
const TASK_PRIORITY: u64 = 0x80;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS_VECTOR: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const LINT0: u64 = 0x350;
const TIMER_START: u64 = 0x380;
const TIMER_NOW: u64 = 0x390;
const TIMER_DIVISOR: u64 = 0x3e0;

const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const ENABLED: u32 = 1 << 8;
const DIVIDE_BY_1: u32 = 0b1011;

/// KVM and QEMU let the timer count nanoseconds.
const COUNTS_PER_MICROSECOND: u64 = 1000;
/// Microseconds.
const LONGEST_TICK: u64 = 10_000;

fn registers() -> Window {
    Window::device(BASE, 0x1000)
}

pub(crate) fn set_up() {
    let apic = registers();
    apic.write32(TASK_PRIORITY, 0);
    apic.write32(LINT0, MASKED);
    apic.write32(TIMER_DIVISOR, DIVIDE_BY_1);
    apic.write32(TIMER, MASKED | u32::from(interrupt::TIMER));
    apic.write32(SPURIOUS_VECTOR, ENABLED | u32::from(interrupt::SPURIOUS));
}

/// Id of the vCPU that asks.
#[must_use]
pub fn id() -> u8 {
    (registers().read32(ID) >> 24) as u8
}

/// Holds back interrupts of that class (a vector's upper four bits) and below; 0 lets all come.
pub fn hold_back(class: u8) {
    registers().write32(TASK_PRIORITY, u32::from(class & 0xf) << 4);
}

/// Raises the runtime's own vector after that time, at most [`LONGEST_TICK`], and again and again: should one come
/// just before the vCPU halts, the next one wakes it.
pub(crate) fn start_ticks(microseconds: u64) {
    let counts = microseconds.clamp(1, LONGEST_TICK) * COUNTS_PER_MICROSECOND;
    let apic = registers();
    apic.write32(TIMER, PERIODIC | u32::from(interrupt::TIMER));
    apic.write32(TIMER_START, counts as u32);
}

pub(crate) fn stop_ticks() {
    registers().write32(TIMER_START, 0);
}

/// Starts the timer without an interrupt and returns a reader of the nanoseconds that are left of `start`.
pub(crate) fn count_down(start: u32) -> impl Fn() -> u32 {
    let apic = registers();
    apic.write32(TIMER, MASKED | u32::from(interrupt::TIMER));
    apic.write32(TIMER_START, start);
    move || apic.read32(TIMER_NOW)
}

/// Message that raises `vector` at one vCPU: address and data (PCI address 0xFEExxxxx, physical destination, fixed,
/// edge).
#[must_use]
pub fn message(apic_id: u8, vector: u8) -> (u64, u32) {
    (BASE | u64::from(apic_id) << 12, u32::from(vector))
}

fn command(apic_id: u8, command: u32) {
    let apic = registers();
    apic.write32(COMMAND_HIGH, u32::from(apic_id) << 24);
    apic.write32(COMMAND_LOW, command);
    // Delivery status: the command has been taken.
    while apic.read32(COMMAND_LOW) & 1 << 12 != 0 {
        core::hint::spin_loop();
    }
}

pub(crate) fn end_of_interrupt() {
    registers().write32(END_OF_INTERRUPT, 0);
}

/// An interrupt from this vCPU to another.
pub fn send(apic_id: u8, vector: u8) {
    command(apic_id, 1 << 14 | u32::from(vector));
}

pub(crate) fn send_init(apic_id: u8) {
    command(apic_id, 0x4500);
}

pub(crate) fn send_start_up(apic_id: u8, page: u8) {
    command(apic_id, 0x4600 | u32::from(page));
}
