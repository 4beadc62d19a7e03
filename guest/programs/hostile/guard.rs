//! Memory that nobody is told to write to.

use runtime::window::Window;
use runtime::{Boot, Check, Text, ensure_equal, pattern};

const SEED: u64 = 0x6a5d;

pub struct Guard(Window);

impl Guard {
    /// Fails if there is not as much RAM.
    pub fn new(boot: &Boot, length: u64) -> Check<Self> {
        let memory = boot.memory.buffer(length, 2 << 20, 1 << 32);
        let Some(memory) = memory else {
            return Err(Text::new(format_args!("no {length:#x} bytes of memory to guard")));
        };
        for offset in (0..length).step_by(8) {
            memory.write64(offset, pattern::word(offset, SEED));
        }
        Ok(Self(memory))
    }

    pub fn address(&self) -> u64 {
        self.0.address()
    }

    pub fn check(&self) -> Check {
        for offset in (0..self.0.length()).step_by(8) {
            ensure_equal!(
                self.0.read64(offset),
                pattern::word(offset, SEED),
                "guarded memory at {offset:#x}"
            );
        }
        Ok(())
    }
}
