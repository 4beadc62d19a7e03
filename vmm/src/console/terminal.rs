//! Raw mode of the terminal, and the way back from it however this process ends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::{Error, duplicate};

/// The terminal in raw mode and its settings before, or null. An atomic pointer so that a signal handler can use it.
static SAVED: AtomicPtr<Saved> = AtomicPtr::new(ptr::null_mut());

struct Saved {
    /// A descriptor of its own, never closed, so that it is there whenever the process ends.
    fd: RawFd,
    settings: libc::termios,
}

/// A terminal is in raw mode as long as this lives. There is one at a time.
#[derive(Debug)]
pub(super) struct RawMode(());

impl RawMode {
    /// Puts a terminal into raw mode, to be restored on drop, on exit, on panic and by [`restore`].
    pub fn enter(terminal: BorrowedFd<'_>) -> Result<Self, Error> {
        let settings =
            settings_of(terminal.as_raw_fd()).map_err(Error::new("read the terminal's settings"))?;
        let fd = duplicate(terminal)?.into_raw_fd();
        let saved = Box::into_raw(Box::new(Saved { fd, settings }));
        // In place before the mode changes: a signal in between restores what is there anyway.
        if SAVED.compare_exchange(ptr::null_mut(), saved, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: made above and given to nobody.
            drop(unsafe { Box::from_raw(saved) });
            return Err(Error::new("use a second terminal")(io::ErrorKind::ResourceBusy.into()));
        }
        restore_at_end();
        apply(fd, &raw(settings)).map_err(|source| {
            restore();
            Error::new("put the terminal into raw mode")(source)
        })?;
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal its settings back, if it is in raw mode. Safe in a signal handler; again does nothing.
pub fn restore() {
    let saved = SAVED.swap(ptr::null_mut(), Ordering::AcqRel);
    if saved.is_null() {
        return;
    }
    // SAFETY: made by RawMode::enter and never freed, because a signal handler must not free memory; the swap gave
    // it to this call alone.
    let saved = unsafe { &*saved };
    // Nothing can be done about a failure, such as a terminal that has hung up.
    let _ = apply(saved.fd, &saved.settings);
}

/// Whether the terminal's foreground belongs to another job. A terminal without job control has no such thing.
pub(super) fn in_background(terminal: BorrowedFd<'_>) -> bool {
    // SAFETY: both only ask for a number.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(terminal.as_raw_fd()), libc::getpgrp()) };
    foreground > 0 && foreground != own
}

fn settings_of(fd: RawFd) -> io::Result<libc::termios> {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr writes no more than a termios, and all of one when it returns 0.
    unsafe {
        match libc::tcgetattr(fd, settings.as_mut_ptr()) {
            0 => Ok(settings.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Every key goes to the guest at once and unchanged, and is not echoed. Output processing stays on, so that
/// slotpass' own lines start at the left edge; the guest's carriage returns do not mind.
fn raw(mut settings: libc::termios) -> libc::termios {
    let output = settings.c_oflag;
    // SAFETY: changes the structure that it is given and nothing else.
    unsafe { libc::cfmakeraw(&mut settings) };
    settings.c_oflag = output;
    settings
}

fn apply(fd: RawFd, settings: &libc::termios) -> io::Result<()> {
    // A background job that changes the terminal is stopped by SIGTTOU unless it blocks the signal; ending in the
    // background must not hang.
    let blocked = sigttou();
    let mut before = blocked;
    // SAFETY: both sets are initialized; termios is valid. All three functions are safe in a signal handler.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before);
        let result = libc::tcsetattr(fd, libc::TCSANOW, settings);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        if result == 0 { Ok(()) } else { Err(error) }
    }
}

fn sigttou() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set; neither fails for a valid signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTTOU);
        set.assume_init()
    }
}

/// Arranges for [`restore`] where no destructor runs: `process::exit`, and a panic, whose message would otherwise
/// run down the screen in steps.
fn restore_at_end() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        extern "C" fn at_exit() {
            restore();
        }
        // SAFETY: the function lives as long as the program and does not unwind.
        unsafe { libc::atexit(at_exit) };
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}
