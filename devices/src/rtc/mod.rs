//! The real-time clock: a Motorola MC146818 with 128 bytes of battery-backed RAM.
//!
//! It runs by the host's clock, in UTC, shifted by what the guest sets. There is no interrupt: alarm
//! registers are plain RAM, and of the flags only "update ended" is there to be polled.

mod calendar;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use self::calendar::Calendar;
use crate::PortDevice;
use crate::port::{read_each, write_each};

/// Ports that [`Rtc`] takes: index and data.
pub const SIZE: u16 = 2;
/// Register that holds the century, for the FADT's CENTURY field.
pub const CENTURY: u8 = 0x32;

/// Bytes of registers and RAM together.
const RAM_SIZE: usize = 128;
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;

/// Register A: an update is in progress, or starts within 244 µs.
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Register A after power-on: a 32.768 kHz crystal, periodic rate 1.024 kHz, as PC firmware sets it.
const DIVIDER_RUNS: u8 = 0x26;
/// Register A: with both bits set the divider is held in reset and the clock stands.
const DIVIDER_RESET: u8 = 0x60;
/// Register B: the clock stands, to be set.
const SET: u8 = 1 << 7;
/// Register B: enables of the three interrupts, and the square wave; the chip's reset line clears them.
const CLEARED_BY_RESET: u8 = 0x78;
/// Register B: the update-ended interrupt is enabled.
const UPDATE_ENDED_ENABLE: u8 = 1 << 4;
/// Register B: registers are binary, else BCD.
const BINARY: u8 = 1 << 2;
/// Register B: hours are 0 to 23, else 1 to 12 with [`AFTERNOON`].
const HOURS_24: u8 = 1 << 1;
/// Register C: an update ended since the register was last read.
const UPDATE_ENDED: u8 = 1 << 4;
/// Register C: a flag and its enable are both set.
const INTERRUPT_REQUEST: u8 = 1 << 7;
/// Register D: the battery is good.
const VALID: u8 = 1 << 7;
/// In the hours' register with the 12-hour clock.
const AFTERNOON: u8 = 1 << 7;

/// Nanosecond of each second from which an update counts as in progress: 244 µs before the update, so that a
/// guest that has just seen the bit clear has that long to read all registers (MC146818 data sheet, t_BUC).
const UPDATE_FROM: u32 = 1_000_000_000 - 244_000;

/// The clock. Index at port 0, data at port 1.
///
/// Setting the time shifts this clock only, by whole seconds, and the shift lasts as long as the object,
/// resets included. A date that does not exist carries over: 31 April becomes 1 May.
pub struct Rtc {
    state: Mutex<State>,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
}

struct State {
    index: u8,
    ram: [u8; RAM_SIZE],
    /// Guest's seconds minus the host's.
    shift: i64,
    /// What the registers hold while the clock stands.
    standing: Option<Calendar>,
    /// The guest's second in which register C was last read.
    flags_read: i64,
}

impl Default for Rtc {
    fn default() -> Rtc {
        Rtc::new()
    }
}

