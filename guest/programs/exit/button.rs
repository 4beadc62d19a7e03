//! `power-button`: waits until ACPI's fixed power button is pressed (ACPI 6.5 §4.8.3.1), as an operating system does.

use runtime::{Boot, Check, ensure, ensure_equal, interrupt, io_apic, port, println};

/// Of the system control interrupt, which is level-triggered: held until the button is acknowledged.
const VECTOR: u8 = interrupt::HELD.start;
/// PWRBTN_STS and PWRBTN_EN.
const POWER_BUTTON: u16 = 1 << 8;
/// Where PM1_EN is, behind PM1_STS.
const ENABLE: u16 = 2;
/// Between two looks at whether it was pressed; for ever.
const LOOK: u64 = 10_000_000;
/// For an interrupt that must not come.
const QUIET: u64 = 20_000;

/// Comes back when it was pressed, and acknowledged.
pub fn pressed(boot: &Boot) -> Check {
    let button = boot.acpi.as_ref().and_then(|acpi| acpi.power_button());
    ensure!(button.is_some(), "the FADT has no fixed power button");
    let (events, gsi) = button.unwrap_or_default();
    interrupt::hold(true);
    io_apic::route_high(gsi, VECTOR, boot.apic_id);
    port::write16(events + ENABLE, POWER_BUTTON);
    ensure_equal!(port::read16(events + ENABLE), POWER_BUTTON, "PM1 enable");
    println!("power-button: ready");
    while !interrupt::wakes(VECTOR, 1, LOOK) {}
    ensure_equal!(port::read16(events), POWER_BUTTON, "PM1 status");
    port::write16(events, POWER_BUTTON);
    ensure_equal!(port::read16(events), 0u16, "PM1 status when acknowledged");
    interrupt::end();
    // On some hypervisors it is not held, and so has come more than once by now.
    let seen = interrupt::count(VECTOR);
    ensure!(!interrupt::reaches(VECTOR, seen + 1, QUIET), "the interrupt came again");
    io_apic::mask(gsi);
    interrupt::hold(false);
    Ok(())
}
