//! What a loader relies on.

// Clippy exempts test functions by itself, but not what they call.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

fn bytes<const N: usize>(image: &[u8], offset: u64) -> [u8; N] {
    let offset = usize::try_from(offset).unwrap();
    image[offset..offset + N].try_into().unwrap()
}

fn u16_at(image: &[u8], offset: u64) -> u16 {
    u16::from_le_bytes(bytes(image, offset))
}

fn u32_at(image: &[u8], offset: u64) -> u32 {
    u32::from_le_bytes(bytes(image, offset))
}

fn u64_at(image: &[u8], offset: u64) -> u64 {
    u64::from_le_bytes(bytes(image, offset))
}

/// Offsets of the program headers of that type.
fn headers(image: &[u8], kind: u32) -> Vec<u64> {
    let (begin, size, count) = (u64_at(image, 32), u16_at(image, 54), u16_at(image, 56));
    let all = (0..u64::from(count)).map(|n| begin + n * u64::from(size));
    all.filter(|&header| u32_at(image, header) == kind).collect()
}

#[test]
fn each_image_is_an_elf_with_a_pvh_entry() {
    for (name, image) in [
        ("bench", guest::BENCH),
        ("demo", guest::DEMO),
        ("devices", guest::DEVICES),
        ("exit", guest::EXIT),
        ("hostile", guest::HOSTILE),
        ("vectors", guest::VECTORS),
    ] {
        assert_eq!(image[..6], *b"\x7fELF\x02\x01", "{name}: 64 bits, little endian");
        assert_eq!(u16_at(image, 16), 2, "{name}: an executable at fixed addresses");
        assert_eq!(u16_at(image, 18), 62, "{name}: x86-64");

        let loads = headers(image, PT_LOAD);
        assert_eq!(loads.len(), 1, "{name}");
        let (address, memory) = (u64_at(image, loads[0] + 24), u64_at(image, loads[0] + 40));
        assert_eq!(address, 1 << 20, "{name}");
        assert!(address + memory <= 5 << 20, "{name} takes {memory:#x} bytes of memory");

        let notes = headers(image, PT_NOTE);
        assert_eq!(notes.len(), 1, "{name}");
        let note = u64_at(image, notes[0] + 8);
        assert_eq!(u32_at(image, notes[0] + 48), 4, "{name}: loaders pad names as the header is aligned");
        assert_eq!(u32_at(image, note), 4, "{name}: length of the note's name");
        assert_eq!(u32_at(image, note + 8), XEN_ELFNOTE_PHYS32_ENTRY, "{name}");
        assert_eq!(bytes(image, note + 12), *b"Xen\0", "{name}");
        let entry = u64_at(image, note + 16);
        assert!((address..address + memory).contains(&entry), "{name}: entry {entry:#x}");
        assert_eq!(entry, u64_at(image, 24), "{name}: the ELF header's entry");
    }
}
