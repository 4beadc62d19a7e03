//! A virtual CPU and its run loop.

mod cpuid;
mod fault;
mod state;

use std::slice;

use kvm_bindings::{KVM_EXIT_IO_IN, kvm_run, kvm_run__bindgen_ty_1__bindgen_ty_4 as PortExit};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use log::debug;
use passthru::pci::Space;

pub use cpuid::Template;
use fault::Faults;
pub use fault::Repair;
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
}

impl Vcpu {
    /// The vCPU whose local APIC has this id, as after power-on.
    pub fn new(vm: &VmFd, id: u32, template: &Template, view: View) -> Result<Vcpu, KvmError> {
        let fd = vm.create_vcpu(u64::from(id)).map_err(call("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&template.for_vcpu(id)?).map_err(call("KVM_SET_CPUID2"))?;
        let initial = State::capture(vm, &fd, template.registers())?;
        Ok(Vcpu { id, fd, initial, view, exits: Exits::default(), faults: Faults::default() })
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
            match self.fd.run() {
                Ok(VcpuExit::MmioRead(_, data)) => data.fill(0xff),
                Ok(VcpuExit::IoIn(..)) => port_data(self.fd.get_kvm_run()).1.fill(0xff),
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
            if let Some(stop) = self.run_once() {
                control.stop(stop);
            }
        }
    }

    fn run_once(&mut self) -> Option<Stop> {
        let Vcpu { id, fd, view, exits, faults, .. } = self;
        let vcpu = *id;
        let exit = fd.run();
        if exit.is_ok() {
            faults.end();
        }
        match exit {
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
            Err(error) if error.errno() == libc::EFAULT && faults.again() => exits.other += 1,
            Err(error) => return Some(Stop::Kvm { vcpu, what: format!("KVM_RUN: {error}") }),
        }
        None
    }
}

/// Answers a port access. `REP INS` and `REP OUTS` make many accesses of `size` bytes to one port in one exit, which
/// the slice of the exit alone does not tell from one wide access.
fn answer_ports(run: &mut kvm_run, view: &mut View) {
    let (io, data) = port_data(run);
    for access in data.chunks_mut(usize::from(io.size).max(1)) {
        match u32::from(io.direction) == KVM_EXIT_IO_IN {
            true => view.read(Space::Io, u64::from(io.port), access),
            false => view.write(Space::Io, u64::from(io.port), access),
        }
    }
}

/// What an exit for I/O is about, and the bytes of all its accesses.
fn port_data(run: &mut kvm_run) -> (PortExit, &mut [u8]) {
    // SAFETY: the callers come here after an exit for I/O, which fills this member of the union.
    let io = unsafe { run.__bindgen_anon_1.io };
    let (size, count) = (usize::from(io.size), io.count as usize);
    let start = (run as *mut kvm_run).cast::<u8>();
    // SAFETY: KVM has put `count` accesses of `size` bytes at this offset into the pages that it shares for this vCPU,
    // which nothing else refers to until the next KVM_RUN.
    let data = unsafe { slice::from_raw_parts_mut(start.add(io.data_offset as usize), size * count) };
    (io, data)
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
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use kvm_bindings::{
        KVM_STATE_NESTED_FORMAT_SVM, Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_userspace_memory_region,
    };
    use vm_memory::{FileOffset, MmapRegion};

    use super::*;
    use crate::bus::Bus;
    use crate::kvm::Vm;

    const EFER_SVME: u64 = 1 << 12;

    /// A vCPU; without KVM nothing, and a test says so.
    fn vcpu(test: &str) -> Option<(Vm, Template, Vcpu)> {
        let vm = match Vm::new() {
            Ok(vm) => vm,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
                return None;
            }
        };
        let template = Template::new(vm.kvm(), 1).unwrap();
        let vcpu = Vcpu::new(vm.fd(), 0, &template, Bus::new().view()).unwrap();
        Some((vm, template, vcpu))
    }

    fn set(vcpu: &Vcpu, index: u32, data: u64) -> bool {
        let one = Msrs::from_entries(&[kvm_msr_entry { index, data, ..Default::default() }]).unwrap();
        vcpu.fd.set_msrs(&one).unwrap() == 1
    }

    #[test]
    fn a_reset_brings_back_what_a_guest_changed() {
        let Some((vm, template, mut vcpu)) = vcpu("a_reset_brings_back_what_a_guest_changed") else { return };
        let started = Instant::now();
        let before = State::capture(vm.fd(), &vcpu.fd, template.registers()).unwrap();
        let captured = started.elapsed();
        assert_eq!(before.differences(&vcpu.initial), Vec::<String>::new());

        let mut regs = vcpu.fd.get_regs().unwrap();
        (regs.rax, regs.rsp) = (1, 2);
        vcpu.fd.set_regs(&regs).unwrap();
        // The first bytes of XMM0, and that SSE's registers are not as they are at first.
        let mut xsave = vcpu.fd.get_xsave().unwrap();
        (xsave.region[160 / 4], xsave.region[512 / 4]) = (7, 2);
        // SAFETY: only features that are in use without a request for them take part, which 4096 bytes hold.
        unsafe { vcpu.fd.set_xsave(&xsave) }.unwrap();
        let mut sregs = vcpu.fd.get_sregs().unwrap();
        sregs.cr4 |= 1 << 9;
        if let Some(nested) = &before.nested
            && u32::from(nested.format) == KVM_STATE_NESTED_FORMAT_SVM
        {
            sregs.efer |= EFER_SVME;
        }
        vcpu.fd.set_sregs(&sregs).unwrap();
        if sregs.efer & EFER_SVME != 0 {
            // As after CLGI.
            let mut nested = before.nested.clone().unwrap();
            nested.flags = 0;
            vcpu.fd.set_nested_state(&nested).unwrap();
        }
        // A mask and a fixed range of the memory types, their default, and the target of SYSCALL.
        for (index, data) in [(0x201, 0xf_f000_0800), (0x268, 0x0606), (0x2ff, 0xc06), (0xc000_0082, 0x1000)]
        {
            assert!(set(&vcpu, index, data), "{index:#x}");
        }
        let changed = State::capture(vm.fd(), &vcpu.fd, template.registers()).unwrap();
        for name in ["regs", "sregs", "vectors", "msr 0x201", "msr 0x268", "msr 0x2ff", "msr 0xc0000082"] {
            assert!(changed.differences(&before).iter().any(|d| d == name), "{name}");
        }

        let started = Instant::now();
        vcpu.reset().unwrap();
        let reset = started.elapsed();
        let after = State::capture(vm.fd(), &vcpu.fd, template.registers()).unwrap();
        assert_eq!(after.differences(&before), Vec::<String>::new());
        println!("{} registers captured in {captured:?}, reset in {reset:?}", before.msrs.len());
    }

    #[test]
    fn an_access_in_many_parts_is_completed_before_a_reset() {
        let Some((vm, _, mut vcpu)) = vcpu("an_access_in_many_parts_is_completed_before_a_reset") else {
            return;
        };
        let mut pages = Box::new(Pages([[0; 4096]; 2]));
        let host = pages.0.as_mut_ptr() as u64;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: 0x2000,
            userspace_addr: host,
        };
        // SAFETY: the pages outlive the last run of the vCPU, and only the guest writes to them meanwhile.
        unsafe { vm.fd().set_user_memory_region(region) }.unwrap();
        // Into the page behind the code: mov cx, 600; mov dx, 0x80; mov di, 0x1000; rep insb; hlt
        let ports: &[u8] = &[0xb9, 0x58, 2, 0xba, 0x80, 0, 0xbf, 0, 0x10, 0xf3, 0x6c, 0xf4];
        // 16 bytes without memory, on both sides of a page boundary: movups xmm0, [0xbff8]; hlt
        let vector: &[u8] = &[0x0f, 0x10, 0x06, 0xf8, 0xbf, 0xf4];
        for (code, least) in [(ports, 0), (vector, 1)] {
            for (to, from) in pages.0[0].iter_mut().zip(code) {
                *to = *from;
            }
            let mut sregs = vcpu.fd.get_sregs().unwrap();
            (sregs.cs.base, sregs.cs.selector, sregs.cr4) = (0, 0, sregs.cr4 | 1 << 9);
            vcpu.fd.set_sregs(&sregs).unwrap();
            vcpu.fd.set_regs(&kvm_regs { rip: 0, rflags: 2, ..Default::default() }).unwrap();
            let before = vcpu.exits;
            while vcpu.exits == before {
                assert_eq!(vcpu.run_once(), None);
            }
            assert_eq!(vcpu.exits.io_in + vcpu.exits.mmio_read, before.io_in + before.mmio_read + 1);

            let exits = vcpu.complete_at_once().unwrap();
            assert!(exits >= least, "{exits} exits for {code:x?}");
            vcpu.reset().unwrap();
            assert_eq!(vcpu.complete_at_once().unwrap(), 0);
            assert_eq!(vcpu.fd.get_regs().unwrap(), vcpu.initial.regs);
        }
    }

