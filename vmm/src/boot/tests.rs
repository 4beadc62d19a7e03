use std::path::Path;

use linux_loader::bootparam::boot_params;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress};

use super::placement::{BOOT_DATA, COMMAND_LINE, GDT, PARAMETERS};
use super::*;
use crate::layout;
use crate::memory::{Backing, GuestMemory, allocate, memory_map};

const RSDP: u64 = layout::ACPI_TABLES.start;

fn ram(mib: u64) -> GuestMemory {
    allocate((mib << 20).try_into().unwrap(), Backing::Transparent).unwrap()
}

fn embedded(image: Vec<u8>, command_line: &str) -> Result<Kernel, Error> {
    Kernel::embedded("dir/test kernel", image.leak(), command_line)
}

fn bytes(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// The string at an address, up to its zero.
fn string(memory: &GuestMemory, address: u64) -> String {
    let all = bytes(memory, address, 0x1000);
    String::from_utf8(all.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap()
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if image.len() < offset + bytes.len() {
        image.resize(offset + bytes.len(), 0);
    }
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A program header: type, file offset, virtual and physical address, file and memory size.
struct Header(u32, u64, u64, u64, u64, u64);

const LOAD: u32 = 1;
const NOTE: u32 = 4;

/// An ELF image with these program headers behind the file header, padded to `length`.
fn elf(wide: bool, entry: u64, headers: &[Header], length: usize) -> Vec<u8> {
    let mut image = vec![0; length];
    let class = if wide { 2 } else { 1 };
    put(&mut image, 0, &[0x7f, b'E', b'L', b'F', class, 1, 1]);
    put(&mut image, 16, &2u16.to_le_bytes());
    put(&mut image, 18, &(if wide { 62u16 } else { 3 }).to_le_bytes());
    let count = (headers.len() as u16).to_le_bytes();
    if wide {
        put(&mut image, 24, &entry.to_le_bytes());
        put(&mut image, 32, &64u64.to_le_bytes());
        put(&mut image, 54, &56u16.to_le_bytes());
        put(&mut image, 56, &count);
    } else {
        put(&mut image, 24, &(entry as u32).to_le_bytes());
        put(&mut image, 28, &52u32.to_le_bytes());
        put(&mut image, 42, &32u16.to_le_bytes());
        put(&mut image, 44, &count);
    }
    for (index, Header(kind, offset, virt, phys, file, memory)) in headers.iter().enumerate() {
        if wide {
            let at = 64 + 56 * index;
            put(&mut image, at, &kind.to_le_bytes());
            for (field, value) in [offset, virt, phys, file, memory, &4].into_iter().enumerate() {
                put(&mut image, at + 8 + 8 * field, &value.to_le_bytes());
            }
        } else {
            let at = 52 + 32 * index;
            let values = [u64::from(*kind), *offset, *virt, *phys, *file, *memory, 0, 4];
            for (field, value) in values.into_iter().enumerate() {
                put(&mut image, at + 4 * field, &(value as u32).to_le_bytes());
            }
        }
    }
    image
}

fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len() as u32, descriptor.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name, descriptor] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Code at 1 MiB, 0x10 bytes in the file and 0x2000 in memory; notes at file offset 0x400.
fn pvh(wide: bool, notes: &[u8]) -> Vec<u8> {
    let headers = [
        Header(LOAD, 0x300, 0x10_0000, 0x10_0000, 0x10, 0x2000),
        Header(NOTE, 0x400, 0, 0, notes.len() as u64, notes.len() as u64),
        // A second segment of notes must not undo the first.
        Header(NOTE, 0x300, 0, 0, 0x10, 0x10),
    ];
    let mut image = elf(wide, 0x10_0000, &headers, 0x500);
    put(&mut image, 0x300, b"kernel code here");
    put(&mut image, 0x400, notes);
    image
}

fn pvh_note() -> Vec<u8> {
    [note(b"GNU\0", 3, &[1; 20]), note(b"Xen\0", 18, &0x10_0004u32.to_le_bytes())].concat()
}

/// A multiboot header with these flags and, if there are any, addresses.
fn multiboot_header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    let words = [&[magic, flags, checksum], addresses].concat();
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A bzImage of protocol 2.15 with two setup sectors, loading `payload` at 16 MiB.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x600];
    put(&mut image, 0x1f1, &[2]);
    put(&mut image, 0x1fe, &0xaa55u16.to_le_bytes());
    put(&mut image, 0x200, &[0xeb, 0x6a]);
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &0x20fu16.to_le_bytes());
    put(&mut image, 0x211, &[1]);
    put(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut image, 0x234, &[1]);
    put(&mut image, 0x236, &1u16.to_le_bytes());
    put(&mut image, 0x238, &2047u32.to_le_bytes());
    put(&mut image, 0x258, &0x100_0000u64.to_le_bytes());
    put(&mut image, 0x260, &0x20_0000u32.to_le_bytes());
    // Code behind the header, which must not get into the zero page.
    put(&mut image, 0x26c, &[0xcc; 0x20]);
    put(&mut image, 0x600, payload);
    image
}

