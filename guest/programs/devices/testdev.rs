//! QEMU's pci-testdev (QEMU documentation, `specs/pci-testdev`): writes that the device counts, by memory and by port.

use runtime::function::Function;
use runtime::window::Window;
use runtime::{Boot, Check, Text, ensure, ensure_equal, port};

const TEST: u64 = 0;
const WIDTH: u64 = 1;
const OFFSET: u64 = 4;
const DATA: u64 = 8;
const COUNT: u64 = 12;
const NAME: u64 = 16;

/// More tests than any version of the device has.
const MOST_TESTS: u8 = 16;
const WRITES: u32 = 100;

/// The same registers, whichever BAR they are in.
enum Registers {
    Memory(Window),
    Ports(u16),
}

impl Registers {
    fn read8(&self, offset: u64) -> u8 {
        match self {
            Self::Memory(window) => window.read8(offset),
            Self::Ports(base) => port::read8(base + offset as u16),
        }
    }

    /// The device answers with one byte, however wide the read.
    fn read32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|byte| self.read8(offset + byte as u64)))
    }

    /// Whether the test's name, like `mmio-no-eventfd`, says that all its writes reach the device's counter. Those of
    /// the others may go to an eventfd instead, all of them.
    fn counts_for_sure(&self) -> bool {
        let name: [u8; 32] = core::array::from_fn(|byte| self.read8(NAME + byte as u64));
        name.split(|&byte| byte == 0).next().is_some_and(|name| name.ends_with(b"-no-eventfd"))
    }

    fn write(&self, offset: u64, width: u8, value: u32) -> Check {
        match (self, width) {
            (Self::Memory(window), 1) => window.write8(offset, value as u8),
            (Self::Memory(window), 2) => window.write16(offset, value as u16),
            (Self::Memory(window), 4) => window.write32(offset, value),
            (Self::Ports(base), 1) => port::write8(base + offset as u16, value as u8),
            (Self::Ports(base), 2) => port::write16(base + offset as u16, value as u16),
            (Self::Ports(base), 4) => port::write32(base + offset as u16, value),
            _ => runtime::fail!("writes {width} bytes wide"),
        }
        Ok(())
    }

    /// Runs all tests; returns how many there were, and in how many the writes were counted.
    fn run(&self, how: &str) -> Check<(u8, u8)> {
        let mut counted = 0;
        for test in 0..MOST_TESTS {
            self.write(TEST, 1, u32::from(test))?;
            if self.read8(NAME) == 0 {
                ensure!(counted > 0, "{how}: no test that counts");
                return Ok((test, counted));
            }
            let (width, offset) = (self.read8(WIDTH), u64::from(self.read32(OFFSET)));
            // The last test of each kind counts only writes of its own data.
            let data = u32::from(self.read8(DATA));
            ensure_equal!(self.read32(COUNT), 0u32, "{how}: count at the start of test {test}");
            for _ in 0..WRITES {
                self.write(offset, width, data)?;
            }
            let count = self.read32(COUNT);
            if self.counts_for_sure() || count != 0 {
                ensure_equal!(count, WRITES, "{how}: writes counted by test {test}");
                counted += 1;
            }
        }
        runtime::fail!("{how}: tests without end")
    }
}

pub fn check(_: &Boot, function: &Function) -> Check<Text> {
    function.expect_id(0x1b36, 0x0005)?;
    let (memory, memory_counted) = Registers::Memory(function.memory_bar(0)?).run("memory")?;
    let (ports, ports_counted) = Registers::Ports(function.io_bar(1)?).run("I/O")?;
    Ok(Text::new(format_args!(
        "{WRITES} writes in each of {memory} tests by memory ({memory_counted} counted) and {ports} by port \
         ({ports_counted} counted)"
    )))
}
