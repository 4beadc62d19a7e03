//! A function that is reset by its own register, or sleeps for a while.

use runtime::capability::{ADVANCED_FEATURES, PCI_EXPRESS, POWER_MANAGEMENT};
use runtime::config::ConfigSpace;
use runtime::function::{COMMAND, Function};
use runtime::time::{Deadline, cycles, cycles_per_microsecond, sleep_microseconds};
use runtime::window::Window;
use runtime::{Boot, Check, Text, ensure, ensure_equal, fail};

const ALL_ONES: u32 = u32::MAX;
/// Function-level reset in the device capabilities, and in the device control register (PCIe 6.0 §7.5.3.3, §7.5.3.4).
const RESET_CAPABLE: u32 = 1 << 28;
const RESET: u16 = 1 << 15;
/// The same in the capability of conventional functions.
const ADVANCED_RESET_CAPABLE: u8 = 1 << 1;
const ADVANCED_RESET: u8 = 1;
const D3_HOT: u16 = 3;
const NO_SOFT_RESET: u16 = 1 << 3;
/// Microseconds that a function may take to change its power state (PCIe 6.0 §5.9).
const POWER_CHANGE: u64 = 10_000;
const PATIENCE: u64 = 20_000_000;

/// What a driver saves before a reset.
struct Saved {
    command: u16,
    bars: [u32; 6],
}

impl Saved {
    fn of(function: &Function) -> Self {
        let bars = core::array::from_fn(|n| function.read32(0x10 + 4 * n as u16));
        Self { command: function.read16(COMMAND), bars }
    }

    fn restore(&self, function: &Function) {
        for (value, n) in self.bars.iter().zip(0..) {
            function.write32(0x10 + 4 * n, *value);
        }
        function.write16(COMMAND, self.command);
    }
}

/// The first memory BAR, if there is one: its first register tells whether the function answers there.
fn registers(function: &Function) -> Option<Window> {
    (0..6).find_map(|index| function.memory_bar(index).ok())
}

fn start(function: &Function) -> Check<&'static str> {
    if let Some(express) = function.capability(PCI_EXPRESS)
        && function.read32(express + 4) & RESET_CAPABLE != 0
    {
        function.write16(express + 8, function.read16(express + 8) | RESET);
        return Ok("FLR");
    }
    if let Some(advanced) = function.capability(ADVANCED_FEATURES)
        && function.read8(advanced + 3) & ADVANCED_RESET_CAPABLE != 0
    {
        function.write8(advanced + 4, ADVANCED_RESET);
        return Ok("AF-FLR");
    }
    fail!("no function-level reset")
}

pub fn by_itself(_: &Boot, function: &Function) -> Check<Text> {
    let id = function.id();
    let saved = Saved::of(function);
    let registers = registers(function);
    let first = registers.map_or(0, |registers| registers.read32(0));

    let begin = cycles();
    let deadline = Deadline::after_microseconds(PATIENCE);
    let way = start(function)?;
    let mut silent = 0u32;
    loop {
        let register = registers.map_or(ALL_ONES, |registers| registers.read32(0));
        match function.id() {
            ALL_ONES => {
                // It was in reset before this read and after it.
                ensure!(silent == 0 || register == ALL_ONES, "a BAR reads {register:#x} during the reset");
                silent += 1;
            }
            seen => {
                ensure_equal!(seen, id, "id after the reset");
                break;
            }
        }
        ensure!(!deadline.passed(), "all-ones and no end");
    }
    let microseconds = (cycles() - begin) / cycles_per_microsecond();

    ensure_equal!(function.read16(COMMAND) & 7, 0u16, "command after the reset");
    for (before, n) in saved.bars.iter().zip(0..) {
        // The bits that tell the kind of a BAR stay.
        let kind = if before & 1 == 1 { before & 3 } else { before & 0xf };
        let seen = function.read32(0x10 + 4 * n);
        ensure!(seen == kind || seen == 0, "BAR{n} after the reset: {seen:#x}");
    }
    saved.restore(function);
    let seen = registers.map_or(0, |registers| registers.read32(0));
    ensure_equal!(seen, first, "first register after the reset");
    Ok(Text::new(format_args!("{way}, back after {microseconds} us, {silent} reads all-ones meanwhile")))
}

pub fn sleeps(_: &Boot, function: &Function) -> Check<Text> {
    let Some(power) = function.capability(POWER_MANAGEMENT) else { fail!("no power management") };
    let control = power + 4;
    let id = function.id();
    let saved = Saved::of(function);
    let registers = registers(function);
    let first = registers.map_or(0, |registers| registers.read32(0));
    let stays = function.read16(control) & NO_SOFT_RESET != 0;

    let awake = function.read16(control) & !3;
    function.write16(control, awake | D3_HOT);
    sleep_microseconds(POWER_CHANGE);
    ensure_equal!(function.read16(control) & 3, D3_HOT, "power state");
    ensure_equal!(function.id(), id, "id in D3hot");
    let asleep = registers.map_or(ALL_ONES, |registers| registers.read32(0));
    function.write16(control, awake);
    sleep_microseconds(POWER_CHANGE);
    ensure_equal!(function.read16(control) & 3, 0u16, "power state");
    if stays {
        ensure_equal!(function.read16(COMMAND), saved.command, "command after D3hot");
        for (before, n) in saved.bars.iter().zip(0..) {
            ensure_equal!(function.read32(0x10 + 4 * n), *before, "BAR{n} after D3hot");
        }
    } else {
        saved.restore(function);
    }
    let seen = registers.map_or(0, |registers| registers.read32(0));
    ensure_equal!(seen, first, "first register after D3hot");
    let kept = if stays { "kept" } else { "not kept" };
    let silent = if asleep == ALL_ONES { "silent" } else { "answering" };
    Ok(Text::new(format_args!("registers {kept}, BARs {silent} in D3hot")))
}
