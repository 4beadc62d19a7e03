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
    for (index, data) in [(0x201, 0xf_f000_0800), (0x268, 0x0606), (0x2ff, 0xc06), (0xc000_0082, 0x1000)] {
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
            assert_eq!(vcpu.run_once(&Control::default()), None);
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
    let stop = vcpu.run_once(&Control::default());
    assert!(matches!(&stop, Some(Stop::Kvm { what, .. }) if what.contains("KVM_RUN")), "{stop:?}");

    let repairs = Arc::new(AtomicU32::new(0));
    let (fd, count, gone) = (vm.fd().clone(), repairs.clone(), device_slot(0));
    vcpu.set_repair(Arc::new(move || {
        // SAFETY: takes a slot away.
        unsafe { fd.set_user_memory_region(gone) }.unwrap();
        count.fetch_add(1, Ordering::Relaxed) == 0
    }));
    while vcpu.exits.mmio_read == 0 {
        assert_eq!(vcpu.run_once(&Control::default()), None);
    }
    vcpu.complete_at_once().unwrap();
    assert_eq!(repairs.load(Ordering::Relaxed), 1);
    assert_eq!(vcpu.fd.get_regs().unwrap().rax & 0xff, 0xff);
}

#[repr(align(4096))]
struct Pages<const N: usize>([[u8; 4096]; N]);
