//! A virtual CPU and its run loop.

mod cpuid;
mod exits;
mod fault;
mod port_exit;
mod state;

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use log::debug;
use passthru::pci::Space;

pub use cpuid::Template;
pub use exits::Exits;
use fault::Faults;
pub use fault::Repair;
use state::State;

use super::coalesced::Coalesced;
use super::{KvmError, call};
use crate::boot::Entry;
use crate::bus::View;
use crate::control::{Control, Stop};

/// Most exits that one access takes to be completed. KVM goes back to guest mode after 1024 repetitions of a string
/// instruction, each of which may read and write, and cross a page in both.
const MOST_EXITS: usize = 4 * 1024 + 1;

/// A virtual CPU.
pub struct Vcpu {
    id: u32,
    fd: VcpuFd,
    initial: State,
    /// Its way to the bus.
    pub view: View,
    /// What made it leave guest mode.
    pub exits: Exits,
    faults: Faults,
    coalesced: Option<Arc<Coalesced>>,
}

impl Vcpu {
    /// The vCPU whose local APIC has this id, as after power-on.
    pub fn new(vm: &VmFd, id: u32, template: &Template, view: View) -> Result<Vcpu, KvmError> {
        let fd = vm.create_vcpu(u64::from(id)).map_err(call("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&template.for_vcpu(id)?).map_err(call("KVM_SET_CPUID2"))?;
        let initial = State::capture(vm, &fd, template.registers())?;
        let (exits, faults) = (Exits::default(), Faults::default());
        Ok(Vcpu { id, fd, initial, view, exits, faults, coalesced: None })
    }

    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The VM's ring of writes that do not exit, which this vCPU empties before it answers an exit.
    pub fn set_coalesced(&mut self, coalesced: Arc<Coalesced>) {
        self.coalesced = Some(coalesced);
    }

    /// What it calls when KVM cannot carry out an access to mapped memory. Without it that is the end of the guest.
    pub fn set_repair(&mut self, repair: Repair) {
        self.faults.set_repair(repair);
    }

    /// Its local APIC's id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Starts here instead of at the reset vector.
    pub fn enter_at(&self, entry: &Entry) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(call("KVM_GET_SREGS"))?;
        entry.apply(&mut sregs);
        self.fd.set_sregs(&sregs).map_err(call("KVM_SET_SREGS"))?;
        self.fd.set_regs(&entry.regs()).map_err(call("KVM_SET_REGS"))
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) -> Result<(), KvmError> {
        // An access that was being answered when the guest was stopped is still to be completed, and would be so on
        // top of the new registers.
        self.complete_at_once()?;
        self.initial.restore(&self.fd)
    }

    /// Lets KVM complete an access that it waits for, which takes an exit for each further part of it: repetitions of a
    /// string instruction, the other side of a page boundary, what is beyond 8 bytes. Nobody answers any more. With
    /// immediate exit set, KVM says EINTR as soon as nothing is left. Gives back how many exits it took.
    fn complete_at_once(&mut self) -> Result<usize, KvmError> {
        self.fd.set_kvm_immediate_exit(1);
        let exits = self.complete();
        self.fd.set_kvm_immediate_exit(0);
        exits
    }

    fn complete(&mut self) -> Result<usize, KvmError> {
        for exits in 0..MOST_EXITS {
            let exit = self.fd.run();
            if let Some(what) = fault::of(&exit) {
                debug!("vCPU {}: completing an access: {what}", self.id);
                return Ok(exits);
            }
            match exit {
                Ok(VcpuExit::MmioRead(_, data)) => data.fill(0xff),
                Ok(VcpuExit::IoIn(..)) => port_exit::data(self.fd.get_kvm_run()).1.fill(0xff),
                Ok(_) => {}
                Err(error) => {
                    if error.errno() != libc::EINTR {
                        debug!("vCPU {}: completing an access: {error}", self.id);
                    }
                    return Ok(exits);
                }
            }
        }
        Err(KvmError::Call {
            call: "KVM_RUN (an access that is not completed by any number of exits)",
            source: std::io::Error::from_raw_os_error(libc::ELOOP),
        })
    }

    /// Runs until somebody stops the guest.
    pub fn run(&mut self, control: &Control) {
        while !control.is_stopped() {
            if let Some(stop) = self.run_once(control) {
                control.stop(stop);
            }
        }
    }

    fn run_once(&mut self, control: &Control) -> Option<Stop> {
        let Vcpu { id, fd, view, exits, faults, coalesced, .. } = self;
        let vcpu = *id;
        let exit = fd.run();
        // What the guest wrote before, whatever the exit is for: it may have interrupted a vCPU that another one waits for.
        if let Some(coalesced) = coalesced {
            coalesced.drain();
            // One of these writes may have been a reset, whoever took it out of the ring, and what comes after that is not the
            // guest's to do any more: a triple fault would end what is to begin anew.
            if control.is_stopped() {
                return None;
            }
        }
        // Accesses first: nearly all exits are these, and they are what a guest waits for.
        let exit = match exit {
            Ok(VcpuExit::MmioRead(address, data)) => {
                faults.end();
                exits.mmio_read += 1;
                view.read(Space::Memory, address, data);
                return None;
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                faults.end();
                exits.mmio_write += 1;
                view.write(Space::Memory, address, data);
                return None;
            }
            Ok(VcpuExit::IoIn(..)) => {
                faults.end();
                exits.io_in += 1;
                port_exit::answer(fd.get_kvm_run(), view);
                return None;
            }
            Ok(VcpuExit::IoOut(..)) => {
                faults.end();
                exits.io_out += 1;
                port_exit::answer(fd.get_kvm_run(), view);
                return None;
            }
            other => other,
        };
        match fault::of(&exit) {
            Some(what) => {
                exits.other += 1;
                return (!faults.again()).then_some(Stop::Kvm { vcpu, what });
            }
            None if exit.is_ok() => faults.end(),
            None => {}
        }
        match exit {
            Ok(VcpuExit::Hlt) => exits.hlt += 1,
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => {
                exits.interrupted += 1;
                view.reload();
            }
            Ok(VcpuExit::Shutdown) => return Some(Stop::TripleFault { vcpu }),
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return Some(Stop::Kvm {
                    vcpu,
                    what: format!("KVM_EXIT_FAIL_ENTRY, hardware reason {reason:#x}"),
                });
            }
            Ok(VcpuExit::InternalError) => {
                exits.other += 1;
                return Some(Stop::Kvm { vcpu, what: internal_error(fd) });
            }
            Ok(other) => {
                exits.other += 1;
                let what = format!("an exit that slotpass does not know: {other:?}");
                return Some(Stop::Kvm { vcpu, what });
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                exits.interrupted += 1;
                // Whoever kicks it may wait for it to let go of a function.
                view.reload();
            }
            Err(error) => return Some(Stop::Kvm { vcpu, what: format!("KVM_RUN: {error}") }),
        }
        None
    }
}

fn internal_error(fd: &mut VcpuFd) -> String {
    let regs = fd.get_regs().map(|r| format!("rip {:#x} rsp {:#x} rflags {:#x}", r.rip, r.rsp, r.rflags));
    // SAFETY: after an internal error this member of the union is filled.
    let internal = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    let suberror = match internal.suberror {
        1 => "an instruction that KVM cannot emulate".to_owned(),
        other => format!("suberror {other}"),
    };
    let bytes: Vec<String> =
        internal.data.iter().take(internal.ndata as usize).map(|d| format!("{d:#x}")).collect();
    let regs = regs.unwrap_or_else(|error| format!("registers unknown: {error}"));
    format!("KVM_EXIT_INTERNAL_ERROR: {suberror} at {regs}; data {}", bytes.join(" "))
}

#[cfg(test)]
mod tests;
