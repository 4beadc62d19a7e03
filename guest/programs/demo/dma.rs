//! The DMA engine: copies that arrive, and copies that must not begin.

use runtime::function::BUS_MASTER;
use runtime::window::Window;
use runtime::{Check, Text, ensure_equal, fail, pattern};

use crate::Demo;
use crate::simulated::{DMA_DONE, DMA_ERROR, LONGEST_DMA};

const FOUR_GIB: u64 = 1 << 32;
/// Room around each buffer, to see that nothing else is written.
const MARGIN: u64 = 64;
/// Beyond the memory of any guest.
const NOWHERE: u64 = 1 << 46;

/// Length, and offsets of source and destination from where they are aligned to pages.
const COPIES: [(u32, u64, u64); 7] = [
    (1, 0, 0),
    (8, 4, 12),
    (4095, 1, 3),
    (4096, 0, 0),
    (4096, 4094, 2),
    (1 << 20, 0, 0),
    (LONGEST_DMA, 0, 0),
];

fn buffers(demo: &Demo) -> Check<(Window, Window)> {
    let length = u64::from(LONGEST_DMA) + 4096 + 2 * MARGIN;
    let buffer = || demo.boot.memory.buffer(length, 4096, FOUR_GIB);
    match (buffer(), buffer()) {
        (Some(source), Some(destination)) => Ok((source, destination)),
        _ => fail!("the guest needs 64 MiB of memory"),
    }
}

fn fill(window: &Window, word: impl Fn(u64) -> u64) {
    for offset in (0..window.length()).step_by(8) {
        window.write64(offset, word(offset));
    }
}

/// Copies by the device, and compares every byte, also those around the destination.
fn copy(demo: &Demo, source: &Window, destination: &Window, (length, from, to): (u32, u64, u64)) -> Check {
    let (from, to, bytes) = (from + MARGIN, to + MARGIN, u64::from(length));
    let around = (to + bytes + MARGIN).next_multiple_of(8);
    let seed = bytes ^ from << 32;
    fill(&source.part(0, (from + bytes).next_multiple_of(8)), |offset| pattern::word(offset, seed));
    fill(&destination.part(0, around), |_| 0);
    let status = demo.device.copy(source.address() + from, destination.address() + to, length, None)?;
    ensure_equal!(status, DMA_DONE, "status of {length} bytes from {from:#x} to {to:#x}");
    let aligned = (from | to | bytes).is_multiple_of(8);
    let step = if aligned { 8 } else { 1 };
    for offset in (0..bytes).step_by(step) {
        if aligned {
            ensure_equal!(
                destination.read64(to + offset),
                source.read64(from + offset),
                "{length} bytes, at {offset:#x}"
            );
        } else {
            ensure_equal!(
                destination.read8(to + offset),
                source.read8(from + offset),
                "{length} bytes, at {offset:#x}"
            );
        }
    }
    for outside in (0..to).chain(to + bytes..around) {
        ensure_equal!(
            destination.read8(outside),
            0u8,
            "{length} bytes to {to:#x}: byte {outside:#x} beside them"
        );
    }
    Ok(())
}

pub fn copies(demo: &Demo) -> Check<Text> {
    let (source, destination) = buffers(demo)?;
    for case in COPIES {
        copy(demo, &source, &destination, case)?;
    }
    let Some(high) = demo.boot.memory.high_buffer((1 << 20) + 4096) else {
        return Ok(Text::new(format_args!("1 byte to 16 MiB, {} copies compared", COPIES.len())));
    };
    copy(demo, &source, &high, (1 << 20, 0, 0))?;
    copy(demo, &high, &destination, (1 << 20, 0, 0))?;
    Ok(Text::new(format_args!(
        "1 byte to 16 MiB, {} copies compared, also to and from {:#x}",
        COPIES.len() + 2,
        high.address()
    )))
}

pub fn failures(demo: &Demo) -> Check<Text> {
    let Some(buffer) = demo.boot.memory.buffer(8192, 4096, FOUR_GIB) else { fail!("no memory left") };
    let (source, destination) = (buffer.address(), buffer.address() + 4096);
    let expect = |what: &str, source, destination, length, wanted: u32| {
        ensure_equal!(demo.device.copy(source, destination, length, None)?, wanted, "status: {what}");
        Ok(())
    };
    expect("to nowhere", source, NOWHERE, 64, DMA_ERROR)?;
    expect("from nowhere", NOWHERE, destination, 64, DMA_ERROR)?;
    expect("past the end of addresses", u64::MAX - 31, destination, 64, DMA_ERROR)?;
    expect("too long", source, destination, LONGEST_DMA + 1, DMA_ERROR)?;
    demo.function.set_command(BUS_MASTER, false);
    let denied = expect("bus mastering off", source, destination, 64, DMA_ERROR);
    demo.function.set_command(BUS_MASTER, true);
    denied?;
    expect("after the failures", source, destination, 64, DMA_DONE)?;
    Ok(Text::new(format_args!("outside memory, too long, bus mastering off")))
}
