//! INTx with level semantics, in a VMM that tells of the guest's end of interrupt and in one that does not.

use std::sync::Arc;
use std::time::Duration;

use crate::vmm::Vmm;
use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::Slot;
use passthru::ports::{Gsi, InterruptPort};
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

const TRIGGER: u64 = 0x48;
const ACKNOWLEDGE: u64 = 0x4c;

/// Functions of one device, so that they share a line.
struct Machine {
    vmm: Arc<Vmm>,
    functions: Vec<Attached>,
}

impl Machine {
    fn new(resamples: bool, count: u8) -> Machine {
        let vmm = Vmm::new();
        vmm.book().resamples = resamples;
        let space = Arc::new(AddressSpace::new(vmm.clone()));
        let windows = Arc::new(Windows { memory: vec![0xc000_0000..0xe000_0000], io: vec![] });
        let attach = |number| {
            let slot = Slot::new(0, 8, number).unwrap();
            let host = Arc::new(SimulatedFunction::new("demo", slot, vmm.ports()).unwrap());
            let fresh = Fresh::one(host).unwrap();
            let function =
                Attached::new(fresh, slot, Shape::default(), space.clone(), windows.clone()).unwrap();
            function.assign(0, registers(number));
            function.config().config_write(0x04, &[0x06, 0x00]);
            function
        };
        Machine { functions: (0..count).map(attach).collect(), vmm }
    }

    fn gsi(&self) -> Gsi {
        self.vmm.line(self.functions[0].slot(), 1)
    }

    fn is_up(&self) -> bool {
        self.vmm.line_is_up(self.gsi())
    }

    fn write(&self, function: u8, register: u64) {
        // Vector 0, or else any value that acknowledges.
        self.vmm.write(registers(function) + register, &u32::from(register == ACKNOWLEDGE).to_le_bytes());
    }

    /// The guest has handled what it could: then it says so to the interrupt controller.
    fn end_of_interrupt(&self) {
        self.vmm.end_of_interrupt(self.gsi());
    }

    /// A line that is sampled goes down a while after the function took it down.
    fn goes_down(&self) {
        while self.is_up() {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn command(&self, function: usize, value: u16) {
        self.functions[function].config().config_write(0x04, &value.to_le_bytes());
    }

    fn status(&self, function: usize) -> u16 {
        let mut status = [0; 2];
        self.functions[function].config().config_read(0x06, &mut status);
        u16::from_le_bytes(status)
    }
}

const fn registers(function: u8) -> u64 {
    0xc000_0000 + 0x1000 * function as u64
}

#[test]
fn the_line_is_up_until_the_guest_has_acknowledged() {
    let machine = Machine::new(true, 1);
    let mut pin = [0];
    machine.functions[0].config().config_read(0x3d, &mut pin);
    assert_eq!((pin, machine.is_up()), ([1], false));
    for _ in 0..3 {
        machine.write(0, TRIGGER);
        assert!(machine.is_up());
        machine.end_of_interrupt();
        assert!(machine.is_up(), "the function still asserts it");
        machine.write(0, ACKNOWLEDGE);
        assert!(machine.is_up(), "nobody guesses");
        machine.end_of_interrupt();
        assert!(!machine.is_up());
    }
}

#[test]
fn a_line_that_nobody_resamples_is_sampled() {
    let machine = Machine::new(false, 1);
    for _ in 0..3 {
        machine.write(0, TRIGGER);
        for _ in 0..20 {
            assert!(machine.is_up(), "while the function asserts it");
            std::thread::sleep(Duration::from_micros(300));
        }
        machine.write(0, ACKNOWLEDGE);
        machine.goes_down();
    }
}

#[test]
fn functions_that_share_a_line_hold_it_up_together() {
    for resamples in [true, false] {
        let machine = Machine::new(resamples, 2);
        machine.write(0, TRIGGER);
        machine.write(1, TRIGGER);
        machine.write(0, ACKNOWLEDGE);
        machine.end_of_interrupt();
        std::thread::sleep(Duration::from_millis(3));
        assert!(machine.is_up(), "the other one asserts it");
        machine.write(1, ACKNOWLEDGE);
        machine.end_of_interrupt();
        machine.goes_down();
    }
}

#[test]
fn a_disabled_line_waits_and_the_status_register_tells() {
    for resamples in [true, false] {
        let machine = Machine::new(resamples, 1);
        machine.command(0, 0x0406);
        machine.write(0, TRIGGER);
        assert_eq!((machine.is_up(), machine.status(0) & 8), (false, 8));
        machine.command(0, 0x0006);
        assert!(machine.is_up());
        machine.write(0, ACKNOWLEDGE);
        machine.end_of_interrupt();
        machine.goes_down();
        assert_eq!(machine.status(0) & 8, 0);
    }
}

#[test]
fn messages_and_the_line_take_turns() {
    for resamples in [true, false] {
        let machine = Machine::new(resamples, 1);
        let config = machine.functions[0].config();
        config.config_write(0x54, &0xfee0_0000u32.to_le_bytes());
        config.config_write(0x5c, &[0x60, 0]);
        for _ in 0..2 {
            machine.write(0, TRIGGER);
            assert!(machine.is_up());
            machine.write(0, ACKNOWLEDGE);
            config.config_write(0x52, &[0x01, 0]);
            assert!(!machine.is_up(), "the line goes with INTx");
            machine.write(0, TRIGGER);
            assert_eq!(machine.vmm.delivered().len(), 1, "as a message");
            assert!(!machine.is_up());
            config.config_write(0x52, &[0x00, 0]);
            assert!(!machine.is_up());
        }
    }
}

#[test]
fn nothing_is_left_of_a_line_that_is_up() {
    for resamples in [true, false] {
        let machine = Machine::new(resamples, 2);
        machine.write(0, TRIGGER);
        assert!(machine.is_up());
        let Machine { vmm, functions } = machine;
        drop(functions);
        assert!(vmm.is_empty());
    }
}