    /// Long mode at the lowest privilege, where every KVM lets the processor itself access memory, with the first 2 MiB
    /// identity mapped by page tables at 0x1000, and code at 0.
    fn enter_long_mode(vcpu: &Vcpu, pages: &mut Pages<4>, code: &[u8]) {
        for (page, entry) in [(1, 0x2007u64), (2, 0x3007), (3, 0x87)] {
            pages.0[page][..8].copy_from_slice(&entry.to_le_bytes());
        }
        pages.0[0][..code.len()].copy_from_slice(code);
        let mut sregs = vcpu.fd.get_sregs().unwrap();
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8000_0031, 0x1000, 0x20, 0x500);
        let flat = |type_, l| kvm_segment {
            base: 0,
            limit: u32::MAX,
            selector: 8 | 3,
            type_,
            present: 1,
            dpl: 3,
            db: 1 - l,
            s: 1,
            l,
            g: 1,
            ..Default::default()
        };
        (sregs.cs, sregs.ds, sregs.es, sregs.ss) = (flat(11, 1), flat(3, 0), flat(3, 0), flat(3, 0));
        vcpu.fd.set_sregs(&sregs).unwrap();
        vcpu.fd.set_regs(&kvm_regs { rip: 0, rflags: 2, ..Default::default() }).unwrap();
    }

    #[test]
    fn memory_that_is_gone_is_taken_out_of_the_guest_and_reads_all_ones() {
        let test = "memory_that_is_gone_is_taken_out_of_the_guest_and_reads_all_ones";
        let Some((vm, _, mut vcpu)) = vcpu(test) else { return };
        let mut pages = Box::new(Pages([[0; 4096]; 4]));
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.set_len(4096).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let device = MmapRegion::<()>::from_file(offset, 4096).unwrap();
        let device_slot = |memory_size| kvm_userspace_memory_region {
            slot: 1,
            flags: 0,
            guest_phys_addr: 0x10_0000,
            memory_size,
            userspace_addr: device.as_ptr() as u64,
        };
        // mov al, [0x100000]; jmp to itself
        let code = [0x8a, 0x04, 0x25, 0, 0, 0x10, 0, 0xeb, 0xfe];
        enter_long_mode(&vcpu, &mut pages, &code);
        let memory = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: 0x4000,
            userspace_addr: pages.0.as_mut_ptr() as u64,
        };
        for region in [memory, device_slot(4096)] {
            // SAFETY: both outlive the last run of the vCPU, and only the guest writes to them meanwhile.
            unsafe { vm.fd().set_user_memory_region(region) }.unwrap();
        }
        file.set_len(0).unwrap();
        let stop = vcpu.run_once();
        assert!(matches!(&stop, Some(Stop::Kvm { what, .. }) if what.contains("KVM_RUN")), "{stop:?}");

        let repairs = Arc::new(AtomicU32::new(0));
        let (fd, count, gone) = (vm.fd().clone(), repairs.clone(), device_slot(0));
        vcpu.set_repair(Arc::new(move || {
            // SAFETY: takes a slot away.
            unsafe { fd.set_user_memory_region(gone) }.unwrap();
            count.fetch_add(1, Ordering::Relaxed) == 0
        }));
        while vcpu.exits.mmio_read == 0 {
            assert_eq!(vcpu.run_once(), None);
        }
        vcpu.complete_at_once().unwrap();
        assert_eq!(repairs.load(Ordering::Relaxed), 1);
        assert_eq!(vcpu.fd.get_regs().unwrap().rax & 0xff, 0xff);
    }

    #[repr(align(4096))]
    struct Pages<const N: usize>([[u8; 4096]; N]);
}
