//! Config space by both mechanisms, and what its switches do.

use runtime::config::{ConfigSpace, EcamConfig, PortsConfig};
use runtime::function::{DECODE_IO, DECODE_MEMORY};
use runtime::{Check, Text, ensure_equal, fail, pattern, port};

use crate::Demo;
use crate::simulated::{ID, IDENTITY, IO_ID};

const CACHE_LINE_SIZE: u16 = 0x0c;
const INTERRUPT_LINE: u16 = 0x3c;
const BAR0: u16 = 0x10;

fn both<'a>(demo: &'a Demo) -> Check<(&'a PortsConfig, &'a EcamConfig)> {
    match demo.function.ecam() {
        Some(ecam) => Ok((demo.function.ports(), ecam)),
        None => fail!("no ECAM for {}", demo.function.slot()),
    }
}

pub fn reads_agree(demo: &Demo) -> Check<Text> {
    let (ports, ecam) = both(demo)?;
    for offset in (0..256).step_by(4) {
        let wide = ports.read32(offset);
        ensure_equal!(ecam.read32(offset), wide, "offset {offset:#x} by ECAM");
        for half in 0..2 {
            let wanted = (wide >> (16 * half)) as u16;
            ensure_equal!(ports.read16(offset + 2 * half), wanted, "offset {offset:#x}, half {half}, by CF8");
            ensure_equal!(ecam.read16(offset + 2 * half), wanted, "offset {offset:#x}, half {half}, by ECAM");
        }
        for byte in 0..4 {
            let wanted = (wide >> (8 * byte)) as u8;
            ensure_equal!(ports.read8(offset + byte), wanted, "offset {offset:#x}, byte {byte}, by CF8");
            ensure_equal!(ecam.read8(offset + byte), wanted, "offset {offset:#x}, byte {byte}, by ECAM");
        }
    }
    Ok(Text::new(format_args!("256 bytes, 8, 16 and 32 bits")))
}

pub fn writes_agree(demo: &Demo) -> Check<Text> {
    let (ports, ecam) = both(demo)?;
    for value in [0x55, 0xaa, 0x00] {
        ports.write8(INTERRUPT_LINE, value);
        ensure_equal!(ecam.read8(INTERRUPT_LINE), value, "interrupt line written by CF8");
        ecam.write8(INTERRUPT_LINE, !value);
        ensure_equal!(ports.read8(INTERRUPT_LINE), !value, "interrupt line written by ECAM");
        ports.write8(CACHE_LINE_SIZE, value);
        ensure_equal!(ecam.read8(CACHE_LINE_SIZE), value, "cache line size");
    }
    // The BAR is written as it is, so that nothing moves.
    let bar = ports.read32(BAR0);
    ecam.write32(BAR0, bar);
    ensure_equal!(ports.read32(BAR0), bar, "BAR0");
    for offset in [0x00, 0x08, 0x2c] {
        let value = ports.read32(offset);
        ports.write32(offset, !value);
        ecam.write16(offset + 2, 0x5a5a);
        let kept = ecam.read32(offset);
        // Cache line size and its neighbours are not in these three.
        ensure_equal!(kept, value, "read-only offset {offset:#x} after a write");
    }
    Ok(Text::new(format_args!("each sees the other's; read-only registers keep their values")))
}

pub fn decode(demo: &Demo) -> Check<Text> {
    let (function, device) = (demo.function, &demo.device);
    device.memory.write64(0, pattern::word(0, 5));
    function.set_command(DECODE_MEMORY, false);
    let (registers, memory) = (device.registers.read32(ID), device.memory.read64(0));
    function.set_command(DECODE_MEMORY, true);
    ensure_equal!(registers, u32::MAX, "BAR0 with memory decode off");
    ensure_equal!(memory, u64::MAX, "BAR2 with memory decode off");
    ensure_equal!(device.registers.read32(ID), IDENTITY, "BAR0 with memory decode on again");
    ensure_equal!(device.memory.read64(0), pattern::word(0, 5), "BAR2 with memory decode on again");
    function.set_command(DECODE_IO, false);
    let id = port::read32(device.ports + IO_ID);
    function.set_command(DECODE_IO, true);
    ensure_equal!(id, u32::MAX, "BAR1 with I/O decode off");
    ensure_equal!(port::read32(device.ports + IO_ID), IDENTITY, "BAR1 with I/O decode on again");
    Ok(Text::new(format_args!("all ones while off")))
}
