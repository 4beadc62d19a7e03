//! The serial port: a 16550A (National Semiconductor PC16550D) on vm-superio's UART.
//!
//! vm-superio's model transmits at once, has a receive FIFO of 64 bytes, and reports what Linux' 8250 driver
//! looks for when it tells a 16550A from its relatives. It signals an edge for each new condition, which is
//! what an ISA interrupt is. What differs from the chip, and matters to no driver known: FIFO control is
//! ignored (type-ahead survives the driver's start), and the interrupt is not gated by OUT2.
//!
//! One thing is put right here: vm-superio's interrupt identification is a set of bits that a read clears,
//! where the chip has a code for the most urgent condition, present as long as the condition is. A driver
//! that takes one byte for each identification would leave the rest behind.

use std::convert::Infallible;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use vm_superio::Trigger;
use vm_superio::serial::{Error, NoEvents, Serial as Uart};

use crate::PortDevice;
use crate::port::{read_each, write_each};

/// Ports that [`Serial`] takes.
pub const SIZE: u16 = 8;

/// Receive and transmit register, or the divisor's low byte.
const DATA: u8 = 0;
/// Interrupt enable register, or the divisor's high byte.
const INTERRUPT_ENABLE: u8 = 1;
/// Interrupt identification register when read.
const INTERRUPT_ID: u8 = 2;
/// Line control register.
const LINE_CONTROL: u8 = 3;
/// Modem control register.
const MODEM_CONTROL: u8 = 4;
/// Line status register.
const LINE_STATUS: u8 = 5;
/// Scratch register.
const SCRATCH: u8 = 7;

/// Interrupt enable and its identification bit in vm-superio: the transmitter is empty.
const TRANSMITTER_EMPTY: u8 = 0b010;
/// Interrupt enable: data was received.
const ENABLE_RECEIVED: u8 = 0b001;
/// Identifications (PC16550D data sheet, interrupt control functions): nothing, transmitter empty, data
/// received.
const ID_NONE: u8 = 0b001;
const ID_TRANSMITTER_EMPTY: u8 = 0b010;
const ID_RECEIVED: u8 = 0b100;
/// The FIFOs are on.
const ID_FIFOS: u8 = 0b1100_0000;
/// Line control: the first two registers are the divisor.
const DIVISOR_ACCESS: u8 = 1 << 7;
/// Line control after power-on as vm-superio has it: 8 data bits.
const EIGHT_BITS: u8 = 0b11;
/// Modem control after power-on as vm-superio has it: OUT2.
const OUT2: u8 = 1 << 3;
/// Divisor after power-on as vm-superio has it: 9600 baud.
const DIVISOR: [u8; 2] = [12, 0];
/// Line status: a byte was received.
const DATA_READY: u8 = 1 << 0;

/// A serial port. Output goes to a `Write`, a byte at a time, flushed; input comes by [`Serial::enqueue`].
///
/// A write that blocks blocks the vCPU that transmits; one that fails loses the byte, and the first failure
/// is logged.
pub struct Serial {
    inner: Mutex<Inner>,
    /// Input was turned away and its owner waits for room.
    input_waits: AtomicBool,
    room: Box<dyn Fn() + Send + Sync>,
}

struct Inner {
    uart: Uart<Interrupt, NoEvents, Box<dyn Write + Send>>,
    /// Room in an empty receive FIFO.
    fifo_size: usize,
    /// The interrupt enable register, which the divisor can hide.
    enable: u8,
    /// "Transmitter empty" is yet to be identified, after something more urgent.
    transmitter_waits: bool,
    output_failed: bool,
}

struct Interrupt(Box<dyn Fn() + Send>);

impl Trigger for Interrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        (self.0)();
        Ok(())
    }
}

impl Serial {
    /// * `interrupt` signals one edge; it is called with the port locked and must not come back here.
    /// * `output` takes what the guest transmits.
    /// * `room` is called when there may be room again after [`Serial::enqueue`] had turned some away. It is
    ///   called on the vCPU's thread, with nothing locked.
    pub fn new(
        interrupt: impl Fn() + Send + 'static,
        output: impl Write + Send + 'static,
        room: impl Fn() + Send + Sync + 'static,
    ) -> Serial {
        let uart = Uart::new(Interrupt(Box::new(interrupt)), Box::new(output) as Box<dyn Write + Send>);
        let inner = Inner {
            fifo_size: uart.fifo_capacity(),
            uart,
            enable: 0,
            transmitter_waits: false,
            output_failed: false,
        };
        Serial { inner: Mutex::new(inner), input_waits: AtomicBool::new(false), room: Box::new(room) }
    }

