//! Ports and addresses that nobody claims, and what a time holds besides the access.

use runtime::window::Window;
use runtime::{port, time};

use crate::{Bench, Measured};

const PORT: u16 = 0x2c0;
/// Between the I/O APIC (0xfec00000) and the HPET (0xfed00000).
const ADDRESS: u64 = 0xfec8_0000;

pub fn empty(bench: &mut Bench, name: &str, _: &str) -> Measured {
    Ok(bench.samples.measure(name, || Ok(time::cycles_of_nothing()))?)
}

pub fn empty_port(bench: &mut Bench, name: &str, _: &str) -> Measured {
    Ok(bench.samples.measure(name, || Ok(port::cycles_of_nothing()))?)
}

pub fn pio_read(bench: &mut Bench, name: &str, _: &str) -> Measured {
    Ok(bench.samples.measure(name, || Ok(port::cycles_of_read32(PORT)))?)
}

pub fn pio_write(bench: &mut Bench, name: &str, _: &str) -> Measured {
    Ok(bench.samples.measure(name, || Ok(port::cycles_of_write32(PORT, 0)))?)
}

pub fn mmio_read(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let address = Window::device(ADDRESS, 4);
    Ok(bench.samples.measure(name, || Ok(address.cycles_of_read32(0)))?)
}

pub fn mmio_write(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let address = Window::device(ADDRESS, 4);
    Ok(bench.samples.measure(name, || Ok(address.cycles_of_write32(0, 0)))?)
}