fn file(directory: &Path, name: &str, content: &[u8]) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn bzimage_in_64_bit_mode() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = file(directory.path(), "vmlinuz", &bzimage(b"protected mode"));
    let initrd = file(directory.path(), "initrd", &[0x5a; 0x1800]);
    let memory = ram(256);
    let mut kernel = Kernel::open(&kernel, Some(&initrd), "console=ttyS0 quiet").unwrap();
    assert_eq!(kernel.protocol().to_string(), "bzImage 2.15");
    let entry = kernel.load(&memory, RSDP).unwrap();
    assert_eq!(entry, Entry::Long { rip: 0x100_0200, rsi: PARAMETERS });

    assert_eq!(bytes(&memory, 0x100_0000, 14), b"protected mode");
    let page: boot_params = memory.read_obj(GuestAddress(PARAMETERS)).unwrap();
    let hdr = page.hdr;
    assert_eq!(({ hdr.type_of_loader }, { hdr.vid_mode }, { hdr.version }), (0xff, 0xffff, 0x20f));
    assert_eq!(string(&memory, hdr.cmd_line_ptr.into()), "console=ttyS0 quiet");
    assert_eq!({ page.acpi_rsdp_addr }, RSDP);
    // As high as RAM goes, on a page boundary.
    assert_eq!(({ hdr.ramdisk_image }, { hdr.ramdisk_size }), (0xfff_e000, 0x1800));
    assert_eq!(bytes(&memory, 0xfff_e000, 0x1800), [0x5a; 0x1800]);
    assert_eq!(page._pad7, [0; 36]);
    let map = memory_map(&memory);
    assert_eq!(usize::from(page.e820_entries), map.len());
    let table = page.e820_table;
    for (entry, expected) in table.iter().zip(&map) {
        assert_eq!({ entry.addr }, expected.range.start);
        assert_eq!({ entry.size }, expected.range.end - expected.range.start);
        assert_eq!({ entry.r#type }, expected.kind.number());
    }
}

#[test]
fn initrd_stays_below_the_kernels_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = bzimage(b"code");
    put(&mut image, 0x22c, &0x37ff_ffffu32.to_le_bytes());
    let kernel = file(directory.path(), "vmlinuz", &image);
    let initrd = file(directory.path(), "initrd", &[1; 0x1000]);
    let memory = ram(2048);
    Kernel::open(&kernel, Some(&initrd), "").unwrap().load(&memory, RSDP).unwrap();
    let page: boot_params = memory.read_obj(GuestAddress(PARAMETERS)).unwrap();
    assert_eq!({ page.hdr.ramdisk_image }, 0x37ff_f000);
}

#[test]
fn bzimage_without_64_bit_entry() {
    let mut image = bzimage(b"code");
    put(&mut image, 0x236, &0u16.to_le_bytes());
    let entry = embedded(image, "").unwrap().load(&ram(64), RSDP).unwrap();
    let esi = PARAMETERS as u32;
    assert_eq!(entry, Entry::Protected { eip: 0x100_0000, eax: 0, ebx: 0, esi });

    // Before 2.10 there is no preferred address, before 2.12 no flag for the 64-bit entry point.
    let mut image = bzimage(b"code");
    put(&mut image, 0x206, &0x206u16.to_le_bytes());
    let memory = ram(16);
    let entry = embedded(image, "").unwrap().load(&memory, RSDP).unwrap();
    assert_eq!(entry, Entry::Protected { eip: 0x10_0000, eax: 0, ebx: 0, esi });
    assert_eq!(bytes(&memory, 0x10_0000, 4), b"code");
}

