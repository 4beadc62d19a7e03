//! When writes to CONFIG_ADDRESS that did not exit take effect although no vCPU exits.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use parking_lot::Mutex;
use passthru::ports::WatchId;
use vmm_sys_util::timerfd::TimerFd;

use super::error::{MachineError, process};
use super::platform::Platform;
use crate::event_loop::Watches;
use crate::kvm::Vm;
use crate::kvm::coalesced::Coalesced;
use crate::kvm::vcpu::Vcpu;

/// How long a reset by port 0xcf9 waits at most when the vCPU that asked for it never exits: it spins, or is halted for good.
/// Nobody notices that much of a reset, and ten looks a second at an empty ring are microseconds of processor time. All
/// other writes only count for an access that exits.
const LOOK: Duration = Duration::from_millis(100);

/// KVM's ring of them, and the timer that looks into it.
pub struct ConfigWrites {
    coalesced: Arc<Coalesced>,
    watches: Watches,
    watch: WatchId,
    /// Watched, so it is closed after the watch has ended.
    _timer: Arc<Mutex<TimerFd>>,
}

impl ConfigWrites {
    /// For these vCPUs, which are all that there are. Nothing where KVM does not have it.
    pub fn new(
        vm: &Vm,
        vcpus: &mut [Vcpu],
        platform: &Platform,
        watches: Watches,
    ) -> Result<Option<ConfigWrites>, MachineError> {
        let Some(any) = vcpus.first() else { return Ok(None) };
        let Some(coalesced) = Coalesced::new(vm.fd(), any, platform.config_ports.clone())? else {
            return Ok(None);
        };
        let coalesced = Arc::new(coalesced);
        let timer = TimerFd::new().and_then(|mut timer| timer.reset(LOOK, Some(LOOK)).map(|()| timer));
        let timer = timer.map_err(io::Error::from).map_err(process("timerfd"))?;
        // SAFETY: the timer is closed after the watch has ended.
        let fd = unsafe { BorrowedFd::borrow_raw(timer.as_raw_fd()) };
        let timer = Arc::new(Mutex::new(timer));
        let (ticks, ring) = (timer.clone(), coalesced.clone());
        let look = move || {
            // It is never set anew, so that this does not wait.
            if let Err(error) = ticks.lock().wait() {
                debug!("timerfd: {error}");
            }
            ring.drain();
        };
        let watch = watches.add(fd, Arc::new(look)).map_err(process("event loop"))?;
        for vcpu in vcpus {
            vcpu.set_coalesced(coalesced.clone());
        }
        Ok(Some(ConfigWrites { coalesced, watches, watch, _timer: timer }))
    }

    /// vCPUs are about to run.
    pub fn start(&self) {
        self.coalesced.start();
    }

    /// No vCPU runs any more.
    pub fn stop(&self) {
        self.coalesced.stop();
    }

    /// How many writes did not exit.
    pub fn count(&self) -> u64 {
        self.coalesced.writes()
    }
}

impl Drop for ConfigWrites {
    fn drop(&mut self) {
        self.watches.remove(self.watch);
    }
}
