//! MSI-X entries and pending bits where the guest reads them while their function is changed: they stay over what keeps
//! them, and go with what takes them away.

use runtime::capability::{PCI_EXPRESS, POWER_MANAGEMENT};
use runtime::config::ConfigSpace;
use runtime::function::{COMMAND, DECODE_MEMORY, Function};
use runtime::msix::MsiX;
use runtime::time::{Deadline, sleep_microseconds};
use runtime::window::Window;
use runtime::{Check, Text, ensure, ensure_equal, fail};

use crate::Demo;
use crate::simulated::{PATIENCE, TRIGGER};
use crate::vectors::{Counts, QUIET_MICROSECONDS, program};

/// One that pends first, and one that comes to pend while nobody reads it.
const FIRST: u16 = 5;
const SECOND: u16 = 6;
const ONE: u64 = 1 << FIRST;
const BOTH: u64 = 1 << FIRST | 1 << SECOND;
/// An entry's control that masks it.
const MASKED: u32 = 1;
/// In the power management capability: control, and its states (PCIe 6.0 §7.5.2.2).
const POWER_CONTROL: u16 = 4;
const D3_HOT: u16 = 3;
/// Microseconds that a change of them may take (PCIe 6.0 §5.9).
const POWER_CHANGE: u64 = 10_000;
/// In the PCI Express capability: device control, and its bit that resets the function (PCIe 6.0 §7.5.3.4).
const DEVICE_CONTROL: u16 = 8;
const RESET: u16 = 1 << 15;

/// Waits until exactly these bits are set: the hypervisor hears of a masked vector after it was signalled.
fn wait_for(bits: &Window, wanted: u64, when: &str) -> Check {
    let deadline = Deadline::after_microseconds(PATIENCE);
    while bits.read64(0) != wanted {
        ensure!(!deadline.passed(), "pending bits {:#x}, not {wanted:#x}, {when}", bits.read64(0));
    }
    Ok(())
}

/// Entries of live vectors read masked, and unmasked, at once.
fn masks(msix: &MsiX) -> Check {
    for vector in [FIRST, SECOND] {
        for masked in [true, false, true] {
            msix.set_mask(vector, masked);
            ensure_equal!(msix.entry(vector).2, u32::from(masked), "control of live vector {vector}");
        }
    }
    Ok(())
}

/// Without memory decoding, in D3hot and at another address; the second vector is signalled by a port meanwhile.
fn stay(demo: &Demo, bits: &Window, at: u64) -> Check {
    let (function, device) = (demo.function, &demo.device);
    function.set_command(DECODE_MEMORY, false);
    let off = bits.read64(0);
    device.write_indexed(TRIGGER, u32::from(SECOND));
    sleep_microseconds(QUIET_MICROSECONDS);
    function.set_command(DECODE_MEMORY, true);
    ensure_equal!(off, u64::MAX, "pending bits with memory decode off");
    wait_for(bits, BOTH, "signalled with decode off")?;

    let Some(power) = function.capability(POWER_MANAGEMENT) else { fail!("no power management") };
    let awake = function.read16(power + POWER_CONTROL) & !D3_HOT;
    function.write16(power + POWER_CONTROL, awake | D3_HOT);
    sleep_microseconds(POWER_CHANGE);
    let asleep = bits.read64(0);
    function.write16(power + POWER_CONTROL, awake);
    sleep_microseconds(POWER_CHANGE);
    ensure_equal!(asleep, u64::MAX, "pending bits in D3hot");
    ensure_equal!(bits.read64(0), BOTH, "pending bits after D3hot");

    // To where BAR 2 is, as for the table's values.
    let (memory, tables) = (device.memory, device.tables);
    function.move_bar(2, 0)?;
    function.move_bar(4, memory.address())?;
    let seen = (memory.read64(at), bits.read64(0));
    function.move_bar(4, tables.address())?;
    function.move_bar(2, memory.address())?;
    ensure_equal!(seen.0, BOTH, "pending bits after their BAR was moved");
    ensure_equal!(seen.1, u64::MAX, "pending bits where they were before");
    ensure_equal!(bits.read64(0), BOTH, "pending bits after their BAR came back");
    Ok(())
}

/// Resets the function by its own register, and gives it back what a driver saves.
fn reset(function: &Function, bits: &Window) -> Check {
    let bars: [u32; 6] = core::array::from_fn(|n| function.read32(0x10 + 4 * n as u16));
    let (id, command) = (function.id(), function.read16(COMMAND));
    let Some(express) = function.capability(PCI_EXPRESS) else { fail!("no PCI Express capability") };
    let control = express + DEVICE_CONTROL;
    function.write16(control, function.read16(control) | RESET);
    ensure_equal!(bits.read64(0), u64::MAX, "pending bits during and after a reset");
    let deadline = Deadline::after_microseconds(PATIENCE);
    while function.id() != id {
        ensure!(!deadline.passed(), "the reset has no end");
    }
    for (value, n) in bars.iter().zip(0..) {
        function.write32(0x10 + 4 * n, *value);
    }
    function.write16(COMMAND, command);
    Ok(())
}

pub fn check(demo: &Demo) -> Check<Text> {
    let msix = MsiX::of(demo.function)?;
    let bits = msix.pending_bits();
    let at = bits.address() - demo.device.tables.address();
    program(demo, &msix, FIRST..SECOND + 1)?;
    masks(&msix)?;
    let counts = Counts::now();
    demo.device.trigger(FIRST);
    wait_for(&bits, ONE, "after the first signal")?;
    stay(demo, &bits, at)?;
    for (vector, left) in [(FIRST, BOTH & !ONE), (SECOND, 0)] {
        msix.set_mask(vector, false);
        ensure_equal!(bits.read64(0), left, "pending bits after vector {vector} was unmasked");
    }
    counts.expect_each_once(FIRST..SECOND + 1)?;

    let counts = Counts::now();
    for vector in [FIRST, SECOND] {
        msix.set_mask(vector, true);
        demo.device.trigger(vector);
    }
    wait_for(&bits, BOTH, "masked again")?;
    msix.set_enabled(false);
    ensure_equal!(bits.read64(0), 0u64, "pending bits with MSI-X off");
    msix.set_enabled(true);
    ensure_equal!(bits.read64(0), 0u64, "pending bits with MSI-X on again");
    ensure_equal!(msix.entry(FIRST).2, MASKED, "control after MSI-X was off");
    for vector in [FIRST, SECOND] {
        msix.set_mask(vector, false);
        msix.set_mask(vector, true);
    }
    sleep_microseconds(QUIET_MICROSECONDS);
    ensure!(counts.since(FIRST) + counts.since(SECOND) == 0, "a vector came that was turned off");

    demo.device.trigger(FIRST);
    wait_for(&bits, ONE, "before the reset")?;
    reset(demo.function, &bits)?;
    ensure!(!msix.any_pending(), "a vector is pending after the reset");
    for vector in 0..msix.vectors() {
        ensure!(
            msix.entry(vector) == (0, 0, MASKED),
            "entry {vector} reads {:x?} after the reset",
            msix.entry(vector)
        );
    }
    msix.set_enabled(true);
    Ok(Text::new(format_args!("decode, D3hot, moved, MSI-X off and on, FLR")))
}