#[test]
fn pvh_gets_its_start_info() {
    let directory = tempfile::tempdir().unwrap();
    for wide in [false, true] {
        let kernel = file(directory.path(), "kernel", &pvh(wide, &pvh_note()));
        let initrd = file(directory.path(), "initrd", b"module");
        let memory = ram(5120);
        let mut kernel = Kernel::open(&kernel, Some(&initrd), "test=1").unwrap();
        assert_eq!(kernel.protocol(), Protocol::Pvh);
        let entry = kernel.load(&memory, RSDP).unwrap();
        assert_eq!(entry, Entry::Protected { eip: 0x10_0004, eax: 0, ebx: PARAMETERS as u32, esi: 0 });

        assert_eq!(bytes(&memory, 0x10_0000, 16), b"kernel code here");
        let info: hvm_start_info = memory.read_obj(GuestAddress(PARAMETERS)).unwrap();
        assert_eq!((info.magic, info.version, info.rsdp_paddr), (0x336e_c578, 1, RSDP));
        assert_eq!(string(&memory, info.cmdline_paddr), "test=1");
        assert_eq!(info.nr_modules, 1);
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0xbfff_f000, 6));
        assert_eq!(bytes(&memory, module.paddr, 6), b"module");
        let map = memory_map(&memory);
        assert_eq!(info.memmap_entries as usize, map.len());
        for (index, expected) in map.iter().enumerate() {
            let address = info.memmap_paddr + 24 * index as u64;
            let entry: hvm_memmap_table_entry = memory.read_obj(GuestAddress(address)).unwrap();
            let range = expected.range.clone();
            let expected = (range.start, range.end - range.start, expected.kind.number());
            assert_eq!((entry.addr, entry.size, entry.type_), expected);
        }
    }
}

#[test]
fn pvh_note_of_eight_bytes() {
    let image = pvh(true, &note(b"Xen\0", 18, &0x10_0008u64.to_le_bytes()));
    let entry = embedded(image, "").unwrap().load(&ram(16), RSDP).unwrap();
    assert_eq!(entry.regs().rip, 0x10_0008);
}

#[test]
fn pvh_comes_before_multiboot() {
    let mut image = pvh(true, &pvh_note());
    put(&mut image, 0x480, &multiboot_header(0, &[]));
    assert_eq!(embedded(image, "").unwrap().protocol(), Protocol::Pvh);
    // Without the note the same image is a multiboot one.
    let mut image = pvh(true, &note(b"Xen\0", 17, &[0; 4]));
    put(&mut image, 0x480, &multiboot_header(0, &[]));
    assert_eq!(embedded(image, "").unwrap().protocol(), Protocol::Multiboot);
}

/// A 32-bit ELF image linked at 3 GiB + 1 MiB, loaded at 1 MiB.
fn multiboot_elf() -> Vec<u8> {
    let headers = [Header(LOAD, 0x100, 0xc010_0000, 0x10_0000, 0x300, 0x3000)];
    let mut image = elf(false, 0xc010_0020, &headers, 0x400);
    put(&mut image, 0x100, &multiboot_header(0b11, &[]));
    image
}

#[test]
fn multiboot_gets_its_information() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = file(directory.path(), "my kernel.elf", &multiboot_elf());
    let initrd = file(directory.path(), "environment", b"NR_CPUS=2\n");
    let memory = ram(512);
    let mut kernel = Kernel::open(&kernel, Some(&initrd), "one two").unwrap();
    assert_eq!(kernel.protocol(), Protocol::Multiboot);
    let entry = kernel.load(&memory, RSDP).unwrap();
    let ebx = PARAMETERS as u32;
    assert_eq!(entry, Entry::Protected { eip: 0x10_0020, eax: 0x2bad_b002, ebx, esi: 0 });

    let field = |index: u64| -> u32 { memory.read_obj(GuestAddress(PARAMETERS + 4 * index)).unwrap() };
    assert_eq!(field(0), 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    assert_eq!((field(1), field(2)), (640, 511 << 10));
    assert_eq!(string(&memory, field(4).into()), "my_kernel.elf one two");
    assert_eq!(field(5), 1);
    let module: [u32; 4] = memory.read_obj(GuestAddress(field(6).into())).unwrap();
    // Behind the kernel's zeroed memory, so that a kernel may take all memory above it for free.
    assert_eq!((module[0], module[1]), (0x10_3000, 0x10_3000 + 10));
    assert_eq!(bytes(&memory, 0x10_3000, 10), b"NR_CPUS=2\n");
    assert_eq!(string(&memory, module[2].into()), "environment");
    assert_eq!(string(&memory, field(16).into()), "slotpass");

    let map = memory_map(&memory);
    assert_eq!(field(11) as usize, 24 * map.len());
    for (index, expected) in map.iter().enumerate() {
        let at = u64::from(field(12)) + 24 * index as u64;
        let word = |offset: u64| -> u32 { memory.read_obj(GuestAddress(at + offset)).unwrap() };
        let long = |offset: u64| -> u64 { memory.read_obj(GuestAddress(at + offset)).unwrap() };
        assert_eq!((word(0), word(20)), (20, expected.kind.number()));
        assert_eq!((long(4), long(4) + long(12)), (expected.range.start, expected.range.end));
    }
}

