//! The size of the terminal that somebody reads on.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lines of the terminal; nothing of what is none, or does not know.
pub fn height(terminal: BorrowedFd<'_>) -> Option<usize> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the kernel writes a winsize, or fails.
    if unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: all zeroes are a winsize, and so is what the kernel wrote.
    let size = unsafe { size.assume_init() };
    (size.ws_row != 0 && size.ws_col != 0).then_some(usize::from(size.ws_row))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};
    use std::ptr;

    use super::*;

    #[test]
    fn terminals_have_a_height() {
        for (ws_row, ws_col, expected) in [(50, 80, Some(50)), (0, 80, None), (24, 0, None)] {
            let (mut ours, mut theirs) = (-1, -1);
            let size = libc::winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            // SAFETY: the call writes two numbers and reads the size; no name or settings are asked for.
            let opened =
                unsafe { libc::openpty(&mut ours, &mut theirs, ptr::null_mut(), ptr::null(), &size) };
            assert_eq!(opened, 0);
            // SAFETY: opened above, and nobody else's.
            let (_ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
            assert_eq!(height(theirs.as_fd()), expected);
        }
        assert_eq!(height(File::open("/dev/null").unwrap().as_fd()), None);
    }
}
