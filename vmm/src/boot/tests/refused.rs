//! Files, sizes and command lines that are refused, each with its own error.

use super::super::placement::BOOT_DATA;
use super::*;

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

/// Loads a kernel; what has no room is refused before, with the same words.
fn load(mut kernel: Kernel, mib: u64) -> Result<Entry, Error> {
    let checked = kernel.check_room((mib << 20).try_into().unwrap());
    let loaded = kernel.load(&ram(mib), RSDP);
    let text = |error: &Error| error.to_string();
    assert_eq!(checked.as_ref().err().map(text), loaded.as_ref().err().map(text));
    loaded
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
        let result = load(embedded(image, "").unwrap(), 16);
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
    let error = load(embedded(bzimage(b"code"), "").unwrap(), 16).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel dir/test kernel: needs RAM up to 0x1200000, but the guest's RAM below 4 GiB ends at 0x1000000; give \
         the guest more memory"
    );
    // Above 4 GiB there is RAM, but the entry point cannot be there.
    let mut image = bzimage(b"code");
    put(&mut image, 0x258, &(1u64 << 32).to_le_bytes());
    let result = load(embedded(image, "").unwrap(), 5120);
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
        let result = load(Kernel::open(&kernel, Some(&initrd), "").unwrap(), 32);
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
            let has_room = kernel.check_room((18 << 20).try_into().unwrap()).is_ok();
            assert_eq!(kernel.load(&memory, RSDP).is_ok(), has_room);
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