#[test]
fn multiboot_without_module_says_so() {
    let memory = ram(16);
    embedded(multiboot_elf(), "").unwrap().load(&memory, RSDP).unwrap();
    let flags: u32 = memory.read_obj(GuestAddress(PARAMETERS)).unwrap();
    assert_eq!(flags & 1 << 3, 0);
    let line: u32 = memory.read_obj(GuestAddress(PARAMETERS + 16)).unwrap();
    assert_eq!(string(&memory, line.into()), "test_kernel");
}

#[test]
fn multiboot_with_addresses_needs_no_elf() {
    // (load_addr, load_end_addr, bss_end_addr): the header is at file offset 0x40 and address 0x100040.
    for (load, load_end, bss_end) in [
        (0x10_0000, 0x10_0200, 0x10_1000),
        (0x10_0000, 0, 0x10_1000),
        (0x10_0010, 0x10_0100, 0),
        (0x10_0040, 0, 0),
    ] {
        let mut image = vec![0xab; 0x200];
        put(&mut image, 0x40, &multiboot_header(1 << 16, &[0x10_0040, load, load_end, bss_end, 0x10_0060]));
        let memory = ram(16);
        let end = if bss_end == 0 { 0x10_0100 } else { bss_end };
        memory.write_slice(&vec![0xee; 0x1000], GuestAddress(0x10_0000)).unwrap();
        let entry = embedded(image.clone(), "").unwrap().load(&memory, RSDP).unwrap();
        assert_eq!((entry.regs().rip, entry.regs().rax), (0x10_0060, 0x2bad_b002));
        let (from, to) = (load as usize & 0xfff, if load_end == 0x10_0100 { 0x100 } else { 0x200 });
        assert_eq!(bytes(&memory, load.into(), to - from), image[from..to]);
        if bss_end != 0 {
            assert_eq!(bytes(&memory, 0x10_0200, end as usize - 0x10_0200), vec![0; 0xe00]);
        }
    }
}

/// The second load gives the same guest as the first, although the guest wrote over everything and the files were
/// replaced.
#[test]
fn loading_again_restores_everything() {
    let directory = tempfile::tempdir().unwrap();
    let top = (64 << 20) - 0x3000;
    // (image, what the loader owes beside the boot data: kernel, initrd)
    for (image, kernel_at, kernel_size, initrd_at) in [
        (bzimage(&[7; 0x3000]), 0x100_0000, 0x3000, top),
        (pvh(true, &pvh_note()), 0x10_0000, 0x2000, top),
        (multiboot_elf(), 0x10_0000, 0x3000, 0x10_3000),
    ] {
        let kernel_path = file(directory.path(), "kernel", &image);
        let initrd_path = file(directory.path(), "initrd", &[9; 0x2345]);
        let memory = ram(64);
        let owed = || {
            let boot_data = bytes(&memory, BOOT_DATA.start, (BOOT_DATA.end - BOOT_DATA.start) as usize);
            let kernel = bytes(&memory, kernel_at, kernel_size);
            let initrd = bytes(&memory, initrd_at, 0x2345);
            (boot_data, kernel, initrd)
        };
        let mut kernel = Kernel::open(&kernel_path, Some(&initrd_path), "a b c").unwrap();
        let entry = kernel.load(&memory, RSDP).unwrap();
        let first = owed();
        assert_eq!(first.2, [9; 0x2345]);

        for (start, end) in [(0, layout::LEGACY_HOLE.start), (0x10_0000, 64 << 20)] {
            memory.write_slice(&vec![0xff; (end - start) as usize], GuestAddress(start)).unwrap();
        }
        for path in [&kernel_path, &initrd_path] {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, b"something else").unwrap();
        }
        assert_eq!(kernel.load(&memory, RSDP).unwrap(), entry);
        assert!(owed() == first, "{}", kernel.protocol());
    }
}

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

