//! ELF images, 32-bit and 64-bit: the loadable segments and the PVH entry note (System V gABI 4.1 chapter 5; Xen's
//! `xen/include/public/elfnote.h`).

use linux_loader::elf::{ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFMAG, PT_LOAD, PT_NOTE};

use super::error::{Defect, Error};
use super::fields::{u16_at, u32_at, u64_at};
use super::image::Image;
use super::segment::Segment;

/// e_machine: 32-bit and 64-bit x86.
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
/// Type of the note that holds PVH's entry point.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// Notes of a kernel take less than a page; more than this is not looked at.
const NOTES_MAX: u64 = 1 << 20;

/// What an ELF image loads and where it starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Elf {
    /// Physical address of e_entry.
    pub entry: u64,
    pub segments: Vec<Segment>,
    /// Entry point of the PVH note, if there is one.
    pub pvh_entry: Option<u64>,
}

/// A program header, with the fields of either class.
struct ProgramHeader {
    kind: u32,
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

impl ProgramHeader {
    fn parse(bytes: &[u8], wide: bool) -> Option<Self> {
        if wide {
            Some(ProgramHeader {
                kind: u32_at(bytes, 0)?,
                offset: u64_at(bytes, 8)?,
                virtual_address: u64_at(bytes, 16)?,
                physical_address: u64_at(bytes, 24)?,
                file_size: u64_at(bytes, 32)?,
                memory_size: u64_at(bytes, 40)?,
                align: u64_at(bytes, 48)?,
            })
        } else {
            let field = |offset| u32_at(bytes, offset).map(u64::from);
            Some(ProgramHeader {
                kind: u32_at(bytes, 0)?,
                offset: field(4)?,
                virtual_address: field(8)?,
                physical_address: field(12)?,
                file_size: field(16)?,
                memory_size: field(20)?,
                align: field(28)?,
            })
        }
    }
}

/// Place and size of the program header table, and the entry point.
struct FileHeader {
    entry: u64,
    table: u64,
    entry_size: u16,
    count: u16,
    wide: bool,
}

impl FileHeader {
    fn parse(bytes: &[u8], wide: bool) -> Option<Self> {
        let (entry, table, entry_size, count) = if wide {
            (u64_at(bytes, 24)?, u64_at(bytes, 32)?, u16_at(bytes, 54)?, u16_at(bytes, 56)?)
        } else {
            (u32_at(bytes, 24)?.into(), u32_at(bytes, 28)?.into(), u16_at(bytes, 42)?, u16_at(bytes, 44)?)
        };
        Some(FileHeader { entry, table, entry_size, count, wide })
    }
}

/// Reads the headers of an ELF image; nothing if the file is none.
pub(super) fn parse(image: &Image) -> Result<Option<Elf>, Error> {
    let head = image.head(64)?;
    if !head.starts_with(ELFMAG) {
        return Ok(None);
    }
    let defective = |defect| image.defective(defect);
    let wide = match head.get(4..6) {
        Some([ELFCLASS32, ELFDATA2LSB]) => false,
        Some([ELFCLASS64, ELFDATA2LSB]) => true,
        _ => return Err(defective(Defect::OtherArchitecture)),
    };
    if !matches!(u16_at(&head, 18), Some(EM_386 | EM_X86_64)) {
        return Err(defective(Defect::OtherArchitecture));
    }
    let header = FileHeader::parse(&head, wide).ok_or_else(|| defective(Defect::Truncated))?;
    let program_headers = program_headers(image, &header)?;

    let mut segments = Vec::new();
    let mut pvh_entry = None;
    for header in &program_headers {
        match header.kind {
            PT_LOAD if header.memory_size > 0 => {
                let segment = Segment {
                    offset: header.offset,
                    file_size: header.file_size,
                    address: header.physical_address,
                    memory_size: header.memory_size,
                };
                segment.check(image)?;
                segments.push(segment);
            }
            PT_NOTE if pvh_entry.is_none() => {
                let notes = image.read(header.offset, header.file_size.min(NOTES_MAX))?;
                pvh_entry = pvh_note(&notes, header.align).map_err(defective)?;
            }
            _ => {}
        }
    }
    let entry = physical_entry(header.entry, &program_headers);
    Ok(Some(Elf { entry, segments, pvh_entry }))
}

fn program_headers(image: &Image, header: &FileHeader) -> Result<Vec<ProgramHeader>, Error> {
    let entry_size: u16 = if header.wide { 56 } else { 32 };
    if header.count == 0 {
        return Ok(Vec::new());
    }
    if header.entry_size != entry_size {
        return Err(image.defective(Defect::ProgramHeader));
    }
    let table = image.read(header.table, u64::from(entry_size) * u64::from(header.count))?;
    Ok(table
        .chunks_exact(entry_size.into())
        .filter_map(|bytes| ProgramHeader::parse(bytes, header.wide))
        .collect())
}

/// A kernel linked at virtual addresses of its own may give its entry point as one of those.
fn physical_entry(entry: u64, headers: &[ProgramHeader]) -> u64 {
    let holds_entry = |header: &&ProgramHeader| {
        header.kind == PT_LOAD
            && entry.checked_sub(header.virtual_address).is_some_and(|offset| offset < header.memory_size)
    };
    match headers.iter().find(holds_entry) {
        Some(header) => header.physical_address.wrapping_add(entry.wrapping_sub(header.virtual_address)),
        None => entry,
    }
}

/// The entry point in a segment of notes. Name and descriptor are padded to 4 bytes, or to 8 where the segment says
/// so (as for .note.gnu.property).
fn pvh_note(notes: &[u8], segment_align: u64) -> Result<Option<u64>, Defect> {
    let align = if segment_align == 8 { 8 } else { 4 };
    let mut rest = notes;
    while let (Some(name_size), Some(size), Some(kind)) = (u32_at(rest, 0), u32_at(rest, 4), u32_at(rest, 8))
    {
        let (name_size, size) = (name_size as usize, size as usize);
        let descriptor = (12 + name_size).next_multiple_of(align);
        let Some(name) = rest.get(12..12 + name_size) else { break };
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && name == b"Xen\0" {
            // 64-bit Linux writes the address as eight bytes.
            let address = match size {
                4 => u32_at(rest, descriptor).map(u64::from),
                8 => u64_at(rest, descriptor),
                _ => None,
            };
            return match address {
                Some(address) if address <= u32::MAX.into() => Ok(Some(address)),
                _ => Err(Defect::PvhNote),
            };
        }
        match rest.get((descriptor + size).next_multiple_of(align)..) {
            Some(next) => rest = next,
            None => break,
        }
    }
    Ok(None)
}
