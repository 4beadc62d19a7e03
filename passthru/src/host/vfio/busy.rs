//! Calls that fail while somebody else has the device for a moment.

use std::io;
use std::time::Duration;

/// How often a call is made while the device is busy, and how long apart: a second in all.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Makes a call again as long as it fails with one of these numbers, and not for longer than a second.
///
/// `EAGAIN` is what VFIO gives where the kernel did not get the device's lock to reset it (`pci_try_reset_function`, which
/// `VFIO_DEVICE_RESET` and the opening of a function in `vfio_pci_core_enable` call). Whoever reads some of its files in sysfs
/// has that lock meanwhile, `driver_override` and `sriov_numvfs` among them.
pub fn retried<T>(passing: &[i32], call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    retried_with(passing, call, || std::thread::sleep(PAUSE))
}

fn retried_with<T>(
    passing: &[i32],
    mut call: impl FnMut() -> io::Result<T>,
    mut wait: impl FnMut(),
) -> io::Result<T> {
    for _ in 0..TRIES {
        match call() {
            Err(error) if error.raw_os_error().is_some_and(|errno| passing.contains(&errno)) => wait(),
            other => return other,
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_not_for_ever() {
        const PASSING: [i32; 2] = [libc::EAGAIN, libc::EBUSY];
        let most = TRIES as usize + 1;
        for (results, expected, calls) in [
            (vec![0], Ok(()), 1),
            (vec![libc::EAGAIN, libc::EBUSY, 0], Ok(()), 3),
            (vec![libc::EAGAIN, libc::EPERM, 0], Err(libc::EPERM), 2),
            (vec![libc::EAGAIN; 2 * most], Err(libc::EAGAIN), most),
        ] {
            let (mut made, mut waits) = (0, 0);
            let call = || {
                made += 1;
                match results[made - 1] {
                    0 => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                }
            };
            let done = retried_with(&PASSING, call, || waits += 1);
            assert_eq!(done.map_err(|error| error.raw_os_error().unwrap()), expected);
            assert_eq!((made, waits), (calls, calls - 1), "{results:?}");
        }
    }
}
