use super::*;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().extend(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

struct Bench {
    serial: Serial,
    output: Output,
    interrupts: Count,
    room: Count,
}

impl Bench {
    fn new() -> Bench {
        let (output, interrupts, room) = (Output::default(), Count::default(), Count::default());
        let (on_interrupt, on_room) = (interrupts.clone(), room.clone());
        let serial = Serial::new(move || on_interrupt.add(), output.clone(), move || on_room.add());
        Bench { serial, output, interrupts, room }
    }

    fn read(&self, port: u8) -> u8 {
        let mut data = [0];
        self.serial.read(port.into(), &mut data);
        data[0]
    }

    fn write(&self, port: u8, value: u8) {
        self.serial.write(port.into(), &[value]);
    }

    fn registers(&self) -> Vec<u8> {
        (INTERRUPT_ENABLE..SIZE as u8).map(|port| self.read(port)).collect()
    }
}

#[test]
fn output_is_transmitted_at_once() {
    let bench = Bench::new();
    for byte in b"login: " {
        assert_eq!(bench.read(LINE_STATUS), 0x60, "always ready");
        bench.write(DATA, *byte);
    }
    assert_eq!(*bench.output.0.lock(), b"login: ");
    assert_eq!(bench.interrupts.take(), 0, "none enabled");
}

/// What Linux' 8250 driver does to tell the chip: the FIFO bits, no EFR, and a scratch register.
#[test]
fn a_16550a_to_linux() {
    let bench = Bench::new();
    bench.write(INTERRUPT_ENABLE, 0x0f);
    assert_eq!(bench.read(INTERRUPT_ENABLE), 0x0f);
    bench.write(INTERRUPT_ENABLE, 0);
    assert_eq!(bench.read(INTERRUPT_ENABLE), 0);
    bench.write(MODEM_CONTROL, 0x1a);
    assert_eq!(bench.read(6) & 0xf0, 0x90, "loopback shows RTS and OUT2 as CTS and DCD");
    bench.write(MODEM_CONTROL, 0x08);
    bench.write(INTERRUPT_ID, 0x01);
    assert_eq!(bench.read(INTERRUPT_ID) & 0xc0, 0xc0);
    bench.write(LINE_CONTROL, 0xbf);
    assert_ne!(bench.read(INTERRUPT_ID), 0, "an EFR would read zero");
    bench.write(LINE_CONTROL, 0);
    bench.write(INTERRUPT_ID, 0xa1);
    assert_eq!(bench.read(INTERRUPT_ID) & 0x20, 0, "no 64-byte FIFO of a 16750");
    bench.write(SCRATCH, 0x5a);
    assert_eq!(bench.read(SCRATCH), 0x5a);
}

/// Linux' test for UARTs that do not raise "transmitter empty" again when it is enabled again.
#[test]
fn enabling_raises_what_is_pending() {
    let bench = Bench::new();
    for _ in 0..2 {
        bench.write(INTERRUPT_ENABLE, TRANSMITTER_EMPTY);
        assert_eq!(bench.interrupts.take(), 1);
        assert_eq!(bench.read(INTERRUPT_ID), ID_FIFOS | ID_TRANSMITTER_EMPTY);
        assert_eq!(bench.read(INTERRUPT_ID), ID_FIFOS | ID_NONE, "acknowledged");
        bench.write(INTERRUPT_ENABLE, 0);
    }

    bench.serial.enqueue(b"x");
    assert_eq!(bench.interrupts.take(), 0);
    bench.write(INTERRUPT_ENABLE, ENABLE_RECEIVED);
    assert_eq!(bench.interrupts.take(), 1);
}

#[test]
fn received_data_stays_identified_until_read() {
    let bench = Bench::new();
    bench.write(INTERRUPT_ENABLE, ENABLE_RECEIVED);
    assert_eq!(bench.serial.enqueue(b"abc"), 3);
    assert_eq!(bench.interrupts.take(), 1);
    // A driver that takes one byte at a time.
    let mut got = Vec::new();
    while bench.read(INTERRUPT_ID) == ID_FIFOS | ID_RECEIVED {
        got.push(bench.read(DATA));
    }
    assert_eq!(got, b"abc");
    assert_eq!(bench.read(LINE_STATUS) & DATA_READY, 0);
    bench.serial.enqueue(b"d");
    assert_eq!(bench.interrupts.take(), 1, "a new edge after all was read");
}

#[test]
fn received_data_comes_before_the_transmitter() {
    let bench = Bench::new();
    bench.write(INTERRUPT_ENABLE, ENABLE_RECEIVED | TRANSMITTER_EMPTY);
    bench.serial.enqueue(b"a");
    let ids: Vec<u8> = (0..4)
        .map(|_| {
            let id = bench.read(INTERRUPT_ID);
            if id == ID_FIFOS | ID_RECEIVED {
                bench.read(DATA);
            }
            id & !ID_FIFOS
        })
        .collect();
    assert_eq!(ids, [ID_RECEIVED, ID_TRANSMITTER_EMPTY, ID_NONE, ID_NONE]);
}

#[test]
fn the_divisor_does_not_change_what_is_enabled() {
    let bench = Bench::new();
    bench.write(INTERRUPT_ENABLE, ENABLE_RECEIVED);
    bench.write(LINE_CONTROL, DIVISOR_ACCESS | 3);
    bench.write(INTERRUPT_ENABLE, 0);
    bench.write(DATA, 1);
    bench.serial.enqueue(b"a");
    assert_eq!(bench.read(INTERRUPT_ID), ID_FIFOS | ID_RECEIVED);
    assert!(bench.output.0.lock().is_empty());
}

#[test]
fn input_pauses_when_full() {
    let bench = Bench::new();
    let input: Vec<u8> = (0..100).collect();
    let taken = bench.serial.enqueue(&input);
    assert_eq!(taken, 64);
    assert_eq!(bench.serial.enqueue(&input[taken..]), 0);

    for (number, expected) in input[..taken].iter().enumerate() {
        assert_eq!(bench.room.take(), 0, "after {number}");
        assert_eq!(bench.read(DATA), *expected);
    }
    assert_eq!(bench.room.take(), 1);
    assert_eq!(bench.serial.enqueue(&input[taken..]), 36);
    for expected in &input[taken..] {
        assert_eq!(bench.read(DATA), *expected);
    }
    assert_eq!(bench.room.take(), 0, "nobody waits");
}

#[test]
fn room_may_enqueue() {
    let serial: Arc<std::sync::OnceLock<Serial>> = Arc::default();
    let held = Arc::clone(&serial);
    let made = Serial::new(
        || {},
        io::sink(),
        move || assert_eq!(held.get().map(|serial| serial.enqueue(b"more")), Some(4)),
    );
    assert!(serial.set(made).is_ok());
    let serial = serial.get().unwrap();
    assert_eq!(serial.enqueue(&[0; 65]), 64);
    for _ in 0..64 {
        serial.read(0, &mut [0]);
    }
    let mut data = [0];
    serial.read(0, &mut data);
    assert_eq!(data, *b"m");
}

#[test]
fn input_waits_for_the_end_of_loopback() {
    let bench = Bench::new();
    bench.write(MODEM_CONTROL, 0x10);
    assert_eq!(bench.serial.enqueue(b"a"), 0);
    bench.write(MODEM_CONTROL, 0x08);
    assert_eq!(bench.room.take(), 1);
    assert_eq!(bench.serial.enqueue(b"a"), 1);
}

#[test]
fn reset_is_power_on() {
    let fresh = Bench::new().registers();
    let bench = Bench::new();
    bench.write(LINE_CONTROL, DIVISOR_ACCESS);
    bench.write(DATA, 1);
    bench.write(LINE_CONTROL, 0x1b);
    bench.write(INTERRUPT_ENABLE, 0x0f);
    bench.write(MODEM_CONTROL, 0x0b);
    bench.write(SCRATCH, 0xaa);
    bench.serial.enqueue(&[1; 70]);
    bench.interrupts.take();

    bench.serial.reset();
    assert_eq!(bench.registers(), fresh);
    assert_eq!(bench.room.take(), 1, "the console may go on");
    assert_eq!(bench.interrupts.take(), 0);
    assert!(bench.output.0.lock().is_empty());
    bench.write(LINE_CONTROL, DIVISOR_ACCESS);
    assert_eq!([bench.read(DATA), bench.read(INTERRUPT_ENABLE)], DIVISOR);
}

#[test]
fn reset_forgets_what_was_signalled() {
    let bench = Bench::new();
    bench.write(INTERRUPT_ENABLE, TRANSMITTER_EMPTY);
    bench.serial.reset();
    bench.interrupts.take();
    bench.write(INTERRUPT_ENABLE, TRANSMITTER_EMPTY);
    assert_eq!(bench.interrupts.take(), 1);
}

/// Linux' console switches interrupts off while it prints; another vCPU may take one just then.
#[test]
fn an_interrupt_taken_while_none_are_enabled_comes_again() {
    let bench = Bench::new();
    bench.write(INTERRUPT_ENABLE, ENABLE_RECEIVED | TRANSMITTER_EMPTY);
    bench.serial.enqueue(b"a");
    bench.write(INTERRUPT_ENABLE, 0);
    assert_eq!(bench.read(INTERRUPT_ID), ID_FIFOS | ID_NONE);
    bench.interrupts.take();
    bench.write(INTERRUPT_ENABLE, ENABLE_RECEIVED | TRANSMITTER_EMPTY);
    assert_ne!(bench.interrupts.take(), 0);
    assert_eq!(bench.read(INTERRUPT_ID), ID_FIFOS | ID_RECEIVED);
}

#[test]
fn output_that_fails_does_not_stop_the_guest() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let interrupts = Count::default();
    let on_interrupt = interrupts.clone();
    let serial = Serial::new(move || on_interrupt.add(), Broken, || {});
    serial.write(1, &[TRANSMITTER_EMPTY]);
    serial.read(2, &mut [0]);
    interrupts.take();
    serial.write(0, b"x");
    assert_eq!(interrupts.take(), 1, "the transmitter is empty all the same");
}

/// Output that waits until it is let go.
struct Stuck(std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(());
        let _ = self.1.recv();
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn input_does_not_wait_for_output_that_nobody_reads() {
    let ((began, writing), (go, may_go)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let room = Count::default();
    let on_room = room.clone();
    let serial = Serial::new(|| (), Stuck(began, may_go), move || on_room.add());
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| serial.write(DATA.into(), b"x"));
        writing.recv().unwrap();
        assert_eq!(serial.enqueue(b"abc"), 0);
        assert_eq!(room.take(), 0);
        go.send(()).unwrap();
        vcpu.join().unwrap();
    });
    assert_eq!(room.take(), 1);
    assert_eq!(serial.enqueue(b"abc"), 3);
}