#[test]
fn files_that_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = Kernel::open(&missing, None, "").unwrap_err();
    let expected =
        format!("kernel {}: cannot open: No such file or directory (os error 2)", missing.display());
    assert_eq!(error.to_string(), expected);
    assert!(matches!(Kernel::open(directory.path(), None, ""), Err(Error::NotRegular { .. })));
    assert!(matches!(Kernel::open(Path::new("/dev/zero"), None, ""), Err(Error::NotRegular { .. })));

    let kernel = file(directory.path(), "kernel", &bzimage(b"code"));
    let error = Kernel::open(&kernel, Some(&missing), "").unwrap_err();
    assert!(matches!(error, Error::File { role: Role::Initrd, .. }), "{error}");
    let empty = file(directory.path(), "empty", b"");
    let error = Kernel::open(&kernel, Some(&empty), "").unwrap_err();
    assert!(matches!(error, Error::Empty { role: Role::Initrd, .. }), "{error}");
    let error = Kernel::open(&empty, None, "").unwrap_err();
    let expected = format!("kernel {} is neither bzImage, PVH ELF nor multiboot 1", empty.display());
    assert_eq!(error.to_string(), expected);
}

/// A pipe without a writer must not make slotpass wait.
#[test]
fn a_pipe_is_no_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(matches!(Kernel::open(&path, None, ""), Err(Error::NotRegular { .. })));
}

#[test]
fn files_that_are_no_kernel() {
    let plain_elf = elf(true, 0x10_0000, &[Header(LOAD, 0, 0x10_0000, 0x10_0000, 0x40, 0x40)], 0x400);
    for image in [vec![], vec![0; 0x10000], b"#!/bin/sh\n".repeat(1000), plain_elf, multiboot_header(0, &[])]
    {
        assert!(matches!(embedded(image, ""), Err(Error::NotAKernel { .. })));
    }
    // A multiboot header beyond the first 8 KiB, off its boundary, or with a wrong checksum is none.
    for (offset, change) in [(0x2000, 0), (0x42, 0), (0x40, 1)] {
        let mut image = vec![0; 0x3000];
        let mut header = multiboot_header(1 << 16, &[0x10_0040, 0x10_0000, 0, 0, 0x10_0060]);
        header[8] ^= change;
        put(&mut image, offset, &header);
        assert!(matches!(embedded(image, ""), Err(Error::NotAKernel { .. })), "{offset:#x}");
    }
}