impl Rtc {
    /// By the host's clock.
    pub fn new() -> Rtc {
        // A host before 1970 has a clock that was never set; 1970 is as good.
        Rtc::with_clock(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// By `clock`, the time since 1970 in UTC.
    pub fn with_clock(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Rtc {
        let mut ram = [0; RAM_SIZE];
        for (register, value) in [(REGISTER_A, DIVIDER_RUNS), (REGISTER_B, HOURS_24), (REGISTER_D, VALID)] {
            if let Some(byte) = ram.get_mut(usize::from(register)) {
                *byte = value;
            }
        }
        let flags_read = seconds(clock());
        let state = State { index: 0, ram, shift: 0, standing: None, flags_read };
        Rtc { state: Mutex::new(state), clock: Box::new(clock) }
    }
}

/// The whole seconds. A clock beyond the year 30,000,000 is cut to it, which keeps sums in range.
fn seconds(time: Duration) -> i64 {
    time.as_secs().min(1 << 50) as i64
}

impl State {
    fn register(&self, index: u8) -> u8 {
        self.ram.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    fn set_register(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.ram.get_mut(usize::from(index)) {
            *byte = value;
        }
    }

    fn stands(&self) -> bool {
        self.register(REGISTER_B) & SET != 0 || self.register(REGISTER_A) & DIVIDER_RESET == DIVIDER_RESET
    }

    fn calendar(&self, now: Duration) -> Calendar {
        self.standing.unwrap_or_else(|| Calendar::from_seconds(seconds(now) + self.shift))
    }

    /// A number as the registers hold it.
    fn encode(&self, value: i64) -> u8 {
        let value = value.rem_euclid(100) as u8;
        if self.register(REGISTER_B) & BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    /// A register's value as a number. Digits over 9 count as what they are worth.
    fn decode(&self, value: u8) -> i64 {
        let value = i64::from(value);
        if self.register(REGISTER_B) & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) }
    }

    fn read(&mut self, now: Duration) -> u8 {
        let calendar = self.calendar(now);
        match self.index {
            SECONDS => self.encode(calendar.second),
            MINUTES => self.encode(calendar.minute),
            HOURS if self.register(REGISTER_B) & HOURS_24 != 0 => self.encode(calendar.hour),
            HOURS => {
                let afternoon = if calendar.hour % 24 >= 12 { AFTERNOON } else { 0 };
                self.encode((calendar.hour + 11) % 12 + 1) | afternoon
            }
            WEEKDAY => self.encode(calendar.weekday().into()),
            DAY => self.encode(calendar.day),
            MONTH => self.encode(calendar.month),
            YEAR => self.encode(calendar.year),
            CENTURY => self.encode(calendar.year.div_euclid(100)),
            REGISTER_A => {
                let updates = self.standing.is_none() && now.subsec_nanos() >= UPDATE_FROM;
                self.register(REGISTER_A) | if updates { UPDATE_IN_PROGRESS } else { 0 }
            }
            REGISTER_C => self.take_flags(now),
            index => self.register(index),
        }
    }

    fn take_flags(&mut self, now: Duration) -> u8 {
        let second = seconds(now);
        if self.standing.is_some() || second == std::mem::replace(&mut self.flags_read, second) {
            return 0;
        }
        let requests = self.register(REGISTER_B) & UPDATE_ENDED_ENABLE != 0;
        UPDATE_ENDED | if requests { INTERRUPT_REQUEST } else { 0 }
    }

    fn write(&mut self, value: u8, now: Duration) {
        let mut calendar = self.calendar(now);
        match self.index {
            SECONDS => calendar.second = self.decode(value),
            MINUTES => calendar.minute = self.decode(value),
            HOURS if self.register(REGISTER_B) & HOURS_24 != 0 => calendar.hour = self.decode(value),
            HOURS => {
                let afternoon = if value & AFTERNOON != 0 { 12 } else { 0 };
                calendar.hour = self.decode(value & !AFTERNOON) % 12 + afternoon;
            }
            DAY => calendar.day = self.decode(value),
            MONTH => calendar.month = self.decode(value),
            YEAR => calendar.year = calendar.year.div_euclid(100) * 100 + self.decode(value),
            CENTURY => calendar.year = self.decode(value) * 100 + calendar.year.rem_euclid(100),
            REGISTER_A => self.set_register(REGISTER_A, value & !UPDATE_IN_PROGRESS),
            REGISTER_B => self.set_register(REGISTER_B, value),
            // The weekday follows from the date; the other two are read-only.
            WEEKDAY | REGISTER_C | REGISTER_D => return,
            index => {
                self.set_register(index, value);
                return;
            }
        }
        self.standing = Some(calendar);
        if !self.stands() {
            self.start(now);
        }
    }

    /// Lets the clock run on from what the registers hold.
    fn start(&mut self, now: Duration) {
        if let Some(calendar) = self.standing.take() {
            self.shift = calendar.to_seconds() - seconds(now);
        }
    }
}

impl PortDevice for Rtc {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let mut state = self.state.lock();
        read_each(offset, data, |port| match port {
            1 => state.read((self.clock)()),
            // The index cannot be read back.
            _ => 0xff,
        });
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let mut state = self.state.lock();
        write_each(offset, data, |port, value| match port {
            // Bit 7 masks NMIs on a PC, of which there are none here.
            0 => state.index = value & 0x7f,
            1 => state.write(value, (self.clock)()),
            _ => {}
        });
    }

    /// What the chip's reset line does: interrupts are off. Time and RAM have a battery.
    fn reset(&self) {
        let mut state = self.state.lock();
        let control = state.register(REGISTER_B);
        state.set_register(REGISTER_B, control & !CLEARED_BY_RESET);
        state.index = 0;
    }
}

#[cfg(test)]
mod tests;
