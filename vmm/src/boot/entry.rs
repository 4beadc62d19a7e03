//! How the boot processor enters a kernel.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::error::Error;
use super::placement::{GDT, PAGE_TABLES};
use crate::memory::GuestMemory;

/// Where and in which mode the boot processor starts. Interrupts are off in either mode; there is no IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit mode, the first 4 GiB mapped to themselves.
    Long {
        /// First instruction.
        rip: u64,
        /// The zero page, for Linux.
        rsi: u64,
    },
    /// 32-bit protected mode, flat segments, paging off.
    Protected {
        /// First instruction.
        eip: u32,
        /// Multiboot's magic.
        eax: u32,
        /// PVH's start info, multiboot's information.
        ebx: u32,
        /// The zero page, for Linux.
        esi: u32,
    },
}

/// Selectors of Linux' boot protocol; the other protocols demand none.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
/// Descriptors (Intel SDM volume 3 §3.4.5): base 0, limit 4 GiB, present, accessed.
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const DATA_32: u64 = 0x00cf_9300_0000_ffff;
/// Entries of the GDT: two unused, code, data.
const GDT_ENTRIES: u64 = 4;

const CR0_PE: u64 = 1 << 0;
/// Reads as one on every processor since the 486.
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of the flags is always set; IF, TF and VM are clear, as all three protocols want.
const FLAGS: u64 = 1 << 1;

/// Page table entry bits: present, writable, and in a directory "maps 2 MiB".
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const PAGE: u64 = 0x1000;
const ENTRIES: u64 = 512;
const GIB_MAPPED: u64 = 4;

impl Entry {
    /// Sets the system registers of the boot processor.
    ///
    /// `sregs` is what KVM gave for the processor: the local APIC's base and what no protocol mentions stays.
    pub fn apply(&self, sregs: &mut kvm_sregs) {
        let code = match self {
            Entry::Long { .. } => segment(CODE, CODE_64),
            Entry::Protected { .. } => segment(CODE, CODE_32),
        };
        let data = segment(DATA, DATA_32);
        sregs.cs = code;
        for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
            *register = data;
        }
        // PVH wants a 32-bit TSS of this size; in 64-bit mode type 11 is a busy 64-bit TSS. VT-x takes no less.
        sregs.tr = kvm_segment { limit: 0x67, type_: 11, present: 1, ..Default::default() };
        sregs.gdt = kvm_dtable { base: GDT, limit: (GDT_ENTRIES * 8 - 1) as u16, ..Default::default() };
        // No IDT: an exception before the kernel has one of its own is a triple fault, not a jump anywhere.
        sregs.idt = kvm_dtable::default();
        // The reset value has caches off (CD), which no protocol leaves a kernel with.
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr3 = 0;
        sregs.cr4 = 0;
        sregs.efer = 0;
        if let Entry::Long { .. } = self {
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
    }

    /// The general registers of the boot processor.
    pub fn regs(&self) -> kvm_regs {
        match *self {
            Entry::Long { rip, rsi } => kvm_regs { rip, rsi, rflags: FLAGS, ..Default::default() },
            Entry::Protected { eip, eax, ebx, esi } => kvm_regs {
                rip: eip.into(),
                rax: eax.into(),
                rbx: ebx.into(),
                rsi: esi.into(),
                rflags: FLAGS,
                ..Default::default()
            },
        }
    }

    /// Writes what [`Entry::apply`] points to: the GDT, and page tables for 64-bit mode.
    pub(super) fn write_tables(&self, memory: &GuestMemory) -> Result<(), Error> {
        let code = match self {
            Entry::Long { .. } => CODE_64,
            Entry::Protected { .. } => CODE_32,
        };
        let write = |what, address: u64, entries: &mut dyn Iterator<Item = u64>| {
            let bytes: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
            memory.write_slice(&bytes, GuestAddress(address)).map_err(|source| Error::Memory { what, source })
        };
        write("GDT", GDT, &mut [0, 0, code, DATA_32].into_iter())?;
        if let Entry::Long { .. } = self {
            let what = "page tables";
            let pointers = PAGE_TABLES + PAGE;
            let directories = pointers + PAGE;
            let rest = |used: u64| (used..ENTRIES).map(|_| 0);
            write(what, PAGE_TABLES, &mut std::iter::once(pointers | PRESENT_WRITABLE).chain(rest(1)))?;
            let gibs = (0..GIB_MAPPED).map(|gib| (directories + gib * PAGE) | PRESENT_WRITABLE);
            write(what, pointers, &mut gibs.chain(rest(GIB_MAPPED)))?;
            let pages = (0..GIB_MAPPED * ENTRIES).map(|page| (page << 21) | LARGE | PRESENT_WRITABLE);
            write(what, directories, &mut { pages })?;
        }
        Ok(())
    }
}

/// The register contents that loading `selector` with this descriptor would give.
fn segment(selector: u16, descriptor: u64) -> kvm_segment {
    let bits = |shift: u32, width: u32| ((descriptor >> shift) & ((1 << width) - 1)) as u8;
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: bits(40, 4),
        s: bits(44, 1),
        dpl: bits(45, 2),
        present: bits(47, 1),
        avl: bits(52, 1),
        l: bits(53, 1),
        db: bits(54, 1),
        g: bits(55, 1),
        ..Default::default()
    }
}
