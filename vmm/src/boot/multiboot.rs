//! Multiboot 1 (Multiboot Specification 0.6.96): a header in the first 8 KiB, either in an ELF image or with the
//! addresses to load in the header itself.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress};

use super::command_line;
use super::elf::Elf;
use super::entry::Entry;
use super::error::{Defect, Error};
use super::fields::u32_at;
use super::image::Image;
use super::placement::{LISTS, PARAMETERS, Side, low_ram_end, place_initrd};
use super::segment::{self, Segment};
use crate::layout;
use crate::memory::{GuestMemory, MapEntry};

/// The header lies, on a 4-byte boundary, in this much of the file (§3.1).
const SEARCHED: u64 = 8192;
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What eax holds at the entry point (§3.2).
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// Header flags 0 to 15 are demands. Page-aligned modules and memory information are met; the video mode is a wish
/// that the information's flags say was not granted.
const DEMANDS: u32 = 0xffff;
const KNOWN_DEMANDS: u32 = 0b111;
/// Header flag 16: the header's address fields are valid and come before an ELF header.
const HAS_ADDRESSES: u32 = 1 << 16;

/// Information flags (§3.3): memory sizes, command line, modules, memory map, loader name.
const INFO_FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 6 | 1 << 9;
const INFO_MODULES: u32 = 1 << 3;

/// Places behind the information block, and within the lists' page.
const LOADER_NAME: u64 = PARAMETERS + 0x100;
const MODULE_NAME: u64 = PARAMETERS + 0x200;
const MODULE_NAME_MAX: usize = 0x1ff;
const MODULES: u64 = LISTS;
const MEMORY_MAP: u64 = LISTS + 0x100;

#[derive(Debug)]
pub(super) struct Multiboot {
    entry: u32,
    segments: Vec<Segment>,
}

/// A header found in the file.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// Offset in the file.
    offset: u64,
    flags: u32,
    /// header_addr, load_addr, load_end_addr, bss_end_addr and entry_addr, if the flags say they are there.
    addresses: Option<[u32; 5]>,
}

/// Finds the header by its magic and checksum.
fn find_header(head: &[u8]) -> Option<Header> {
    (0..head.len()).step_by(4).find_map(|offset| {
        let field = |index: usize| u32_at(head, offset + 4 * index);
        if field(0)? != HEADER_MAGIC {
            return None;
        }
        let flags = field(1)?;
        if HEADER_MAGIC.wrapping_add(flags).wrapping_add(field(2)?) != 0 {
            return None;
        }
        let addresses = if flags & HAS_ADDRESSES != 0 {
            Some([field(3)?, field(4)?, field(5)?, field(6)?, field(7)?])
        } else {
            None
        };
        Some(Header { offset: offset as u64, flags, addresses })
    })
}

/// The one segment that a header with addresses describes (§3.1.3).
fn segment_of(image: &Image, header: &Header, addresses: [u32; 5]) -> Option<Segment> {
    let [header_address, load, load_end, bss_end, _] = addresses.map(u64::from);
    let offset = header.offset.checked_sub(header_address.checked_sub(load)?)?;
    let file_size = match load_end {
        0 => image.length().checked_sub(offset)?,
        end => end.checked_sub(load)?,
    };
    let memory_size = match bss_end {
        0 => file_size,
        end => end.checked_sub(load)?,
    };
    Some(Segment { offset, file_size, address: load, memory_size })
}

/// Reads the header; nothing if the file has none. `elf` is what the file is otherwise.
pub(super) fn parse(image: &Image, elf: Option<Elf>) -> Result<Option<Multiboot>, Error> {
    let Some(header) = find_header(&image.head(SEARCHED)?) else { return Ok(None) };
    let unknown = header.flags & DEMANDS & !KNOWN_DEMANDS;
    if unknown != 0 {
        return Err(image.defective(Defect::MultibootFlags(unknown)));
    }
    let (entry, segments) = match (header.addresses, elf) {
        (Some(addresses), _) => {
            let segment = segment_of(image, &header, addresses)
                .ok_or_else(|| image.defective(Defect::MultibootAddresses))?;
            segment.check(image)?;
            let [.., entry] = addresses;
            (entry.into(), vec![segment])
        }
        (None, Some(elf)) => (elf.entry, elf.segments),
        // A header without addresses in a file that is no ELF image says nothing about what to load.
        (None, None) => return Ok(None),
    };
    if segments.is_empty() {
        return Err(image.defective(Defect::NoSegments));
    }
    match u32::try_from(entry) {
        Ok(low) if segments.iter().any(|segment| segment.range().contains(&entry)) => {
            Ok(Some(Multiboot { entry: low, segments }))
        }
        _ => Err(image.defective(Defect::EntryOutside)),
    }
}

