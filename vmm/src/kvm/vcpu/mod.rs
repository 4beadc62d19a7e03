//! A virtual CPU and its run loop.

mod cpuid;
mod state;

use std::slice;

use kvm_bindings::{KVM_EXIT_IO_IN, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use passthru::pci::Space;

pub use cpuid::Template;
use state::State;

use super::{KvmError, call};
use crate::boot::Entry;
use crate::bus::View;
use crate::control::{Control, Stop};

/// Exits from guest mode to this program, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Exits {
    /// Reads of I/O ports.
    pub io_in: u64,
    /// Writes of I/O ports.
    pub io_out: u64,
    /// Reads of memory addresses without memory.
    pub mmio_read: u64,
    /// Writes of memory addresses without memory, or with memory that is read-only.
    pub mmio_write: u64,
    /// HLT; KVM handles it itself while the interrupt controllers are in the kernel.
    pub hlt: u64,
    /// A signal arrived.
    pub interrupted: u64,
    /// Anything else.
    pub other: u64,
}

impl Exits {
    /// Adds another vCPU's.
    pub fn merge(&mut self, other: &Exits) {
        self.io_in += other.io_in;
        self.io_out += other.io_out;
        self.mmio_read += other.mmio_read;
        self.mmio_write += other.mmio_write;
        self.hlt += other.hlt;
        self.interrupted += other.interrupted;
        self.other += other.other;
    }
}

/// A virtual CPU.
pub struct Vcpu {
    id: u32,
    fd: VcpuFd,
    initial: State,
    /// Its way to the bus.
    pub view: View,
    /// What made it leave guest mode.
    pub exits: Exits,
}

impl Vcpu {
    /// The vCPU whose local APIC has this id, as after power-on.
    pub fn new(vm: &VmFd, id: u32, template: &Template, view: View) -> Result<Vcpu, KvmError> {
        let fd = vm.create_vcpu(u64::from(id)).map_err(call("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&template.for_vcpu(id)?).map_err(call("KVM_SET_CPUID2"))?;
        let initial = State::capture(vm, &fd)?;
        Ok(Vcpu { id, fd, initial, view, exits: Exits::default() })
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
        self.fd.set_kvm_immediate_exit(1);
        let _ = self.fd.run();
        self.fd.set_kvm_immediate_exit(0);
        self.initial.restore(&self.fd)
    }

    /// Runs until somebody stops the guest.
    pub fn run(&mut self, control: &Control) {
        while !control.is_stopped() {
            if let Some(stop) = self.run_once() {
                control.stop(stop);
            }
        }
    }

    fn run_once(&mut self) -> Option<Stop> {
        let Vcpu { id, fd, view, exits, .. } = self;
        let vcpu = *id;
        match fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => {
                exits.mmio_read += 1;
                view.read(Space::Memory, address, data);
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                exits.mmio_write += 1;
                view.write(Space::Memory, address, data);
            }
            Ok(VcpuExit::IoIn(..)) => {
                exits.io_in += 1;
                answer_ports(fd.get_kvm_run(), view);
            }
            Ok(VcpuExit::IoOut(..)) => {
                exits.io_out += 1;
                answer_ports(fd.get_kvm_run(), view);
            }
            Ok(VcpuExit::Hlt) => exits.hlt += 1,
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => exits.interrupted += 1,
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
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => exits.interrupted += 1,
            Err(error) => return Some(Stop::Kvm { vcpu, what: format!("KVM_RUN: {error}") }),
        }
        None
    }
}

/// Answers a port access. `REP INS` and `REP OUTS` make many accesses of `size` bytes to one port in one exit, which
/// the slice of the exit alone does not tell from one wide access.
fn answer_ports(run: &mut kvm_run, view: &mut View) {
    // SAFETY: the callers come here after an exit for I/O, which fills this member of the union.
    let io = unsafe { run.__bindgen_anon_1.io };
    let (size, count) = (usize::from(io.size), io.count as usize);
    let start = (run as *mut kvm_run).cast::<u8>();
    // SAFETY: KVM has put `count` accesses of `size` bytes at this offset into the pages that it shares for this vCPU,
    // which nothing else refers to until the next KVM_RUN.
    let data = unsafe { slice::from_raw_parts_mut(start.add(io.data_offset as usize), size * count) };
    for access in data.chunks_mut(size.max(1)) {
        match u32::from(io.direction) == KVM_EXIT_IO_IN {
            true => view.read(Space::Io, u64::from(io.port), access),
            false => view.write(Space::Io, u64::from(io.port), access),
        }
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
