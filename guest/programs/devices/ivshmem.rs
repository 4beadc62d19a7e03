//! QEMU's ivshmem-plain (QEMU documentation, `specs/ivshmem-spec`): one large 64-bit prefetchable BAR, which is a file
//! of the host.

use runtime::bar::Kind;
use runtime::function::Function;
use runtime::pattern::{self, Checksum};
use runtime::{Boot, Check, Text, ensure, ensure_equal, fail};

/// Bytes between two words that are written, unless `step=` says otherwise.
const STEP: u64 = 64 << 10;
const SEED: u64 = 1;

pub fn check(boot: &Boot, function: &Function) -> Check<Text> {
    function.expect_id(0x1af4, 0x1110)?;
    if let Some(address) = boot.command_line.number("at") {
        function.move_bar(2, address)?;
    }
    let Some(bar) = function.bars()[2] else { fail!("no BAR2") };
    ensure!(bar.kind == Kind::Memory64 { prefetchable: true }, "BAR2 is {}", bar.kind);
    let step = boot.command_line.number("step").unwrap_or(STEP);
    let seed = boot.command_line.number("seed").unwrap_or(SEED);
    ensure!(step >= 8 && step.is_multiple_of(8), "step={step} is not a multiple of 8");
    let memory = function.memory_bar(2)?;

    let offsets = || pattern::offsets(memory.length(), step);
    for offset in offsets() {
        memory.write64(offset, pattern::word(offset, seed));
    }
    let mut checksum = Checksum::new();
    for offset in offsets() {
        let word = memory.read64(offset);
        ensure_equal!(word, pattern::word(offset, seed), "BAR2 at {offset:#x}");
        checksum.add(word);
    }
    Ok(Text::new(format_args!(
        "{} MiB at {:#x}, {} words, checksum {:#018x}",
        bar.size >> 20,
        bar.address,
        offsets().count(),
        checksum.value()
    )))
}