#[test]
fn defective_kernels() {
    let with = |mut image: Vec<u8>, offset: usize, bytes: &[u8]| {
        put(&mut image, offset, bytes);
        image
    };
    let pvh = |notes: &[u8]| pvh(true, notes);
    let good = || pvh(&pvh_note());
    let header_at = 64;
    let cases = [
        (with(bzimage(b"code"), 0x206, &0x205u16.to_le_bytes()), Defect::OldProtocol(0x205)),
        (with(bzimage(b"code"), 0x211, &[0]), Defect::LoadsLow),
        (bzimage(b""), Defect::Truncated),
        (with(bzimage(b"code"), 0x1f1, &[255]), Defect::Truncated),
        (bzimage(b"code")[..0x210].to_vec(), Defect::Truncated),
        (with(good(), 5, &[2]), Defect::OtherArchitecture),
        (with(good(), 4, &[3]), Defect::OtherArchitecture),
        (with(good(), 18, &183u16.to_le_bytes()), Defect::OtherArchitecture),
        (with(good(), 54, &57u16.to_le_bytes()), Defect::ProgramHeader),
        (with(good(), 56, &u16::MAX.to_le_bytes()), Defect::Truncated),
        (with(good(), 32, &u64::MAX.to_le_bytes()), Defect::Truncated),
        (good()[..60].to_vec(), Defect::Truncated),
        (good()[..0x300].to_vec(), Defect::Truncated),
        // Offset, file size, and memory size of the first segment.
        (with(good(), header_at + 8, &u64::MAX.to_le_bytes()), Defect::Truncated),
        (with(good(), header_at + 32, &0x1000u64.to_le_bytes()), Defect::Truncated),
        (with(good(), header_at + 40, &1u64.to_le_bytes()), Defect::ProgramHeader),
        (with(good(), header_at + 40, &u64::MAX.to_le_bytes()), Defect::ProgramHeader),
        (pvh(&note(b"Xen\0", 18, &[0; 2])), Defect::PvhNote),
        (pvh(&note(b"Xen\0", 18, &u64::MAX.to_le_bytes())), Defect::PvhNote),
        (pvh(&note(b"Xen\0", 18, &0x10_2000u32.to_le_bytes())), Defect::EntryOutside),
        (with(good(), header_at, &0u32.to_le_bytes()), Defect::NoSegments),
        (with(multiboot_elf(), 24, &0x40u32.to_le_bytes()), Defect::EntryOutside),
        (with(multiboot_elf(), 0x100, &multiboot_header(1 << 5, &[])), Defect::MultibootFlags(1 << 5)),
        (
            with(vec![0; 0x100], 0, &multiboot_header(1 << 16, &[0x10_0000, 0x10_0001, 0, 0, 0x10_0000])),
            Defect::MultibootAddresses,
        ),
        (with(vec![0; 0x100], 0, &multiboot_header(1 << 16, &[8, 0, 0, 0, 0])), Defect::MultibootAddresses),
        (with(vec![0; 0x100], 0, &multiboot_header(1 << 16, &[8, 8, 0x200, 0, 8])), Defect::Truncated),
        (with(vec![0; 0x100], 0, &multiboot_header(1 << 16, &[8, 8, 0x48, 0x10, 8])), Defect::ProgramHeader),
    ];
    for (index, (image, expected)) in cases.into_iter().enumerate() {
        match embedded(image, "") {
            Err(Error::Defective { defect, .. }) => assert_eq!(defect, expected, "case {index}"),
            other => panic!("case {index}: {other:?}, not {expected:?}"),
        }
    }
}

/// Loads must not reach outside RAM, into the boot data or into the ACPI tables; what more memory would help is told
/// apart from what nothing would.
#[test]
fn kernels_that_do_not_fit() {
    #[derive(Debug, PartialEq)]
    enum Outcome {
        Fits,
        MoreMemory,
        Never,
    }
    use Outcome::{Fits, MoreMemory, Never};
    for (address, size, outcome) in [
        (0x10_0000u64, 0x2000u64, Fits),
        ((16 << 20) - 0x2000, 0x2000, Fits),
        ((16 << 20) - 0x2000, 0x2001, MoreMemory),
        (16 << 20, 0x1000, MoreMemory),
        (0xbfff_f000, 0x1000, MoreMemory),
        (0xbfff_f000, 0x1001, Never),
        (0xf_f000, 0x2000, Never),
        (0x9_f000, 0x1000, Fits),
        (0x9_f000, 0x1001, Never),
        (0xe_0000, 0x1000, Never),
        (BOOT_DATA.end, 0x1000, Fits),
        (BOOT_DATA.end - 0x800, 0x1000, Never),
        (0, 0x1000, Fits),
        (0, 0x1001, Never),
        (0xe000_0000, 0x1000, Never),
        (1 << 32, 0x1000, Never),
        (u64::MAX - 0x2000, 0x1000, Never),
    ] {
        let headers = [
            Header(LOAD, 0x300, 0x10_0000, 0x10_0000, 0x10, 0x2000),
            Header(NOTE, 0x400, 0, 0, 20, 20),
            Header(LOAD, 0x300, 0, address, 0x10, size),
        ];
        let mut image = elf(true, 0x10_0000, &headers, 0x500);
        put(&mut image, 0x400, &note(b"Xen\0", 18, &0x10_0000u32.to_le_bytes()));
        let result = embedded(image, "").unwrap().load(&ram(16), RSDP);
        let range_of = |range| assert_eq!(range, address..address + size);
        let actual = match result {
            Ok(_) => Fits,
            Err(Error::DoesNotFit { range, .. }) => {
                range_of(range);
                MoreMemory
            }
            Err(Error::NotLoadable { range, .. }) => {
                range_of(range);
                Never
            }
            Err(other) => panic!("{address:#x}: {other}"),
        };
        assert_eq!(actual, outcome, "{address:#x} + {size:#x}");
    }
    let error = embedded(bzimage(b"code"), "").unwrap().load(&ram(16), RSDP).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel dir/test kernel: needs RAM up to 0x1200000, but the guest's RAM below 4 GiB ends at 0x1000000; give \
         the guest more memory"
    );
    // Above 4 GiB there is RAM, but the entry point cannot be there.
    let mut image = bzimage(b"code");
    put(&mut image, 0x258, &(1u64 << 32).to_le_bytes());
    let result = embedded(image, "").unwrap().load(&ram(5120), RSDP);
    assert!(matches!(result, Err(Error::NotLoadable { .. })), "{result:?}");
}