    /// Hands input to the guest and returns how many bytes it took, the first ones. With less than all of
    /// them taken, `room` is called once the guest has read what it has, so that a console can pause its own
    /// reading until then.
    ///
    /// Does not wait: while a vCPU's write waits for whoever reads the output, nothing is taken, and `room` is called when
    /// that is over.
    pub fn enqueue(&self, input: &[u8]) -> usize {
        // First the flag and then the lock, and in `locked` the other way round: so one of the two sees the other.
        self.input_waits.store(true, Ordering::SeqCst);
        let Some(mut inner) = self.inner.try_lock() else { return 0 };
        // The only other failure is the trigger's, which has none.
        let taken = inner.uart.enqueue_raw_bytes(input).unwrap_or(0);
        self.input_waits.store(taken < input.len(), Ordering::SeqCst);
        taken
    }

    /// Does `work`, then tells the owner of waiting input about room, with the lock released: it enqueues.
    fn locked(&self, work: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        work(&mut inner);
        let has_room = inner.uart.fifo_capacity() == inner.fifo_size;
        drop(inner);
        if has_room && self.input_waits.swap(false, Ordering::SeqCst) {
            (self.room)();
        }
    }
}

impl Inner {
    fn read(&mut self, port: u8) -> u8 {
        match port {
            INTERRUPT_ID => self.identify(),
            port => self.uart.read(port),
        }
    }

    fn write(&mut self, port: u8, value: u8) {
        if port == INTERRUPT_ENABLE && self.uart.read(LINE_CONTROL) & DIVISOR_ACCESS == 0 {
            self.enable = value;
        }
        if let Err(Error::IOError(error)) = self.uart.write(port, value)
            && !std::mem::replace(&mut self.output_failed, true)
        {
            log::warn!("serial port: output is lost: {error}; check where the console's output goes");
        }
    }

    /// The most urgent condition that is enabled; reading it acknowledges "transmitter empty", if it is that.
    fn identify(&mut self) -> u8 {
        let pending = self.uart.read(INTERRUPT_ID);
        let waits = self.transmitter_waits || pending & TRANSMITTER_EMPTY != 0;
        self.transmitter_waits = waits && self.enable & TRANSMITTER_EMPTY != 0;

        let received = self.uart.read(LINE_STATUS) & DATA_READY != 0;
        if received && self.enable & ENABLE_RECEIVED != 0 {
            ID_FIFOS | ID_RECEIVED
        } else if std::mem::take(&mut self.transmitter_waits) {
            ID_FIFOS | ID_TRANSMITTER_EMPTY
        } else {
            ID_FIFOS | ID_NONE
        }
    }

    fn reset(&mut self) {
        let [low, high] = DIVISOR;
        self.write(LINE_CONTROL, DIVISOR_ACCESS);
        self.write(DATA, low);
        self.write(INTERRUPT_ENABLE, high);
        self.write(LINE_CONTROL, EIGHT_BITS);
        self.write(INTERRUPT_ENABLE, 0);
        self.write(MODEM_CONTROL, OUT2);
        self.write(SCRATCH, 0);
        while self.uart.fifo_capacity() < self.fifo_size {
            self.uart.read(DATA);
        }
        self.uart.read(INTERRUPT_ID);
        self.transmitter_waits = false;
    }
}

impl PortDevice for Serial {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.locked(|inner| {
            read_each(offset, data, |port| match u8::try_from(port) {
                Ok(port) if port < SIZE as u8 => inner.read(port),
                _ => 0xff,
            });
        });
    }

    fn write(&self, offset: u16, data: &[u8]) {
        self.locked(|inner| {
            write_each(offset, data, |port, value| {
                if let Ok(port) = u8::try_from(port) {
                    inner.write(port, value);
                }
            });
        });
    }

    /// Input that the guest had not read is gone.
    fn reset(&self) {
        self.locked(Inner::reset);
    }
}

#[cfg(test)]
mod tests;
