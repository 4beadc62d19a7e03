//! Level interrupts of QEMU's edu, by the I/O APIC: alone, in turns with MSI, and two functions on one line.
//!
//! The processor vector stays in service until the device is silent, as a driver's handler would have it. So each interrupt
//! counts once, and one more is one too many.

use runtime::config::ConfigSpace;
use runtime::function::{Function, INTERRUPT_PIN, INTX_DISABLE, STATUS, STATUS_INTX};
use runtime::msi::Msi;
use runtime::time::sleep_microseconds;
use runtime::window::Window;
use runtime::{Boot, Check, Text, apic, ensure, ensure_equal, interrupt, io_apic};

const INTERRUPT_STATUS: u64 = 0x24;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;

/// Of the line.
const VECTOR: u8 = interrupt::HELD.start;
const MESSAGE: u8 = 0x50;
const ROUNDS: u32 = 50;
const PATIENCE: u64 = 10_000_000;
/// For an interrupt that must not come.
const QUIET: u64 = 5_000;

/// One edu on an interrupt line.
struct Edu<'a> {
    function: &'a Function,
    registers: Window,
    gsi: u8,
}

impl<'a> Edu<'a> {
    fn of(boot: &Boot, function: &'a Function) -> Check<Self> {
        function.expect_id(0x1234, 0x11e8)?;
        let pin = function.read8(INTERRUPT_PIN);
        ensure!((1..=4).contains(&pin), "{} has interrupt pin {pin}", function.slot());
        let gsi = boot.command_line.number("gsi").map(|gsi| gsi as u8);
        let gsi = gsi.unwrap_or_else(|| io_apic::intx_gsi(function.slot().device, pin));
        function.set_command(INTX_DISABLE, false);
        Ok(Self { function, registers: function.memory_bar(0)?, gsi })
    }

    fn raise(&self, bits: u32) {
        self.registers.write32(RAISE, bits);
    }

    fn asserts(&self) -> bool {
        self.function.read16(STATUS) & STATUS_INTX != 0
    }

    /// What a handler does: makes the device silent.
    fn acknowledge(&self, bits: u32) -> Check {
        ensure_equal!(self.registers.read32(INTERRUPT_STATUS), bits, "interrupt status");
        self.registers.write32(ACKNOWLEDGE, bits);
        ensure_equal!(self.registers.read32(INTERRUPT_STATUS), 0u32, "interrupt status when acknowledged");
        Ok(())
    }

    /// Raises an interrupt on the line, and ends it.
    fn once(&self, bits: u32) -> Check {
        let before = interrupt::count(VECTOR);
        self.raise(bits);
        came(before + 1, "the line")?;
        ensure!(self.asserts(), "INTx is asserted, and the status register does not tell");
        self.acknowledge(bits)?;
        ensure!(!self.asserts(), "INTx is silent, and the status register does not tell");
        interrupt::end();
        Ok(())
    }

    fn message_once(&self, bits: u32) -> Check {
        let before = (interrupt::count(MESSAGE), interrupt::count(VECTOR));
        self.raise(bits);
        ensure!(interrupt::wakes(MESSAGE, before.0 + 1, PATIENCE), "the message never came");
        self.acknowledge(bits)?;
        ensure_equal!(interrupt::count(VECTOR), before.1, "interrupts of the line with MSI on");
        Ok(())
    }
}

fn came(wanted: u64, what: &str) -> Check {
    ensure!(interrupt::wakes(VECTOR, wanted, PATIENCE), "interrupt of {what}: none");
    ensure_equal!(interrupt::count(VECTOR), wanted, "interrupts of {what}");
    Ok(())
}

fn quiet(wanted: u64, what: &str) -> Check {
    sleep_microseconds(QUIET);
    ensure_equal!(interrupt::count(VECTOR), wanted, "interrupts {what}");
    Ok(())
}

/// Runs `work` with the line open to this vCPU.
fn with_line(boot: &Boot, gsi: u8, work: impl FnOnce() -> Check<Text>) -> Check<Text> {
    interrupt::hold(true);
    io_apic::route(gsi, VECTOR, boot.apic_id);
    let seen = work();
    if seen.is_err() {
        // One may be in service still, and would hold back all others.
        interrupt::end();
    }
    io_apic::mask(gsi);
    interrupt::hold(false);
    seen
}

/// `intx=B:D:F`
pub fn alone(boot: &Boot, function: &Function) -> Check<Text> {
    let edu = Edu::of(boot, function)?;
    with_line(boot, edu.gsi, || {
        let begin = interrupt::count(VECTOR);
        for round in 1..=ROUNDS {
            edu.once(round)?;
        }
        quiet(begin + u64::from(ROUNDS), "after the last was acknowledged")?;
        edu.asserted_again()?;
        edu.held_back()?;
        edu.in_turns(boot)?;
        Ok(Text::new(format_args!("gsi {}, {} interrupts", edu.gsi, interrupt::count(VECTOR) - begin)))
    })
}

