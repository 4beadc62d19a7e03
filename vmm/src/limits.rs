//! Limits of this process.

use log::debug;

/// Raises the limit on open files as far as this user may: every armed vector is an eventfd, and a function may have
/// 2048 of them, where the usual limit is 1024.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit, and reads one.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if !done {
        debug!("limit on open files: {}", std::io::Error::last_os_error());
    }
}
