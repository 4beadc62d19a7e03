//! What is typed, on its way to the guest's serial port.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use devices::serial::Serial;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use log::debug;
use vmm_sys_util::eventfd::EventFd;

use crate::console::{ConsoleInput, Input};
use crate::control::{Control, Stop};

/// Bytes read at once; what the serial port does not take at once waits here.
const MOST: usize = 64;
/// Bytes that wait when they are typed or pasted: a person goes on typing, and what goes beyond is lost, as on a real line.
const MOST_TYPED: usize = 64 << 10;

/// Moves input to the serial port, and waits while that has no room.
pub struct SerialConsole {
    input: Input,
    serial: Arc<Serial>,
    room: Arc<EventFd>,
    waiting: Vec<u8>,
    watched: bool,
    control: Arc<Control>,
}

impl SerialConsole {
    /// Nothing is read before it is in an event loop.
    pub fn new(
        input: Input,
        serial: Arc<Serial>,
        room: Arc<EventFd>,
        control: Arc<Control>,
    ) -> SerialConsole {
        SerialConsole { input, serial, room, waiting: Vec::new(), watched: false, control }
    }

    fn hand_over(&mut self, ops: &mut EventOps<'_>) {
        let taken = self.serial.enqueue(&self.waiting);
        self.waiting.drain(..taken.min(self.waiting.len()));
        // A pipe is left alone until there is room, so that nothing of it is lost.
        self.watch_input(self.waiting.is_empty() || self.input.is_terminal(), ops);
    }

    fn watch_input(&mut self, watch: bool, ops: &mut EventOps<'_>) {
        let Some(fd) = self.input.watch_fd() else { return };
        if watch == self.watched {
            return;
        }
        let events = Events::new_raw(fd, EventSet::IN);
        let done = if watch { ops.add(events) } else { ops.remove(events) };
        match done {
            Ok(()) => self.watched = watch,
            Err(error) => debug!("console: {error}"),
        }
    }

    fn read(&mut self, ops: &mut EventOps<'_>) {
        let watched = self.input.watch_fd();
        match self.input.on_readable(MOST) {
            ConsoleInput::Bytes(bytes) => {
                self.waiting.extend(bytes);
                self.waiting.truncate(MOST_TYPED);
                self.hand_over(ops);
            }
            ConsoleInput::Eof => {
                if let Some(fd) = watched
                    && let Err(error) = ops.remove(Events::empty_raw(fd))
                {
                    debug!("console: {error}");
                }
                self.watched = false;
            }
            ConsoleInput::Quit => self.control.stop(Stop::Asked("Ctrl-A x on the console")),
        }
    }
}

impl MutEventSubscriber for SerialConsole {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.room.as_raw_fd() {
            let _ = self.room.read();
            self.hand_over(ops);
        } else {
            self.read(ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&*self.room, EventSet::IN)) {
            debug!("console: {error}");
        }
        self.watch_input(true, ops);
    }
}