impl Edu<'_> {
    /// A line that is still asserted at the end of an interrupt raises the next one.
    fn asserted_again(&self) -> Check {
        let before = interrupt::count(VECTOR);
        self.raise(1);
        came(before + 1, "the line")?;
        interrupt::end();
        came(before + 2, "the line that stays asserted")?;
        self.acknowledge(1)?;
        interrupt::end();
        quiet(before + 2, "after the second was acknowledged")
    }

    /// The disable bit keeps an interrupt from the line; the status register shows it all the same.
    fn held_back(&self) -> Check {
        let before = interrupt::count(VECTOR);
        self.function.set_command(INTX_DISABLE, true);
        self.raise(2);
        quiet(before, "with INTx disabled")?;
        ensure!(self.asserts(), "INTx is pending, and the status register does not tell");
        self.function.set_command(INTX_DISABLE, false);
        came(before + 1, "INTx, enabled again")?;
        self.acknowledge(2)?;
        interrupt::end();
        // What is acknowledged before it is let through does not come at all.
        self.function.set_command(INTX_DISABLE, true);
        self.raise(4);
        self.acknowledge(4)?;
        self.function.set_command(INTX_DISABLE, false);
        quiet(before + 1, "that were acknowledged while INTx was disabled")
    }

    fn in_turns(&self, boot: &Boot) -> Check {
        let msi = Msi::of(self.function)?;
        for round in 1..=3 {
            self.once(round)?;
            msi.enable(apic::message(boot.apic_id, MESSAGE), 1);
            self.message_once(round << 8)?;
            self.message_once(round << 9)?;
            msi.disable();
            self.once(round << 4)?;
        }
        Ok(())
    }
}

/// Interrupts that nobody asked for, of so many rounds: the host lets the line be signalled again when the guest ends an
/// interrupt, and what it found asserted then may be silent by the time it has signalled. Functions that share a line see
/// each other's.
const SPURIOUS: u64 = ROUNDS as u64 / 10;

/// A line that functions share, and how many of its interrupts were ended.
struct Shared {
    ended: u64,
    spurious: u64,
}

impl Shared {
    /// Waits for an interrupt while one of these asserts the line, has it acknowledged, and ends it.
    fn next(&mut self, what: &str, asserting: &[&Edu], acknowledge: impl FnOnce() -> Check) -> Check {
        loop {
            ensure!(interrupt::wakes(VECTOR, self.ended + 1, PATIENCE), "interrupt of {what}: none");
            self.ended += 1;
            if asserting.iter().any(|edu| edu.asserts()) {
                acknowledge()?;
                interrupt::end();
                return Ok(());
            }
            self.nobodys()?;
        }
    }

    fn nobodys(&mut self) -> Check {
        self.spurious += 1;
        interrupt::end();
        ensure!(self.spurious <= SPURIOUS, "{} interrupts of nobody", self.spurious);
        Ok(())
    }

    /// Nothing asserts the line any more.
    fn quiet(&mut self) -> Check {
        sleep_microseconds(QUIET);
        while interrupt::count(VECTOR) > self.ended {
            self.ended += 1;
            self.nobodys()?;
            sleep_microseconds(QUIET);
        }
        Ok(())
    }
}

/// `shares=B:D:F,B:D:F`
pub fn shared(boot: &Boot, first: &Function, second: &Function) -> Check<Text> {
    let (first, second) = (Edu::of(boot, first)?, Edu::of(boot, second)?);
    ensure_equal!(first.gsi, second.gsi, "GSI of the second function");
    with_line(boot, first.gsi, || {
        let begin = interrupt::count(VECTOR);
        let mut line = Shared { ended: begin, spurious: 0 };
        for round in 1..=ROUNDS {
            first.raise(round);
            line.next("the first", &[&first], || first.acknowledge(round))?;
            second.raise(round);
            line.next("the second", &[&second], || second.acknowledge(round))?;
            // Both at once: the line stays asserted until the second is silent too.
            first.raise(round);
            second.raise(round);
            line.next("two on one line", &[&first, &second], || first.acknowledge(round))?;
            line.next("the second on the line", &[&second], || second.acknowledge(round))?;
        }
        line.quiet()?;
        let (all, spurious) = (line.ended - begin, line.spurious);
        Ok(Text::new(format_args!("gsi {}, {} interrupts", first.gsi, all - spurious)))
    })
}
