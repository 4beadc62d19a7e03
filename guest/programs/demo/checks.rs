//! The checks, in order.

use runtime::{Check, Text, ensure, ensure_equal, pattern, port, println};

use crate::simulated::{ID, IDENTITY, IO_ID, IO_SCRATCH, SCRATCH, TABLE_MEMORY, VECTORS, VERSION};
use crate::{Demo, config, dma, msix_changes, msix_pages, vectors};

type Run = fn(&Demo) -> Check<Text>;

/// The place in this list, from 1, is the exit port value of a failure.
const CHECKS: [(&str, Run); 17] = [
    ("config reads by CF8 and by ECAM", config::reads_agree),
    ("config writes by CF8 and by ECAM", config::writes_agree),
    ("decode off and on", config::decode),
    ("trapped registers", registers),
    ("I/O registers", ports),
    ("mapped BAR", mapped),
    ("mapped memory beside the MSI-X table", beside_table),
    ("DMA", dma::copies),
    ("DMA that must fail", dma::failures),
    ("MSI-X, each vector once", vectors::each_once),
    ("MSI-X, masked vectors pend", vectors::masked),
    ("MSI-X, masked function", vectors::function_masked),
    ("MSI-X, timer and DMA", vectors::timer),
    ("MSI, each vector once", vectors::msi),
    ("a vector for each vCPU", vectors::each_vcpu),
    ("MSI-X table and pending bits, read", msix_pages::values),
    ("MSI-X pending bits, over changes", msix_changes::check),
];

/// The number of the failed check if one fails; it has been printed.
pub fn run(demo: &Demo) -> Result<(), u8> {
    println!("\nchecks");
    for ((name, check), number) in CHECKS.iter().zip(1..) {
        match check(demo) {
            Ok(seen) => println!("  {name:<38}ok    {seen}"),
            Err(why) => {
                println!("  {name:<38}FAIL  {why}");
                println!("FAIL {name}: {why}");
                return Err(number);
            }
        }
    }
    Ok(())
}

fn registers(demo: &Demo) -> Check<Text> {
    let registers = demo.device.registers;
    ensure_equal!(registers.read32(ID), IDENTITY, "id");
    let version = registers.read32(VERSION);
    ensure_equal!(version, 1u32, "version");
    let values = [0, u32::MAX, 0x1234_5678, 0x8000_0001];
    for value in values {
        registers.write32(SCRATCH, value);
        ensure_equal!(registers.read32(SCRATCH), value, "scratch");
    }
    registers.write32(ID, 0);
    ensure_equal!(registers.read32(ID), IDENTITY, "id after a write");
    Ok(Text::new(format_args!("version {version}, {} vectors", registers.read32(VECTORS))))
}

fn ports(demo: &Demo) -> Check<Text> {
    let (device, scratch) = (&demo.device, demo.device.ports + IO_SCRATCH);
    ensure_equal!(port::read32(device.ports + IO_ID), IDENTITY, "id");
    port::write32(scratch, 0x4433_2211);
    for byte in 0..4 {
        ensure_equal!(port::read8(scratch + byte), 0x11 * (byte as u8 + 1), "scratch, byte {byte}");
    }
    port::write16(scratch + 2, 0xbeef);
    port::write8(scratch, 0x5a);
    ensure_equal!(port::read16(scratch + 2), 0xbeefu16, "scratch, upper half");
    ensure_equal!(port::read32(scratch), 0xbeef_225au32, "scratch");
    device.write_indexed(SCRATCH, 0xcafe_f00d);
    ensure_equal!(device.registers.read32(SCRATCH), 0xcafe_f00du32, "BAR0's scratch, written by index");
    ensure_equal!(device.read_indexed(SCRATCH), 0xcafe_f00du32, "BAR0's scratch, read by index");
    Ok(Text::new(format_args!("at port {:#x}, 8, 16 and 32 bits", device.ports)))
}

fn mapped(demo: &Demo) -> Check<Text> {
    let memory = demo.device.memory;
    for seed in 1..3 {
        for offset in pattern::offsets(memory.length(), 8) {
            memory.write64(offset, pattern::word(offset, seed));
        }
        for offset in pattern::offsets(memory.length(), 8) {
            ensure_equal!(memory.read64(offset), pattern::word(offset, seed), "BAR2 at {offset:#x}");
        }
    }
    memory.write8(1, 0x7e);
    memory.write16(2, 0xabcd);
    memory.write32(4, 0x0102_0304);
    let first = pattern::word(0, 2) & 0xff;
    ensure!(memory.read64(0) == 0x0102_0304_abcd_7e00 | first, "BAR2 holds {:#x}", memory.read64(0));
    Ok(Text::new(format_args!("{} KiB written and read twice", memory.length() >> 10)))
}

fn beside_table(demo: &Demo) -> Check<Text> {
    let tables = demo.device.tables;
    let offsets = || TABLE_MEMORY.iter().flat_map(|&(from, length)| (from..from + length).step_by(8));
    for offset in offsets() {
        tables.write64(offset, pattern::word(offset, 4));
    }
    for offset in offsets() {
        ensure_equal!(tables.read64(offset), pattern::word(offset, 4), "BAR4 at {offset:#x}");
    }
    Ok(Text::new(format_args!("{} KiB", offsets().count() * 8 / 1024)))
}
