//! The guest under slotpass itself, in this process.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::error::BenchError;
use super::guest_text::GuestText;
use crate::control::Stop;
use crate::machine::{self, Description, EventPolicy, Image, UseIommufd};
use crate::memory::{Backing, RamSize};
use crate::port_options::PortOptions;
use crate::signals::HeldBack;
use crate::slot_map::Assignment;
use crate::vcpu_options::VcpuOptions;

/// Enough for the guest, and little to be mapped for DMA.
const MEMORY: u64 = 64 << 20;

/// Runs the guest to its end with these functions, and gives what it sent by its serial port.
pub fn run(words: String, assignments: Vec<Assignment>, iommufd: UseIommufd) -> Result<String, BenchError> {
    let (console, other) = UnixStream::pair().map_err(BenchError::Console)?;
    // The machine does so too, but here is a thread before it; and what is run beside it is ended by them as usual.
    let _signals = HeldBack::new().map_err(BenchError::Signals)?;
    let text = GuestText::from(other).map_err(BenchError::Console)?;
    let description = Description {
        image: Image::Embedded { name: "bench", bytes: guest::BENCH },
        command_line: words,
        memory: RamSize::try_from(MEMORY)?,
        backing: Backing::Transparent,
        cpus: 1,
        vcpu_options: VcpuOptions::default(),
        assignments,
        ports: PortOptions::default(),
        events: EventPolicy::default(),
        control: None,
        require_reset: false,
        iommufd,
        ppt: None,
        no_reboot: true,
        page_times: false,
        console: Some(Arc::new(console)),
        records: None,
        running: None,
    };
    let outcome = machine::run(&description);
    // With the last descriptor of the guest's end of the console the reader comes to its end.
    drop(description);
    let text = GuestText::of(text)?;
    match outcome?.stop {
        Stop::PowerOff | Stop::Exit(_) => Ok(text),
        Stop::Asked(by) => Err(BenchError::Asked(by)),
        stop => Err(BenchError::Stopped(format!("{stop:?}"))),
    }
}
