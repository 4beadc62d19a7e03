//! PVH: an ELF image with Xen's 32-bit entry note, handed a start info block (Xen's
//! `xen/include/public/arch-x86/hvm/start_info.h`, `docs/misc/pvh.pandoc`).

use std::ops::Range;

use linux_loader::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress};

use super::command_line;
use super::entry::Entry;
use super::error::{Defect, Error};
use super::image::Image;
use super::placement::{LISTS, PARAMETERS, Side, place_initrd};
use super::segment::{self, Segment};
use crate::layout;
use crate::memory::{GuestMemory, MapEntry};

/// Module list and memory map within the lists' page.
const MODULES: u64 = LISTS;
const MEMORY_MAP: u64 = LISTS + 0x100;

#[derive(Debug)]
pub(super) struct Pvh {
    entry: u32,
    segments: Vec<Segment>,
}

impl Pvh {
    /// From the parts of an ELF image with the note.
    pub fn new(image: &Image, entry: u64, segments: Vec<Segment>) -> Result<Self, Error> {
        if segments.is_empty() {
            return Err(image.defective(Defect::NoSegments));
        }
        match u32::try_from(entry) {
            Ok(low) if segments.iter().any(|segment| segment.range().contains(&entry)) => {
                Ok(Pvh { entry: low, segments })
            }
            _ => Err(image.defective(Defect::EntryOutside)),
        }
    }

    /// Where the initrd goes, if all has room.
    pub fn place(
        &self,
        image: &Image,
        initrd: Option<&Image>,
        map: &[MapEntry],
    ) -> Result<Option<Range<u64>>, Error> {
        let end = segment::place(&self.segments, image, map)?;
        initrd.map(|initrd| place_initrd(initrd, map, end, layout::LOW_RAM_END, Side::Top)).transpose()
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
        let failed = |source| Error::Memory { what: "PVH start info", source };
        let place = self.place(image, initrd.as_deref(), map)?;
        segment::load(&self.segments, image, memory)?;

        let mut info = hvm_start_info {
            magic: XEN_HVM_START_MAGIC_VALUE,
            version: 1,
            cmdline_paddr: command_line::write(command_line, memory)?,
            rsdp_paddr: rsdp,
            memmap_paddr: MEMORY_MAP,
            memmap_entries: map.len() as u32,
            ..Default::default()
        };
        if let Some((initrd, range)) = initrd.zip(place) {
            initrd.copy(0, initrd.length(), memory, range.start)?;
            let module =
                hvm_modlist_entry { paddr: range.start, size: range.end - range.start, ..Default::default() };
            memory.write_obj(module, GuestAddress(MODULES)).map_err(failed)?;
            info.nr_modules = 1;
            info.modlist_paddr = MODULES;
        }
        for (entry, address) in map.iter().zip((MEMORY_MAP..).step_by(size_of::<hvm_memmap_table_entry>())) {
            let entry = hvm_memmap_table_entry {
                addr: entry.range.start,
                size: entry.range.end - entry.range.start,
                type_: entry.kind.number(),
                reserved: 0,
            };
            memory.write_obj(entry, GuestAddress(address)).map_err(failed)?;
        }
        memory.write_obj(info, GuestAddress(PARAMETERS)).map_err(failed)?;
        Ok(Entry::Protected { eip: self.entry, eax: 0, ebx: PARAMETERS as u32, esi: 0 })
    }
}
