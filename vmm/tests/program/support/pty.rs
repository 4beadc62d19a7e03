//! A terminal for the program, and the hands on it.

use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;

/// Both ends of a pseudo terminal.
pub struct Pty {
    /// Where keys are pressed.
    keys: File,
    /// What the program has as its terminal.
    terminal: OwnedFd,
}

/// The terminal's settings that raw mode changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    input: libc::tcflag_t,
    output: libc::tcflag_t,
    control: libc::tcflag_t,
    local: libc::tcflag_t,
}

impl Settings {
    /// Lines are edited and echoed, and Ctrl-C is a signal.
    pub fn is_cooked(&self) -> bool {
        let wanted = libc::ICANON | libc::ECHO | libc::ISIG;
        self.local & wanted == wanted
    }

    /// Every key goes to the program as it is.
    pub fn is_raw(&self) -> bool {
        self.local & (libc::ICANON | libc::ECHO | libc::ISIG) == 0 && self.input & libc::ICRNL == 0
    }
}

impl Pty {
    pub fn open() -> Pty {
        let (mut keys, mut terminal) = (-1, -1);
        // SAFETY: two places for descriptors; null asks for no name and for the default settings and size.
        let result = unsafe {
            libc::openpty(&mut keys, &mut terminal, ptr::null_mut(), ptr::null_mut(), ptr::null_mut())
        };
        assert_eq!(result, 0, "openpty: {}", io::Error::last_os_error());
        for fd in [keys, terminal] {
            // SAFETY: no pointers. A child that kept the keys' end would never see it hang up.
            assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
        }
        // SAFETY: new descriptors that nobody else has.
        unsafe { Pty { keys: File::from_raw_fd(keys), terminal: OwnedFd::from_raw_fd(terminal) } }
    }

    /// Makes this the stdin and the controlling terminal of what a command will start.
    pub fn control(&self, command: &mut Command) {
        command.stdin(Stdio::from(self.terminal.try_clone().unwrap()));
        let take = || {
            // SAFETY: both calls are safe between fork and exec; by now descriptor 0 is the terminal.
            if unsafe { libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 } {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: the closure makes system calls only.
        unsafe { command.pre_exec(take) };
    }

    pub fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    pub fn settings(&self) -> Settings {
        let mut settings = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: tcgetattr writes all of a termios when it returns 0, and no more than that.
        let settings = unsafe {
            assert_eq!(libc::tcgetattr(self.terminal.as_raw_fd(), settings.as_mut_ptr()), 0);
            settings.assume_init()
        };
        Settings {
            input: settings.c_iflag,
            output: settings.c_oflag,
            control: settings.c_cflag,
            local: settings.c_lflag,
        }
    }

    /// As when the terminal's window is closed.
    pub fn hang_up(self) {}
}
