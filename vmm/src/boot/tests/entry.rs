//! The registers that a kernel is entered with, and what they point to.

use super::super::placement::{GDT, PARAMETERS};
use super::*;

#[test]
fn registers_of_64_bit_mode() {
    let memory = ram(64);
    let entry = embedded(bzimage(b"code"), "").unwrap().load(&memory, RSDP).unwrap();
    let mut sregs =
        kvm_bindings::kvm_sregs { cr0: 0x6000_0010, apic_base: 0xfee0_0900, ..Default::default() };
    entry.apply(&mut sregs);
    assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x8000_0011, 0x20, 0x500));
    assert_eq!(sregs.apic_base, 0xfee0_0900);
    assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db, sregs.cs.type_), (0x10, 1, 0, 0xb));
    assert_eq!((sregs.ss.selector, sregs.ss.type_, sregs.ss.s, sregs.ss.present), (0x18, 3, 1, 1));
    assert_eq!((entry.regs().rip, entry.regs().rsi, entry.regs().rflags), (0x100_0200, PARAMETERS, 2));
    // The GDT holds what the segment registers hold.
    assert_eq!((sregs.gdt.base, sregs.gdt.limit), (GDT, 31));
    let gdt: [u64; 4] = memory.read_obj(GuestAddress(sregs.gdt.base)).unwrap();
    assert_eq!(gdt, [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);

    // The page tables map the first 4 GiB to themselves, and nothing else.
    let walk = |address: u64| -> Option<u64> {
        let mut table = sregs.cr3;
        for shift in [39, 30, 21] {
            let slot = table + (address >> shift & 0x1ff) * 8;
            let entry: u64 = memory.read_obj(GuestAddress(slot)).unwrap();
            if entry & 0b11 != 0b11 {
                return None;
            }
            table = entry & !0xfff;
            if shift == 21 && entry & 0x80 == 0 {
                return None;
            }
        }
        Some(table + (address & 0x1f_ffff))
    };
    for address in [0, 0xb_8000, 0x100_0200, 0x3fff_ffff, 0x4000_0000, 0xc000_0000, 0xffff_ffff] {
        assert_eq!(walk(address), Some(address), "{address:#x}");
    }
    for address in [1 << 32, 1 << 39, u64::MAX >> 16] {
        assert_eq!(walk(address), None, "{address:#x}");
    }
}

#[test]
fn registers_of_protected_mode() {
    let memory = ram(16);
    let entry = embedded(pvh(true, &pvh_note()), "").unwrap().load(&memory, RSDP).unwrap();
    let mut sregs = kvm_bindings::kvm_sregs { cr0: 0x6000_0010, efer: 0xd01, ..Default::default() };
    entry.apply(&mut sregs);
    assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer), (0x11, 0, 0, 0));
    assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.g, sregs.cs.limit, sregs.cs.base), (0, 1, 1, u32::MAX, 0));
    assert_eq!((sregs.tr.type_, sregs.tr.limit, sregs.tr.s, sregs.tr.present), (11, 0x67, 0, 1));
    for data in [sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss] {
        assert_eq!((data.base, data.limit, data.db, data.type_), (0, u32::MAX, 1, 3));
    }
    assert_eq!((sregs.idt.base, sregs.idt.limit), (0, 0));
    let regs = entry.regs();
    assert_eq!((regs.rip, regs.rbx, regs.rflags), (0x10_0004, PARAMETERS, 2));
}
