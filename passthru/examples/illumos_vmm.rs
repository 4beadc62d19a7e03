//! Passes a function of an illumos host through to a virtual machine of bhyve's kernel, as a VMM in Rust would: the VMM has
//! made `/dev/vmm/NAME`, given it wired memory, and runs its vCPUs; this is everything that it needs for the function.
//!
//! usage: illumos_vmm NAME /dev/pptN BUS:DEVICE:FUNCTION

use std::error::Error;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::ppt::sys::Kernel;
use passthru::host::ppt::{GuestMemory, PptFunction, Vm};
use passthru::pci::bar::BarKind;
use passthru::pci::{Slot, Space};
use passthru::ports::{Access, DmaRegion, MemoryPort, PortError, PortOperation, Trap};
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

/// The VMM's decoder. `ppt` puts BARs into the guest and interrupts into its local APICs by itself, so that what is left for
/// the VMM is to know which accesses come out of the guest, and to whom they go.
#[derive(Default)]
struct Decoder(RwLock<Vec<Trap>>);

impl MemoryPort for Decoder {
    unsafe fn map(&self, guest: u64, _: *mut u8, len: u64, _: Access) -> Result<(), PortError> {
        Err(PortOperation::Map { guest, len }.failed()(io::ErrorKind::Unsupported))
    }

    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
        Err(PortOperation::Unmap { guest, len }.failed()(io::ErrorKind::Unsupported))
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        let mut traps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        traps.retain(|trap| !remove.contains(&(trap.space, trap.range.clone())));
        traps.extend_from_slice(add);
        Ok(())
    }

    fn dma_regions(&self) -> Vec<DmaRegion> {
        // The kernel brings all of the wired memory within a function's reach when it is bound.
        Vec::new()
    }
}

impl Decoder {
    /// For exits of the guest: a read of memory (`VM_EXITCODE_MMIO`) or of a port (`VM_EXITCODE_INOUT`) that nothing else in
    /// the VMM answers. Writes go the same way, by `bar_write`.
    fn read(&self, space: Space, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        let traps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = traps.iter().find(|trap| trap.space == space && trap.range.contains(&address)).cloned();
        // The function may change the traps while it answers.
        drop(traps);
        if let Some(trap) = found {
            trap.target.bar_read(trap.bar, trap.offset + (address - trap.range.start), data);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, path, slot] = arguments.as_slice() else {
        return Err("usage: illumos_vmm NAME /dev/pptN BUS:DEVICE:FUNCTION".into());
    };
    let slot: Slot = slot.parse()?;

    // Bound from here on, and reset by the kernel; unbound and reset again when the last of it is dropped.
    let vm = Vm::open(Arc::new(Kernel), name, GuestMemory::Wired)?;
    let host = Arc::new(PptFunction::open(&vm, Path::new(path))?);

    // Into the guest's slot, with the addresses that the VMM's host bridge forwards.
    let decoder = Arc::new(Decoder::default());
    let space = Arc::new(AddressSpace::new(decoder.clone()));
    let windows = Arc::new(Windows {
        memory: vec![0xc000_0000..0xe000_0000, 0x80_0000_0000..0x88_0000_0000],
        io: vec![0x2000..0x1_0000],
    });
    let function = Attached::new(Fresh::one(host)?, slot, Shape::default(), space, windows)?;

    // What firmware would do, if the guest has none: addresses for the BARs, each at a multiple of its size.
    let (mut memory, mut ports) = (0xc000_0000, 0x2000);
    for bar in function.bars() {
        let next = if bar.kind == BarKind::Io { &mut ports } else { &mut memory };
        *next = u64::next_multiple_of(*next, bar.size);
        function.assign(bar.index, *next);
        *next += bar.size;
    }

    // From here on the guest's accesses to configuration space at this slot go to `config`, and what its BARs trap comes
    // out of the decoder. This one looks at both once, as the guest would.
    let config = function.config();
    let mut ids = [0; 4];
    config.config_read(0, &mut ids);
    config.config_write(4, &[0x7, 0]);
    println!("slot {slot}: {path}, device {:#010x}", u32::from_le_bytes(ids));
    for piece in function.pieces() {
        println!("  {}: {:?}", piece.range, piece.backing);
    }
    let mut first = [0; 4];
    decoder.read(Space::Io, 0x2000, &mut first);
    println!("  port 0x2000: {:#x}", u32::from_le_bytes(first));
    Ok(())
}
