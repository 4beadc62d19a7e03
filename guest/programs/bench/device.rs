//! The slot's function itself: its BARs, and what it is known to be.

use runtime::bar::Bar;
use runtime::capability;
use runtime::command_line::number;
use runtime::function::Function;
use runtime::msix::{self, Place};
use runtime::window::Window;

use crate::{Bench, Measured, Why, absent};

/// slotpass' simulated function: see `passthru::host::simulated`.
pub const SIMULATED: u32 = 0x0001_5350;
const SIMULATED_REGISTERS: u8 = 0;
const SIMULATED_SCRATCH: u64 = 0x08;
const SIMULATED_MEMORY: u8 = 2;
/// QEMU's educational device (QEMU documentation, `specs/edu`).
pub const EDU: u32 = 0x11e8_1234;

const PAGE: u64 = 4096;
const MSIX_ENTRY: u64 = 16;

/// `BAR:OFFSET`, and that the BAR has those four bytes.
fn named(function: &Function, value: &str) -> Result<Window, Why> {
    let place = value.split_once(':').and_then(|(bar, offset)| Some((number(bar)?, number(offset)?)));
    match place {
        Some((bar @ 0..6, offset)) if offset.is_multiple_of(4) => dword(function, bar as u8, offset),
        _ => absent!("{value:?} is not a BAR and an offset in it, as in 0:16"),
    }
}

fn dword(function: &Function, bar: u8, offset: u64) -> Result<Window, Why> {
    // The rest of it is not mapped, and may be large.
    match function.memory_bar_part(bar, offset, 4) {
        Ok(window) => Ok(window),
        Err(why) => absent!("{why}"),
    }
}

/// The first page of a memory BAR that the MSI-X table and its pending bits have nothing of. Nothing is ever written
/// there: what a register does is not known.
fn mapped(function: &Function) -> Result<Window, Why> {
    if function.id() == SIMULATED {
        return dword(function, SIMULATED_MEMORY, 0);
    }
    let msix = function.capability(capability::MSIX).map(|at| msix::describe(function, at));
    let holds = |place: Place, length: u64, bar: u8, page: u64| {
        place.bar == bar && place.offset < page + PAGE && page < place.offset + length
    };
    for bar in 0..6 {
        let Ok(Bar { size, .. }) = function.placed_memory_bar(bar) else { continue };
        let of_tables = |page: u64| {
            msix.is_some_and(|(vectors, table, pending)| {
                holds(table, u64::from(vectors) * MSIX_ENTRY, bar, page)
                    || holds(pending, u64::from(vectors).div_ceil(64) * 8, bar, page)
            })
        };
        if let Some(page) = (0..size).step_by(PAGE as usize).find(|&page| !of_tables(page)) {
            return dword(function, bar, page);
        }
    }
    absent!("{} has no memory BAR with registers of its own", function.slot())
}

pub fn bar_read(bench: &mut Bench, name: &str, value: &str) -> Measured {
    let function = bench.function()?;
    let register = if value.is_empty() { mapped(function)? } else { named(function, value)? };
    Ok(bench.samples.measure(name, || Ok(register.cycles_of_read32(0)))?)
}

/// A register whose accesses exit: only of the simulated function is it known which does, and that it may be written.
fn trapped(function: &Function, value: &str) -> Result<Window, Why> {
    match (value, function.id()) {
        ("", SIMULATED) => dword(function, SIMULATED_REGISTERS, SIMULATED_SCRATCH),
        ("", _) => absent!("not slotpass' simulated function, and no BAR:OFFSET given"),
        _ => named(function, value),
    }
}

pub fn trapped_read(bench: &mut Bench, name: &str, value: &str) -> Measured {
    let register = trapped(bench.function()?, value)?;
    Ok(bench.samples.measure(name, || Ok(register.cycles_of_read32(0)))?)
}

pub fn trapped_write(bench: &mut Bench, name: &str, value: &str) -> Measured {
    let register = trapped(bench.function()?, value)?;
    let value = register.read32(0);
    Ok(bench.samples.measure(name, || Ok(register.cycles_of_write32(0, value)))?)
}
