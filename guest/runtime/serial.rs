//! The console: a 16550 at 0x3f8.

use core::fmt::{self, Write};

use crate::call::{Call, call};
use crate::port;

const BASE: u16 = 0x3f8;
/// Bytes that the transmitter takes when it says that it is empty.
const FIFO: usize = 16;

/// 115200 baud, 8 data bits, FIFOs on, no interrupts. A byte that came before is lost.
pub fn set_up() {
    port::write8(BASE + 1, 0);
    port::write8(BASE + 3, 0x80);
    port::write8(BASE, 1);
    port::write8(BASE + 1, 0);
    port::write8(BASE + 3, 0x03);
    port::write8(BASE + 2, 0x01);
    port::write8(BASE + 4, 0x03);
}

pub fn write(bytes: &[u8]) {
    for chunk in bytes.chunks(FIFO) {
        // SAFETY: the shim reads exactly the chunk, which is not empty.
        unsafe { call(Call::Serial, chunk.as_ptr() as u64, chunk.len() as u64) };
    }
}

/// A received byte, if there is one.
#[must_use]
pub fn read() -> Option<u8> {
    let status = port::read8(BASE + 5);
    // All ones is the answer of a port that is not there.
    (status & 1 != 0 && status != 0xff).then(|| port::read8(BASE))
}

/// Collects what `print!` formats, so that the transmitter is asked once per 16 bytes.
struct Console {
    pending: [u8; 128],
    used: usize,
}

impl Console {
    fn flush(&mut self) {
        write(&self.pending[..self.used]);
        self.used = 0;
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.used == self.pending.len() {
                self.flush();
            }
            self.pending[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

pub fn print(text: fmt::Arguments) {
    let mut console = Console { pending: [0; 128], used: 0 };
    // `write_str` above never fails.
    let _ = console.write_fmt(text);
    console.flush();
}

#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::serial::print(format_args!($($text)*)) };
}

#[macro_export]
macro_rules! println {
    () => { $crate::serial::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::serial::print(format_args!("{}\n", format_args!($($text)*))) };
}
