//! Descriptors that came from who started this program.

use std::io;

/// The first one behind stdin, stdout and stderr.
const FIRST: libc::c_uint = 3;

/// Lets no program that this one starts have them. This process keeps them.
pub fn keep_to_this_process() {
    // SAFETY: no pointers. It sets a flag of descriptors that counts at exec only: nobody's descriptor is closed.
    let done =
        unsafe { libc::close_range(FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
    if done != 0 {
        // Before Linux 5.11 they stay as they are.
        log::debug!("close_range: {}", io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::os::fd::AsRawFd;
    use std::process::Command;

    #[test]
    fn what_is_started_has_none_of_them() {
        let (mut reader, writer) = io::pipe().unwrap();
        // SAFETY: no pointers; the flag goes from a descriptor of this test.
        assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFD, 0) }, 0);
        super::keep_to_this_process();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        drop(writer);
        // At its end although the other process goes on.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
