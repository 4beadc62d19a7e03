//! Linux' bzImage (Linux `Documentation/arch/x86/boot.rst`), entered at its 64-bit or 32-bit entry point.

use std::ops::Range;

use linux_loader::bootparam::{
    E820_MAX_ENTRIES_ZEROPAGE, LOADED_HIGH, XLF_KERNEL_64, boot_e820_entry, boot_params, setup_header,
};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::command_line;
use super::entry::Entry;
use super::error::{Defect, Error};
use super::fields::u32_at;
use super::image::Image;
use super::placement::{PARAMETERS, Side, check_free, place_initrd};
use crate::layout;
use crate::memory::{GuestMemory, MapEntry};

/// Where the setup header starts in the file, and its "HdrS".
const HEADER: usize = 0x1f1;
const MAGIC_OFFSET: usize = 0x202;
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// Protocols that brought the command line's limit, the preferred address and the 64-bit entry point.
const COMMAND_LINE_SIZE_SINCE: u16 = 0x206;
const PREFERRED_ADDRESS_SINCE: u16 = 0x20a;
const XLOADFLAGS_SINCE: u16 = 0x20c;
/// Where kernels before 2.10 load.
const LOAD_ADDRESS: u64 = 0x10_0000;
/// The 64-bit entry point's distance from the load address.
const ENTRY_64: u64 = 0x200;
/// type_of_loader of a loader that has no number of its own.
const UNDEFINED_LOADER: u8 = 0xff;
/// vid_mode "normal".
const VIDEO_NORMAL: u16 = 0xffff;

#[derive(Debug)]
pub(super) struct BzImage {
    header: setup_header,
    /// Offset of the protected-mode part in the file; it reaches to the file's end.
    protected_mode: u64,
}

/// Reads the setup header; nothing if the file is no Linux kernel image.
pub(super) fn parse(image: &Image) -> Result<Option<BzImage>, Error> {
    let head = image.head(0x1000)?;
    if u32_at(&head, MAGIC_OFFSET) != Some(MAGIC) {
        return Ok(None);
    }
    // The byte at 0x201, the target of a jump over the header, tells where the header ends. What lies behind it in
    // the file is code, and must be zero in the zero page.
    let jump = head.get(MAGIC_OFFSET - 1).copied().unwrap_or(0);
    let end = MAGIC_OFFSET + usize::from(jump);
    let bytes = head.get(HEADER..end).ok_or_else(|| image.defective(Defect::Truncated))?;
    let mut header = setup_header::default();
    for (to, from) in header.as_mut_slice().iter_mut().zip(bytes) {
        *to = *from;
    }

    if header.version < COMMAND_LINE_SIZE_SINCE {
        return Err(image.defective(Defect::OldProtocol(header.version)));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(image.defective(Defect::LoadsLow));
    }
    let setup_sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    let protected_mode = (setup_sectors + 1) * 512;
    if protected_mode >= image.length() {
        return Err(image.defective(Defect::Truncated));
    }
    Ok(Some(BzImage { header, protected_mode }))
}

impl BzImage {
    /// Boot protocol, major version in the upper byte.
    pub fn version(&self) -> u16 {
        self.header.version
    }

    /// Bytes of command line that the kernel takes.
    pub fn command_line_limit(&self) -> usize {
        self.header.cmdline_size as usize
    }

    fn has_64_bit_entry(&self) -> bool {
        self.header.version >= XLOADFLAGS_SINCE && self.header.xloadflags & XLF_KERNEL_64 != 0
    }

    /// Where the protected-mode part and the initrd go, if both have room.
    pub fn place(
        &self,
        image: &Image,
        initrd: Option<&Image>,
        map: &[MapEntry],
    ) -> Result<(u64, Option<Range<u64>>), Error> {
        let size = self.size(image);
        // Elsewhere than at the preferred address a kernel of 2.10 or later only works above it, so nothing is won
        // by another one. init_size is what it needs there to decompress itself.
        let (start, needed) = if self.header.version >= PREFERRED_ADDRESS_SINCE {
            (self.header.pref_address, size.max(self.header.init_size.into()))
        } else {
            (LOAD_ADDRESS, size)
        };
        let end = start.saturating_add(needed);
        // Above 4 GiB neither the page tables nor the header's 32-bit fields reach.
        let low: Vec<MapEntry> =
            map.iter().filter(|entry| entry.range.end <= layout::HIGH_RAM_START).cloned().collect();
        check_free(image, &low, start..end)?;
        let limit = u64::from(self.header.initrd_addr_max) + 1;
        let initrd = initrd.map(|initrd| place_initrd(initrd, map, end, limit, Side::Top)).transpose()?;
        Ok((start, initrd))
    }

    /// Bytes of the protected-mode part.
    fn size(&self, image: &Image) -> u64 {
        image.length() - self.protected_mode
    }

    pub fn load(
        &self,
        image: &mut Image,
        initrd: Option<&mut Image>,
        command_line: &[u8],
        memory: &GuestMemory,
        map: &[MapEntry],
        rsdp: u64,
    ) -> Result<Entry, Error> {
        let (start, place) = self.place(image, initrd.as_deref(), map)?;
        image.copy(self.protected_mode, self.size(image), memory, start)?;

        let mut header = self.header;
        header.type_of_loader = UNDEFINED_LOADER;
        header.vid_mode = VIDEO_NORMAL;
        header.code32_start = start as u32;
        header.cmd_line_ptr = command_line::write(command_line, memory)? as u32;
        // A pointer that only a loader may set.
        header.setup_data = 0;
        if let Some((initrd, range)) = initrd.zip(place) {
            initrd.copy(0, initrd.length(), memory, range.start)?;
            header.ramdisk_image = range.start as u32;
            header.ramdisk_size = (range.end - range.start) as u32;
        }
        let parameters = zero_page(header, map, rsdp);
        memory
            .write_obj(parameters, GuestAddress(PARAMETERS))
            .map_err(|source| Error::Memory { what: "zero page", source })?;

        Ok(if self.has_64_bit_entry() {
            Entry::Long { rip: start + ENTRY_64, rsi: PARAMETERS }
        } else {
            Entry::Protected { eip: start as u32, eax: 0, ebx: 0, esi: PARAMETERS as u32 }
        })
    }
}

fn zero_page(header: setup_header, map: &[MapEntry], rsdp: u64) -> boot_params {
    let mut parameters = boot_params { hdr: header, acpi_rsdp_addr: rsdp, ..Default::default() };
    let mut table = [boot_e820_entry::default(); E820_MAX_ENTRIES_ZEROPAGE];
    for (to, entry) in table.iter_mut().zip(map) {
        *to = boot_e820_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            r#type: entry.kind.number(),
        };
    }
    parameters.e820_table = table;
    parameters.e820_entries = map.len().min(E820_MAX_ENTRIES_ZEROPAGE) as u8;
    parameters
}
