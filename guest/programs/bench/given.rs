//! What the command line says lies at an address.

use runtime::command_line::number;
use runtime::window::Window;
use runtime::{interrupt, port};

use crate::interrupts::until_handled;
use crate::{Bench, Measured, Why, absent};

/// Processor vector of the message that the host has given the GSI of `irqfd=`.
const VECTOR: u64 = 0x60;

fn dword(value: &str) -> Result<Window, Why> {
    match number(value) {
        Some(address) if address.is_multiple_of(4) && address < 1 << 47 => Ok(Window::device(address, 4)),
        _ => absent!("{value:?} is no address of four bytes"),
    }
}

pub fn read(bench: &mut Bench, name: &str, value: &str) -> Measured {
    let address = dword(value)?;
    Ok(bench.samples.measure(name, || Ok(address.cycles_of_read32(0)))?)
}

pub fn write(bench: &mut Bench, name: &str, value: &str) -> Measured {
    let address = dword(value)?;
    Ok(bench.samples.measure(name, || Ok(address.cycles_of_write32(0, 0)))?)
}

pub fn write_port(bench: &mut Bench, name: &str, value: &str) -> Measured {
    match number(value).map(u16::try_from) {
        Some(Ok(port)) => Ok(bench.samples.measure(name, || Ok(port::cycles_of_write32(port, 0)))?),
        _ => absent!("{value:?} is no port"),
    }
}

/// A write that signals an eventfd, which raises an interrupt by itself.
pub fn interrupt(bench: &mut Bench, name: &str, value: &str) -> Measured {
    let address = dword(value)?;
    let vector = bench.boot.command_line.number("vector").unwrap_or(VECTOR);
    let vector = match u8::try_from(vector) {
        Ok(vector) if (interrupt::FIRST..=interrupt::LAST).contains(&vector) => vector,
        _ => absent!("vector {vector} is not one for devices"),
    };
    Ok(bench.samples.measure(name, || until_handled(vector, || address.stamped_write32(0, 0)))?)
}
