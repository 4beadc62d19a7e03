//! The devices that every guest has.

use std::io;
use std::sync::Arc;

use devices::acpi_pm::{Pm1, PmTimer, TimerWidth};
use devices::debug_exit::DebugExit;
use devices::pci::cf8::{self, Cf8};
use devices::pci::ecam::Ecam;
use devices::pci::topology::Topology;
use devices::reset::ResetPort;
use devices::rtc::Rtc;
use devices::serial::Serial;
use devices::{EventSink, PortDevice};
use log::error;
use passthru::pci::Space;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::{MachineError, process};
use crate::bus::{Bus, Target};
use crate::console::Output;
use crate::kvm::{Vm, call};
use crate::layout;

/// What a machine has beside memory, processors and passed-through functions.
pub struct Platform {
    /// COM1.
    pub serial: Arc<Serial>,
    /// Signalled when the serial port has room again.
    pub room: Arc<EventFd>,
    /// The registers that have the power button.
    pub power: Arc<Pm1>,
    /// CONFIG_ADDRESS and CONFIG_DATA.
    pub config_ports: Arc<Cf8>,
    ports: Vec<Arc<dyn PortDevice>>,
}

impl Platform {
    /// Puts the devices on the bus.
    pub fn new(
        vm: &Vm,
        bus: &Bus,
        topology: Arc<Topology>,
        output: Output,
        events: EventSink,
    ) -> Result<Platform, MachineError> {
        let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(process("eventfd"));
        let interrupt = eventfd()?;
        vm.fd().register_irqfd(&interrupt, u32::from(layout::SERIAL_GSI)).map_err(call("KVM_IRQFD"))?;
        let room = Arc::new(eventfd()?);
        let signal_room = room.clone();
        let serial = Arc::new(Serial::new(move || signal(&interrupt), output, move || signal(&signal_room)));
        let line = vm.fd().clone();
        let pm1 = Pm1::new(layout::SLEEP_TYPE_S5, events.clone(), move |active| {
            if let Err(error) = line.set_irq_line(u32::from(layout::SCI_GSI), active) {
                error!("KVM_IRQ_LINE of the ACPI interrupt: {error}");
            }
        });
        let cf8 = Arc::new(Cf8::new(topology.clone(), events.clone()));
        let mut platform = Platform {
            serial: serial.clone(),
            room,
            power: pm1.clone(),
            config_ports: cf8.clone(),
            ports: Vec::new(),
        };
        let mut add = |name, start: u16, len: u16, device: Arc<dyn PortDevice>| {
            platform.ports.push(device.clone());
            let range = u64::from(start)..u64::from(start) + u64::from(len);
            bus.add(Space::Io, range, name, Target::Ports(device)).map_err(|e| MachineError::Bus(name, e))
        };
        add("serial", layout::SERIAL_PORT, 8, serial)?;
        add("rtc", layout::RTC_PORT, 2, Arc::new(Rtc::new()))?;
        add(
            "keyboard-reset",
            layout::KEYBOARD_COMMAND_PORT,
            1,
            Arc::new(ResetPort::keyboard(events.clone())),
        )?;
        add("debug-exit", layout::DEBUG_EXIT_PORT, 4, Arc::new(DebugExit::new(events.clone())))?;
        add("pm1-event", layout::PM1_EVENT_PORT, 4, Arc::new(pm1.event_block()))?;
        add("pm1-control", layout::PM1_CONTROL_PORT, 2, Arc::new(pm1.control_block()))?;
        add("pm-timer", layout::PM_TIMER_PORT, 4, Arc::new(PmTimer::new(TimerWidth::Bits32)))?;
        let reset = ResetPort::acpi(layout::RESET_VALUE, events);
        add("reset", layout::RESET_PORT, 1, Arc::new(reset))?;

        platform.ports.push(cf8.clone());
        let start = u64::from(layout::CONFIG_ADDRESS_PORT);
        bus.add(Space::Io, start..start + u64::from(cf8::SIZE), "config-ports", Target::Cf8(cf8))
            .map_err(|error| MachineError::Bus("config-ports", error))?;
        bus.add(Space::Memory, layout::ECAM, "ecam", Target::Ecam(Arc::new(Ecam::new(topology))))
            .map_err(|error| MachineError::Bus("ecam", error))?;
        Ok(platform)
    }

    /// All of them back to their state after power-on.
    pub fn reset(&self) {
        for device in &self.ports {
            device.reset();
        }
    }
}

/// An eventfd takes writes until its count is at its end, and then it is signalled all the same.
fn signal(event: &EventFd) {
    if let Err(error) = event.write(1)
        && error.kind() != io::ErrorKind::WouldBlock
    {
        error!("eventfd: {error}");
    }
}
