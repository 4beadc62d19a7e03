//! `reset=N`: a count that survives a reset, in the RAM that the RTC's battery keeps.

use runtime::{port, println};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// No firmware's place.
const COUNT: u8 = 0x40;

fn count() -> u8 {
    port::write8(INDEX, COUNT);
    port::read8(DATA)
}

fn set_count(count: u8) {
    port::write8(INDEX, COUNT);
    port::write8(DATA, count);
}

/// Whether there have been that many resets; then the count starts again, otherwise it goes up by one.
pub fn enough(times: u8) -> bool {
    let count = count();
    println!("reset {count} of {times}");
    set_count(if count >= times { 0 } else { count + 1 });
    count >= times
}