#[test]
fn initrds_that_do_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = file(directory.path(), "kernel", &bzimage(b"code"));
    let initrd = directory.path().join("initrd");
    // The kernel ends at 18 MiB of 32.
    for (size, fits) in [(14u64 << 20, true), ((14 << 20) + 1, false), (1 << 40, false)] {
        std::fs::File::create(&initrd).unwrap().set_len(size).unwrap();
        let result = Kernel::open(&kernel, Some(&initrd), "").unwrap().load(&ram(32), RSDP);
        match result {
            Ok(_) => assert!(fits),
            Err(Error::InitrdTooLarge { size: given, ref room, .. }) => {
                assert!(!fits && given == size && *room == (0x120_0000..0x200_0000));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn command_lines_refused() {
    let refused = |image: Vec<u8>, length: usize| match embedded(image, &"x".repeat(length)) {
        Ok(_) => None,
        Err(Error::CommandLineTooLong { limit, limiter, .. }) => Some((limit, limiter)),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(refused(bzimage(b"code"), 2047), None);
    assert_eq!(refused(bzimage(b"code"), 2048), Some((2047, "the kernel")));
    assert_eq!(refused(pvh(true, &pvh_note()), 65535), None);
    assert_eq!(refused(pvh(true, &pvh_note()), 65536), Some((65535, "slotpass")));
    // The kernel's name and a blank come before the line.
    assert_eq!(refused(multiboot_elf(), 65535 - 12), None);
    assert_eq!(refused(multiboot_elf(), 65535 - 11), Some((65535, "slotpass")));
    let error = embedded(pvh(true, &pvh_note()), "a\0b").unwrap_err();
    assert!(matches!(error, Error::CommandLineZero { offset: 1 }));
}

#[test]
fn the_longest_command_line_arrives() {
    let memory = ram(16);
    embedded(pvh(true, &pvh_note()), &"x".repeat(65535)).unwrap().load(&memory, RSDP).unwrap();
    let line = bytes(&memory, COMMAND_LINE.start, 65536);
    assert!(line[..65535].iter().all(|byte| *byte == b'x') && line[65535] == 0);
}

/// A file that shrinks after it was opened is an error when it is loaded.
#[test]
fn a_shrunken_file_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "kernel", &bzimage(&[1; 0x1000]));
    let mut kernel = Kernel::open(&path, None, "").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0x700).unwrap();
    let error = kernel.load(&ram(64), RSDP).unwrap_err();
    assert!(matches!(error, Error::Copy { role: Role::Kernel, .. }), "{error}");
}

/// Cut or changed anywhere, an image is loaded or refused; it never panics, and never writes outside RAM, which
/// would be a fault here.
#[test]
fn hostile_images_are_loaded_or_refused() {
    let memory = ram(18);
    let mut aout = vec![0; 0x200];
    put(&mut aout, 0x40, &multiboot_header(1 << 16, &[0x10_0040, 0x10_0000, 0, 0x10_1000, 0x10_0060]));
    let images =
        [bzimage(&[3; 0x100]), pvh(true, &pvh_note()), pvh(false, &pvh_note()), multiboot_elf(), aout];
    let try_load = |image: &[u8]| {
        let image: &'static [u8] = image.to_vec().leak();
        if let Ok(mut kernel) = Kernel::embedded("hostile", image, "x") {
            let _ = kernel.load(&memory, RSDP);
        }
    };
    for image in images {
        for length in (0..image.len()).step_by(7) {
            try_load(&image[..length]);
        }
        // Every header byte, and every field of eight, takes values that make fields huge, negative or zero.
        for offset in (0..0x140).chain(0x1f0..0x270).chain(0x400..0x440).filter(|o| *o < image.len()) {
            for value in [0, 0x7f, 0xff] {
                let mut changed = image.clone();
                changed[offset] = value;
                try_load(&changed);
                if offset % 4 == 0 {
                    let end = changed.len().min(offset + 8);
                    changed[offset..end].fill(value);
                    try_load(&changed);
                }
            }
        }
    }
}
