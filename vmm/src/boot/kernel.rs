//! A kernel file with its initrd and command line.

use std::fmt;
use std::path::Path;

use super::bzimage::{self, BzImage};
use super::command_line;
use super::elf;
use super::entry::Entry;
use super::error::Error;
use super::image::{Image, Role};
use super::multiboot::{self, Multiboot};
use super::placement::BOOT_DATA;
use super::pvh::Pvh;
use super::segment;
use crate::memory::{GuestMemory, RamSize, map_of_size, memory_map};

/// A kernel that can be loaded again and again: its files stay open, so that another file put in their place changes
/// nothing.
#[derive(Debug)]
pub struct Kernel {
    image: Image,
    format: Format,
    initrd: Option<Image>,
    /// As the guest gets it, without the zero at the end.
    command_line: Vec<u8>,
}

#[derive(Debug)]
enum Format {
    BzImage(Box<BzImage>),
    Pvh(Pvh),
    Multiboot(Multiboot),
}

/// By which protocol a kernel is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux' boot protocol of this version, major in the upper byte.
    Linux(u16),
    Pvh,
    Multiboot,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::Linux(version) => write!(f, "bzImage {}.{:02}", version >> 8, version & 0xff),
            Protocol::Pvh => f.write_str("PVH"),
            Protocol::Multiboot => f.write_str("multiboot 1"),
        }
    }
}

impl Kernel {
    /// Opens a kernel and its initrd and reads the kernel's headers, so that what is wrong with either shows before
    /// a guest is made.
    pub fn open(kernel: &Path, initrd: Option<&Path>, command_line: &str) -> Result<Self, Error> {
        let image = Image::open(Role::Kernel, kernel)?;
        let initrd = initrd.map(|path| Image::open(Role::Initrd, path)).transpose()?;
        if let Some(initrd) = initrd.as_ref().filter(|initrd| initrd.length() == 0) {
            return Err(Error::Empty { role: Role::Initrd, path: initrd.path().to_owned() });
        }
        Self::new(image, initrd, command_line)
    }

    /// A kernel that is part of this program; `name` stands for a path in messages.
    pub fn embedded(name: &str, kernel: &'static [u8], command_line: &str) -> Result<Self, Error> {
        Self::new(Image::embedded(Role::Kernel, name, kernel), None, command_line)
    }

    fn new(image: Image, initrd: Option<Image>, command_line: &str) -> Result<Self, Error> {
        let format = Format::of(&image)?;
        let mut command_line = command_line.as_bytes().to_vec();
        let mut limit = None;
        match &format {
            Format::BzImage(bzimage) => limit = Some(bzimage.command_line_limit()),
            Format::Multiboot(_) => command_line = multiboot::command_line(&image, &command_line),
            Format::Pvh(_) => {}
        }
        command_line::check(&command_line, limit)?;
        Ok(Kernel { image, format, initrd, command_line })
    }

    /// By which protocol [`Kernel::load`] starts the kernel.
    pub fn protocol(&self) -> Protocol {
        match &self.format {
            Format::BzImage(bzimage) => Protocol::Linux(bzimage.version()),
            Format::Pvh(_) => Protocol::Pvh,
            Format::Multiboot(_) => Protocol::Multiboot,
        }
    }

    /// Fails where [`Kernel::load`] would, for want of room in a guest with so much memory.
    pub fn check_room(&self, memory: RamSize) -> Result<(), Error> {
        let map = map_of_size(memory);
        let (image, initrd) = (&self.image, self.initrd.as_ref());
        match &self.format {
            Format::BzImage(bzimage) => bzimage.place(image, initrd, &map).map(drop),
            Format::Pvh(pvh) => pvh.place(image, initrd, &map).map(drop),
            Format::Multiboot(multiboot) => multiboot.place(image, initrd, &map).map(drop),
        }
    }

    /// Puts kernel, initrd, command line and boot data into guest memory, at start and at each guest reset.
    ///
    /// `rsdp` is the guest address of the ACPI tables' root pointer. No vCPU may run meanwhile.
    pub fn load(&mut self, memory: &GuestMemory, rsdp: u64) -> Result<Entry, Error> {
        let map = memory_map(memory);
        // A guest after a reset finds the same boot data as the first one, and nothing of it.
        segment::zero(memory, BOOT_DATA).map_err(|source| Error::Memory { what: "boot data", source })?;
        let (image, initrd, line) = (&mut self.image, self.initrd.as_mut(), &self.command_line);
        let entry = match &self.format {
            Format::BzImage(bzimage) => bzimage.load(image, initrd, line, memory, &map, rsdp),
            Format::Pvh(pvh) => pvh.load(image, initrd, line, memory, &map, rsdp),
            Format::Multiboot(multiboot) => multiboot.load(image, initrd, line, memory, &map),
        }?;
        entry.write_tables(memory)?;
        Ok(entry)
    }
}

impl Format {
    /// What the file is. An image with a PVH note and a multiboot header is started by PVH, whose start info says
    /// more: it names the ACPI tables.
    fn of(image: &Image) -> Result<Self, Error> {
        if let Some(bzimage) = bzimage::parse(image)? {
            return Ok(Format::BzImage(Box::new(bzimage)));
        }
        let mut elf = elf::parse(image)?;
        if let Some((entry, elf)) = elf.as_mut().and_then(|elf| Some((elf.pvh_entry?, elf))) {
            return Pvh::new(image, entry, std::mem::take(&mut elf.segments)).map(Format::Pvh);
        }
        match multiboot::parse(image, elf)? {
            Some(multiboot) => Ok(Format::Multiboot(multiboot)),
            None => Err(Error::NotAKernel { path: image.path().to_owned() }),
        }
    }
}
