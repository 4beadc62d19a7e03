use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// 2024-02-29 12:34:56, a Thursday.
const NOW: u64 = 1_709_210_096;

struct Bench {
    rtc: Rtc,
    nanos: Arc<AtomicU64>,
}

impl Bench {
    fn at(second: u64) -> Bench {
        let nanos = Arc::new(AtomicU64::new(second * 1_000_000_000));
        let clock = Arc::clone(&nanos);
        Bench { rtc: Rtc::with_clock(move || Duration::from_nanos(clock.load(Ordering::Relaxed))), nanos }
    }

    fn pass(&self, time: Duration) {
        self.nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn get(&self, register: u8) -> u8 {
        let mut data = [0];
        self.rtc.write(0, &[register]);
        self.rtc.read(1, &mut data);
        data[0]
    }

    fn set(&self, register: u8, value: u8) {
        self.rtc.write(0, &[register]);
        self.rtc.write(1, &[value]);
    }

    /// Century, year, month, day, hours, minutes, seconds.
    fn time(&self) -> [u8; 7] {
        [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS].map(|register| self.get(register))
    }
}

#[test]
fn power_on() {
    let bench = Bench::at(NOW);
    assert_eq!(bench.time(), [0x20, 0x24, 0x02, 0x29, 0x12, 0x34, 0x56]);
    assert_eq!(bench.get(WEEKDAY), 5);
    let registers = [REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D].map(|register| bench.get(register));
    assert_eq!(registers, [0x26, 0x02, 0x00, 0x80]);
}

#[test]
fn formats() {
    // Hour of the day, and the hours' register in BCD and binary with the 12-hour clock.
    for (hour, bcd, binary) in [
        (0, 0x12, 12),
        (1, 0x01, 1),
        (11, 0x11, 11),
        (12, 0x92, 0x80 | 12),
        (13, 0x81, 0x80 | 1),
        (23, 0x91, 0x80 | 11),
    ] {
        let bench = Bench::at(NOW / 86_400 * 86_400 + hour * 3600 + 59);
        assert_eq!(bench.get(SECONDS), 0x59);
        bench.set(REGISTER_B, BINARY | HOURS_24);
        assert_eq!((bench.get(HOURS), bench.get(SECONDS)), (hour as u8, 59));
        bench.set(REGISTER_B, BINARY);
        assert_eq!(bench.get(HOURS), binary);
        bench.set(REGISTER_B, 0);
        assert_eq!(bench.get(HOURS), bcd);

        // Writing back what was read changes nothing.
        bench.set(HOURS, bcd);
        bench.set(REGISTER_B, BINARY);
        bench.set(HOURS, binary);
        bench.set(REGISTER_B, BINARY | HOURS_24);
        assert_eq!(bench.get(HOURS), hour as u8);
    }
}

/// As Linux' mc146818_set_time does it.
#[test]
fn the_guest_sets_the_time() {
    let bench = Bench::at(NOW);
    bench.set(REGISTER_B, HOURS_24 | SET);
    bench.set(REGISTER_A, 0x76);
    let registers = [YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS, CENTURY];
    for (register, value) in registers.into_iter().zip([0x99, 0x12, 0x31, 0x23, 0x59, 0x58, 0x19]) {
        bench.set(register, value);
        bench.pass(Duration::from_secs(1));
    }
    bench.set(REGISTER_B, HOURS_24);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.time(), [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58], "the divider is still held");
    bench.set(REGISTER_A, 0x26);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.time(), [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00]);
    bench.rtc.reset();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.time(), [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x01], "across a reset");
}

#[test]
fn one_register_set_while_running() {
    let bench = Bench::at(NOW);
    bench.set(MINUTES, 0x59);
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.time(), [0x20, 0x24, 0x02, 0x29, 0x13, 0x00, 0x00]);
}

#[test]
fn update_in_progress_is_short_and_passes() {
    let bench = Bench::at(NOW);
    bench.pass(Duration::from_micros(999_755));
    assert_eq!(bench.get(REGISTER_A), 0x26);
    bench.pass(Duration::from_micros(1));
    assert_eq!(bench.get(REGISTER_A), 0xa6);
    assert_eq!(bench.get(SECONDS), 0x56, "still the old second");
    bench.set(REGISTER_B, SET);
    assert_eq!(bench.get(REGISTER_A), 0x26, "none while the clock stands");
    bench.set(REGISTER_B, HOURS_24);
    bench.pass(Duration::from_micros(244));
    assert_eq!((bench.get(REGISTER_A), bench.get(SECONDS)), (0x26, 0x57));
}

#[test]
fn update_ended_can_be_polled() {
    let bench = Bench::at(NOW);
    assert_eq!(bench.get(REGISTER_C), 0);
    bench.pass(Duration::from_secs(1));
    assert_eq!([bench.get(REGISTER_C), bench.get(REGISTER_C)], [UPDATE_ENDED, 0]);
    bench.set(REGISTER_B, HOURS_24 | UPDATE_ENDED_ENABLE);
    bench.pass(Duration::from_secs(3));
    assert_eq!([bench.get(REGISTER_C), bench.get(REGISTER_C)], [INTERRUPT_REQUEST | UPDATE_ENDED, 0]);
}

#[test]
fn ram_lasts() {
    let bench = Bench::at(NOW);
    let writable = (0x0e..0x80).filter(|register| *register != CENTURY).chain([0x01, 0x03, 0x05]);
    for register in writable.clone() {
        bench.set(register, register ^ 0x5a);
    }
    bench.rtc.reset();
    for register in writable {
        assert_eq!(bench.get(register), register ^ 0x5a, "{register:#x}");
    }
    assert_eq!(bench.time(), [0x20, 0x24, 0x02, 0x29, 0x12, 0x34, 0x56]);
}

#[test]
fn reset_switches_interrupts_off_and_keeps_formats() {
    let bench = Bench::at(NOW);
    bench.set(REGISTER_B, 0x7e);
    bench.rtc.reset();
    assert_eq!(bench.get(REGISTER_B), BINARY | HOURS_24);
}

#[test]
fn read_only_registers() {
    let bench = Bench::at(NOW);
    for (register, value) in [(WEEKDAY, 5), (REGISTER_C, 0), (REGISTER_D, 0x80)] {
        bench.set(register, 0x33);
        assert_eq!(bench.get(register), value, "{register:#x}");
    }
    bench.set(REGISTER_A, 0xa6);
    assert_eq!(bench.get(REGISTER_A), 0x26);
}

#[test]
fn ports() {
    let bench = Bench::at(NOW);
    let mut data = [0; 4];
    // Bit 7 of the index is another matter's; index and data fit one access.
    bench.rtc.write(0, &[0x80 | 0x40, 0x99]);
    bench.rtc.read(0, &mut data);
    assert_eq!(data, [0xff, 0x99, 0xff, 0xff]);
    assert_eq!(bench.get(0x40), 0x99);
}

#[test]
fn dates_that_do_not_exist() {
    let bench = Bench::at(NOW);
    for register in [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY] {
        for value in [0xff, 0x00, 0xaa] {
            bench.set(register, value);
            bench.time();
        }
    }
    bench.set(REGISTER_B, SET | HOURS_24);
    bench.set(DAY, 0x31);
    bench.set(MONTH, 0x04);
    assert_eq!((bench.get(DAY), bench.get(MONTH)), (0x31, 0x04), "as written while it stands");
    bench.set(REGISTER_B, HOURS_24);
    assert_eq!((bench.get(DAY), bench.get(MONTH)), (0x01, 0x05));
}
