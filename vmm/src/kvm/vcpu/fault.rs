//! What becomes of a vCPU whose access to mapped memory KVM cannot carry out.
//!
//! KVM_RUN then says EFAULT, or EHWPOISON where the host found the memory broken, and with KVM_CAP_MEMORY_FAULT_INFO
//! also which memory it is, as KVM_EXIT_MEMORY_FAULT. That is so when a function's BAR is mapped and its host takes it away:
//! the function was reset, went to sleep, was unplugged, or is given back to its driver.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kvm_ioctls::VcpuExit;

/// If KVM_RUN ended with such an access, what it said of it.
pub(super) fn of(exit: &Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Option<String> {
    match exit {
        // The call itself failed; which of the two errors it was with, kvm-ioctls does not say.
        Ok(VcpuExit::MemoryFault { flags, gpa, size }) => Some(format!(
            "KVM_RUN: no access to the memory mapped at guest address {gpa:#x}, {size:#x} bytes \
             (KVM_EXIT_MEMORY_FAULT, flags {flags:#x})"
        )),
        Err(error) if matches!(error.errno(), libc::EFAULT | libc::EHWPOISON) => {
            Some(format!("KVM_RUN: {}", io::Error::from(*error)))
        }
        _ => None,
    }
}

/// Takes what is gone out of the guest's address space; false when nothing was.
pub type Repair = Arc<dyn Fn() -> bool + Send + Sync>;

/// Faults in a row, without any other exit, after which there is no hope left: a function that comes and goes meanwhile,
/// as in a reset, is there again by then.
const MOST: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Faults {
    repair: Option<Repair>,
    in_a_row: u32,
}

impl Faults {
    pub(super) fn set_repair(&mut self, repair: Repair) {
        self.repair = Some(repair);
    }

    /// The vCPU left guest mode in good order.
    pub(super) fn end(&mut self) {
        self.in_a_row = 0;
    }

    /// There was one more: whether the vCPU is to try again.
    pub(super) fn again(&mut self) -> bool {
        let Some(repair) = &self.repair else { return false };
        self.in_a_row += 1;
        if self.in_a_row > MOST {
            return false;
        }
        if !repair() {
            std::thread::sleep(PAUSE);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn either_way_of_saying_it_is_a_fault_and_nothing_else_is() {
        let error = |errno| Err(kvm_ioctls::Error::new(errno));
        for (exit, says) in [
            (Ok(VcpuExit::MemoryFault { flags: 8, gpa: 0xc000_1000, size: 0x1000 }), Some("0xc0001000")),
            (error(libc::EFAULT), Some("os error 14")),
            (error(libc::EHWPOISON), Some("os error 133")),
            (error(libc::EINTR), None),
            (error(libc::EAGAIN), None),
            (Ok(VcpuExit::Intr), None),
            (Ok(VcpuExit::InternalError), None),
        ] {
            let said = of(&exit);
            let is_right = match (&said, says) {
                (Some(said), Some(says)) => said.contains("KVM_RUN") && said.contains(says),
                (said, says) => said.is_none() && says.is_none(),
            };
            assert!(is_right, "{exit:?} {said:?}");
        }
    }

    #[test]
    fn it_is_tried_again_as_long_as_there_is_hope() {
        let mut faults = Faults::default();
        assert!(!faults.again(), "nobody can repair anything");
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        faults.set_repair(Arc::new(move || counted.fetch_add(1, Ordering::Relaxed) < 2 * MOST));
        for _ in 0..MOST {
            assert!(faults.again());
        }
        assert!(!faults.again(), "whatever was repaired did not help");
        faults.end();
        assert!(faults.again());
        assert_eq!(calls.load(Ordering::Relaxed), MOST + 1);
    }
}
