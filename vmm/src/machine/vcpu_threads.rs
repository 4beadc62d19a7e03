//! The threads that vCPUs run on.

use std::thread::JoinHandle;

use log::debug;
use parking_lot::Mutex;
use vmm_sys_util::signal::Killable;

use crate::kvm::vcpu::Vcpu;
use crate::signals;

/// Threads of vCPUs that run, to be kicked from any thread.
#[derive(Default)]
pub struct VcpuThreads(Mutex<Vec<JoinHandle<Vcpu>>>);

impl VcpuThreads {
    /// Another one.
    pub fn add(&self, thread: JoinHandle<Vcpu>) {
        self.0.lock().push(thread);
    }

    /// Makes all of them leave guest mode and look at the bus again. One that is about to enter guest mode may miss it.
    pub fn kick(&self) {
        for thread in self.0.lock().iter() {
            kick(thread);
        }
    }

    /// Gives them back, to be waited for.
    pub fn take(&self) -> Vec<JoinHandle<Vcpu>> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Makes a vCPU leave guest mode.
pub fn kick(thread: &JoinHandle<Vcpu>) {
    if let Err(error) = thread.kill(signals::kick_signal()) {
        debug!("vCPU thread: {error}");
    }
}
