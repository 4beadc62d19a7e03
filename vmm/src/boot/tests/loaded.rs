//! What is in guest memory after a load, and after a second one.

use linux_loader::bootparam::boot_params;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};

use super::super::placement::{BOOT_DATA, COMMAND_LINE, PARAMETERS};
use super::*;
use crate::memory::memory_map;

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

#[test]
fn the_programs_own_guests_are_pvh() {
    for (name, image) in [("demo", guest::DEMO), ("devices", guest::DEVICES), ("exit", guest::EXIT)] {
        let mut kernel = Kernel::embedded(name, image, "").unwrap();
        assert_eq!(kernel.protocol(), Protocol::Pvh, "{name}");
        let entry = kernel.load(&ram(64), RSDP).unwrap();
        assert!(matches!(entry, Entry::Protected { ebx, .. } if u64::from(ebx) == PARAMETERS), "{name}");
    }
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
fn the_longest_command_line_arrives() {
    let memory = ram(16);
    embedded(pvh(true, &pvh_note()), &"x".repeat(65535)).unwrap().load(&memory, RSDP).unwrap();
    let line = bytes(&memory, COMMAND_LINE.start, 65536);
    assert!(line[..65535].iter().all(|byte| *byte == b'x') && line[65535] == 0);
}
