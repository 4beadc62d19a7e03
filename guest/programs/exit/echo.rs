//! `echo`: the serial console in both directions.

use runtime::{print, println, serial, time};

/// How long to halt when nothing has come.
const PAUSE_MICROSECONDS: u64 = 1000;

/// Sends each line back until one says `quit`. A longer line comes back in pieces.
pub fn until_quit() {
    let mut line = [0; 256];
    let mut used = 0;
    println!("ready");
    loop {
        let Some(byte) = serial::read() else {
            time::sleep_microseconds(PAUSE_MICROSECONDS);
            continue;
        };
        let ended = matches!(byte, b'\r' | b'\n');
        if !ended {
            line[used] = byte;
            used += 1;
        }
        if ended && &line[..used] == b"quit" {
            return;
        }
        if ended || used == line.len() {
            print!("echo ");
            serial::write(&line[..used]);
            println!();
            used = 0;
        }
    }
}
