//! Images made for tests, and what loading them must give.

mod entry;
mod loaded;
mod refused;

use std::path::Path;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::layout;
use crate::memory::{Backing, GuestMemory, allocate};

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

/// A 32-bit ELF image linked at 3 GiB + 1 MiB, loaded at 1 MiB.
fn multiboot_elf() -> Vec<u8> {
    let headers = [Header(LOAD, 0x100, 0xc010_0000, 0x10_0000, 0x300, 0x3000)];
    let mut image = elf(false, 0xc010_0020, &headers, 0x400);
    put(&mut image, 0x100, &multiboot_header(0b11, &[]));
    image
}
