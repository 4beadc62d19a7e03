//! Configuration space: of the slot's function, and of one that is not there.

use runtime::config::{ConfigSpace, Ports};
use runtime::function::{COMMAND, Function};
use runtime::port;
use runtime::slot::Slot;
use runtime::window::Window;

use crate::{Bench, Measured, Why, absent};

const VENDOR: u16 = 0x00;
/// With the interrupt pin and, of a bridge, its control register: as software it is written with what it holds.
const INTERRUPT_LINE: u16 = 0x3c;
const CONFIG_ADDRESS: u16 = 0xcf8;

/// The last slot of the function's bus that is empty.
fn absent_slot(bench: &Bench) -> Result<Slot, Why> {
    let bus = bench.slot.bus;
    for number in (0..=u8::MAX).rev() {
        let slot = Slot::new(bus, number >> 3, number & 7);
        if Ports.at(slot).read32(VENDOR) == u32::MAX {
            return Ok(slot);
        }
    }
    absent!("no slot of bus {bus} is empty")
}

fn ecam(function: &Function) -> Result<Window, Why> {
    match function.ecam() {
        Some(ecam) => Ok(ecam.window()),
        None => absent!("no ECAM for {}", function.slot()),
    }
}

pub fn cf8_write_address(bench: &mut Bench, name: &str, _: &str) -> Measured {
    // Whether there is a function matters only to who reads the data.
    let address = Ports.at(bench.slot).address(VENDOR);
    Ok(bench.samples.measure(name, || Ok(port::cycles_of_write32(CONFIG_ADDRESS, address)))?)
}

pub fn cf8_read(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let address = bench.function()?.ports().address(VENDOR);
    Ok(bench.samples.measure(name, || Ok(port::cycles_of_config_read(address)))?)
}

pub fn cf8_read_absent(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let address = Ports.at(absent_slot(bench)?).address(VENDOR);
    Ok(bench.samples.measure(name, || Ok(port::cycles_of_config_read(address)))?)
}

pub fn cf8_write(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let config = *bench.function()?.ports();
    let (address, value) = (config.address(INTERRUPT_LINE), config.read32(INTERRUPT_LINE));
    Ok(bench.samples.measure(name, || Ok(port::cycles_of_config_write(address, value)))?)
}

pub fn ecam_read(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let config = ecam(bench.function()?)?;
    Ok(bench.samples.measure(name, || Ok(config.cycles_of_read32(VENDOR.into())))?)
}

pub fn ecam_read_absent(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let slot = absent_slot(bench)?;
    match bench.boot.acpi.as_ref().and_then(|acpi| acpi.ecam()?.at(slot)) {
        Some(config) => {
            let config = config.window();
            Ok(bench.samples.measure(name, || Ok(config.cycles_of_read32(VENDOR.into())))?)
        }
        None => absent!("no ECAM for {slot}"),
    }
}

/// With the status register, which only the device knows.
pub fn ecam_read_live(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let config = ecam(bench.function()?)?;
    Ok(bench.samples.measure(name, || Ok(config.cycles_of_read32(COMMAND.into())))?)
}

pub fn ecam_write(bench: &mut Bench, name: &str, _: &str) -> Measured {
    let config = ecam(bench.function()?)?;
    let value = config.read32(INTERRUPT_LINE.into());
    Ok(bench.samples.measure(name, || Ok(config.cycles_of_write32(INTERRUPT_LINE.into(), value)))?)
}
