//! QEMU's ivshmem-doorbell (QEMU documentation, `specs/ivshmem-spec`): a peer on the host rings each vector until it is
//! rung back.

use core::ops::Range;

use runtime::config::ConfigSpace;
use runtime::function::Function;
use runtime::msix::MsiX;
use runtime::time::{Deadline, sleep_microseconds};
use runtime::{Boot, Check, Text, apic, ensure, ensure_equal, interrupt, pattern};

/// In BAR0.
const POSITION: u64 = 8;
const DOORBELL: u64 = 12;

/// Id of the peer, unless `peer=` says otherwise: this function is the server's first client, and its id is 0.
const PEER: u64 = 1;
/// Words of BAR2 that are written to see that the memory is there.
const WORDS: u64 = 64;

/// Processor vectors.
const VECTORS: Range<u8> = 0x60..0xe0;
const PATIENCE: u64 = 60_000_000;
/// The peer rings more often than that until it is rung back, and once more at most.
const QUIET: u64 = 1_000_000;

pub fn check(boot: &Boot, function: &Function) -> Check<Text> {
    function.expect_id(0x1af4, 0x1110)?;
    let revision = function.read8(8);
    ensure!(revision == 1, "revision {revision}");
    let (registers, memory) = (function.memory_bar(0)?, function.memory_bar(2)?);
    let msix = MsiX::of(function)?;
    let count = msix.vectors().min(VECTORS.len() as u16);
    let position = registers.read32(POSITION);
    ensure!(position as i32 >= 0, "no id from the server, position {position:#x}");

    msix.set_enabled(true);
    for (vector, number) in VECTORS.zip(0..count) {
        msix.program(number, apic::message(boot.apic_id, vector), false);
    }
    for offset in (0..WORDS * 8).step_by(8) {
        memory.write64(offset, pattern::word(offset, position.into()));
        ensure_equal!(memory.read64(offset), pattern::word(offset, position.into()), "BAR2 at {offset:#x}");
    }

    let peer = boot.command_line.number("peer").unwrap_or(PEER) as u32;
    for (vector, number) in VECTORS.zip(0..u32::from(count)) {
        ensure!(interrupt::wakes(vector, 1, PATIENCE), "vector {number} never came");
        registers.write32(DOORBELL, peer << 16 | number);
    }
    let rings = || VECTORS.map(interrupt::count).sum::<u64>();
    let deadline = Deadline::after_microseconds(PATIENCE);
    let all = loop {
        let before = rings();
        sleep_microseconds(QUIET);
        if rings() == before {
            break before;
        }
        ensure!(!deadline.passed(), "the peer goes on ringing, as if it were not rung");
    };
    msix.set_enabled(false);
    Ok(Text::new(format_args!("id {position}, peer {peer}, {count} vectors each way, {all} rings")))
}