/// The command line as multiboot kernels expect it: the kernel's name first, as one word.
pub(super) fn command_line(image: &Image, line: &[u8]) -> Vec<u8> {
    let mut all = name_of(image);
    if !line.is_empty() {
        all.push(b' ');
        all.extend_from_slice(line);
    }
    all
}

/// The file's name, its blanks replaced.
fn name_of(image: &Image) -> Vec<u8> {
    let name = image.path().file_name().unwrap_or_default().as_encoded_bytes();
    name.iter().map(|&byte| if byte.is_ascii_whitespace() { b'_' } else { byte }).collect()
}

impl Multiboot {
    /// Where the initrd goes, if all has room.
    pub fn place(
        &self,
        image: &Image,
        initrd: Option<&Image>,
        map: &[MapEntry],
    ) -> Result<Option<Range<u64>>, Error> {
        let end = segment::place(&self.segments, image, map)?;
        initrd
            .map(|initrd| place_initrd(initrd, map, end, layout::LOW_RAM_END, Side::BehindKernel))
            .transpose()
    }

    pub fn load(
        &self,
        image: &mut Image,
        initrd: Option<&mut Image>,
        command_line: &[u8],
        memory: &GuestMemory,
        map: &[MapEntry],
    ) -> Result<Entry, Error> {
        let failed = |source| Error::Memory { what: "multiboot information", source };
        let write =
            |bytes: &[u8], address: u64| memory.write_slice(bytes, GuestAddress(address)).map_err(failed);
        let place = self.place(image, initrd.as_deref(), map)?;
        segment::load(&self.segments, image, memory)?;

        let mut flags = INFO_FLAGS;
        if let Some((initrd, range)) = initrd.zip(place) {
            initrd.copy(0, initrd.length(), memory, range.start)?;
            let mut name = name_of(initrd);
            name.truncate(MODULE_NAME_MAX);
            name.push(0);
            write(&name, MODULE_NAME)?;
            let module = [range.start as u32, range.end as u32, MODULE_NAME as u32, 0];
            write(&words(&module), MODULES)?;
            flags |= INFO_MODULES;
        }
        write(b"slotpass\0", LOADER_NAME)?;
        let map_bytes: Vec<u8> = map.iter().flat_map(map_entry).collect();
        write(&map_bytes, MEMORY_MAP)?;

        let upper = low_ram_end(map).saturating_sub(layout::LEGACY_HOLE.end);
        let mut info = [0u32; 22];
        for (index, value) in [
            (0, flags),
            (1, (layout::LEGACY_HOLE.start >> 10) as u32),
            (2, (upper >> 10) as u32),
            (4, command_line::write(command_line, memory)? as u32),
            (5, u32::from(flags & INFO_MODULES != 0)),
            (6, MODULES as u32),
            (11, map_bytes.len() as u32),
            (12, MEMORY_MAP as u32),
            (16, LOADER_NAME as u32),
        ] {
            if let Some(field) = info.get_mut(index) {
                *field = value;
            }
        }
        write(&words(&info), PARAMETERS)?;
        Ok(Entry::Protected { eip: self.entry, eax: LOADER_MAGIC, ebx: PARAMETERS as u32, esi: 0 })
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An entry of the memory map: its size without the size field, address, length, type.
fn map_entry(entry: &MapEntry) -> Vec<u8> {
    let mut bytes = 20u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&entry.range.start.to_le_bytes());
    bytes.extend_from_slice(&(entry.range.end - entry.range.start).to_le_bytes());
    bytes.extend_from_slice(&entry.kind.number().to_le_bytes());
    bytes
}
