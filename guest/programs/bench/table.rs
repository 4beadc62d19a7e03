//! MSI-X: table, pending bits, and making vectors live.

use runtime::capability;
use runtime::command_line::number;
use runtime::function::Function;
use runtime::msix::MsiX;
use runtime::time::cycles;
use runtime::window::Window;
use runtime::{Check, apic};

use crate::{Bench, Measured, Why, absent};

const ENTRY: u64 = 16;
const DATA: u64 = 8;
const CONTROL: u64 = 12;
const MASKED: u32 = 1;
/// Nothing raises these vectors here.
const VECTOR: u8 = 0x40;

fn msix(function: &Function) -> Result<MsiX<'_>, Why> {
    match function.capability(capability::MSIX) {
        Some(_) => Ok(MsiX::of(function)?),
        None => absent!("{} has no MSI-X", function.slot()),
    }
}

pub fn read(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let table = msix(bench.function()?)?.table();
    Ok(bench.samples.measure(name, || Ok(table.cycles_of_read32(DATA)))?)
}

pub fn read_pending(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let pending = msix(bench.function()?)?.pending_bits();
    Ok(bench.samples.measure(name, || Ok(pending.cycles_of_read32(0)))?)
}

pub fn write_same(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let table = msix(bench.function()?)?.table();
    let data = table.read32(DATA);
    Ok(bench.samples.measure(name, || Ok(table.cycles_of_write32(DATA, data)))?)
}

/// Both writes.
pub fn mask_unmask(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let Bench { boot, samples, .. } = bench;
    let function = bench.function.as_ref();
    let msix = match function {
        Ok(function) => msix(function)?,
        Err(why) => absent!("{why}"),
    };
    let table = msix.table();
    msix.set_enabled(true);
    msix.program(0, apic::message(boot.apic_id, VECTOR), false);
    let measured = samples.measure(name, || {
        let mask = table.cycles_of_write32(CONTROL, MASKED);
        Ok(mask + table.cycles_of_write32(CONTROL, 0))
    });
    msix.set_mask(0, true);
    msix.set_enabled(false);
    Ok(measured?)
}

/// Address, data and, last, control of one entry.
fn write_entry(table: &Window, entry: u64, message: (u64, u32)) {
    table.write32(entry, message.0 as u32);
    table.write32(entry + 4, (message.0 >> 32) as u32);
    table.write32(entry + DATA, message.1);
    table.write32(entry + CONTROL, 0);
}

/// All entries are written while the function is masked, and become live when it is not.
pub fn enable_at_once(bench: &mut Bench, name: &str, value: &str) -> Measured {
    enable(bench, name, value, |msix, entries, message| {
        msix.set_function_mask(true);
        msix.set_enabled(true);
        for entry in entries {
            write_entry(&msix.table(), entry, message);
        }
        msix.set_function_mask(false);
    })
}

/// As Linux does: all entries are masked under the function mask, and each becomes live by itself (drivers/pci/msi/msi.c).
pub fn enable_one_by_one(bench: &mut Bench, name: &str, value: &str) -> Measured {
    enable(bench, name, value, |msix, entries, message| {
        let table = msix.table();
        msix.set_function_mask(true);
        msix.set_enabled(true);
        for entry in entries.clone() {
            table.write32(entry + CONTROL, MASKED);
        }
        msix.set_function_mask(false);
        for entry in entries {
            write_entry(&table, entry, message);
        }
    })
}

type Entries = core::iter::StepBy<core::ops::Range<u64>>;

fn enable(
    bench: &mut Bench,
    name: &str,
    value: &str,
    make_live: impl Fn(&MsiX, Entries, (u64, u32)),
) -> Measured {
    let Bench { boot, samples, .. } = bench;
    let msix = match bench.function.as_ref() {
        Ok(function) => msix(function)?,
        Err(why) => absent!("{why}"),
    };
    let has = u64::from(msix.vectors());
    let vectors = match (value, number(value)) {
        ("", _) => has,
        (_, Some(vectors @ 1..)) if vectors <= has => vectors,
        _ => absent!("{value} vectors, of a function with {has}"),
    };
    let entries = || (0..vectors * ENTRY).step_by(ENTRY as usize);
    let message = apic::message(boot.apic_id, VECTOR);
    Ok(samples.repeat(name, || {
        let begin = cycles();
        make_live(&msix, entries(), message);
        let end = cycles();
        msix.set_enabled(false);
        for entry in entries() {
            msix.table().write32(entry + CONTROL, MASKED);
        }
        Check::Ok(end.wrapping_sub(begin))
    })?)
}
