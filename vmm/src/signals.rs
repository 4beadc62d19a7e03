//! Signals that end the program, taken from a descriptor; and the one that makes a vCPU leave guest mode.

use std::fs::File;
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::FromRawFd;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use log::debug;
use std::sync::Arc;
use vmm_sys_util::signal::{
    Error as SignalError, SIGRTMIN, block_signal, register_signal_handler, unblock_signal,
};

use crate::control::{Control, Stop};

/// The signals that end the program, in good order, and what they are called.
const ENDING: [(libc::c_int, &str); 3] =
    [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT"), (libc::SIGHUP, "SIGHUP")];

/// Makes a vCPU thread leave guest mode: its handler does nothing.
pub fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Blocks the ending signals in this thread and those that it starts, and lets vCPU threads be kicked. To be called
/// before any thread is started.
pub fn prepare() -> io::Result<()> {
    for (signal, _) in ENDING {
        match block_signal(signal) {
            // By whoever started this, or by an earlier call.
            Ok(()) | Err(SignalError::SignalAlreadyBlocked(_)) => {}
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
    }
    register_signal_handler(kick_signal(), ignore).map_err(io::Error::from)?;
    // Whoever started this may have blocked it, and a vCPU would not hear it.
    unblock_signal(kick_signal()).map_err(|error| io::Error::other(error.to_string()))
}

/// From now on the ending signals end this thread's program as if it did not know them, also one that has come meanwhile.
pub fn unblock() -> io::Result<()> {
    ENDING.iter().try_for_each(|(signal, _)| {
        unblock_signal(*signal).map_err(|error| io::Error::other(error.to_string()))
    })
}

/// The ending signals, held back from this thread and those that it starts while this is there. When it goes, one that has come
/// and was not taken ends the program as usual.
#[derive(Debug)]
pub struct HeldBack {
    file: File,
}

impl HeldBack {
    /// As [`prepare`].
    pub fn new() -> io::Result<HeldBack> {
        prepare()?;
        Ok(HeldBack { file: descriptor()? })
    }

    /// Takes one that has come, and gives its name.
    pub fn taken(&self) -> Option<&'static str> {
        taken(&self.file)
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        if let Err(error) = unblock() {
            debug!("signals: {error}");
        }
    }
}

/// Takes one of the signals that have come from their [`descriptor`], and gives its name.
fn taken(mut descriptor: &File) -> Option<&'static str> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    descriptor.read_exact(&mut info).ok()?;
    // The number comes first.
    let number = info.first_chunk().map_or(0, |n| i32::from_ne_bytes(*n));
    Some(ENDING.iter().find(|(signal, _)| *signal == number).map_or("a signal", |(_, name)| name))
}

/// Stops the guest when an ending signal arrives.
pub struct Signals {
    file: File,
    control: Arc<Control>,
}

impl Signals {
    /// Takes the signals that [`prepare`] blocked.
    pub fn new(control: Arc<Control>) -> io::Result<Signals> {
        Ok(Signals { file: descriptor()?, control })
    }
}

/// A descriptor that is readable when one of the signals has come that [`prepare`] blocked.
pub fn descriptor() -> io::Result<File> {
    // SAFETY: a zeroed set is valid memory for sigemptyset, and signalfd reads the set.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for (signal, _) in ENDING {
            libc::sigaddset(&mut set, signal);
        }
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { File::from_raw_fd(fd) })
}

impl MutEventSubscriber for Signals {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        while let Some(name) = taken(&self.file) {
            self.control.stop(Stop::Asked(name));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.file, EventSet::IN)) {
            debug!("signals: {error}");
        }
    }
}
