//! A kernel that answers anything: the `ppt` host must make of it a function or an error, and give everything back.
#![no_main]

use std::collections::BTreeSet;
use std::ffi::{CStr, c_void};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use libfuzzer_sys::fuzz_target;
use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::ppt::sys::Sys;
use passthru::host::ppt::{GuestMemory, PptFunction, Vm};
use passthru::pci::{Slot, Space};
use passthru::ports::{Access, DmaRegion, MemoryPort, PortError, PortOperation, Trap};
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

/// Answers, in the order in which they are asked for; zeros at the end.
struct Answers(Vec<u8>);

impl Answers {
    fn byte(&mut self) -> u8 {
        self.0.pop().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |value, _| value << 8 | u64::from(self.byte()))
    }
}

/// The kernel, and what it was asked to give.
struct Anything {
    answers: Mutex<Answers>,
    open: Mutex<BTreeSet<i32>>,
    mapped: Mutex<Vec<(usize, usize)>>,
    bound: Mutex<i64>,
}

/// Bytes of a request's argument.
fn size(request: i32) -> usize {
    match request {
        0x505401 | 0x505402 | 0x505404 | 0x505405 => 16,
        0x505403 => 24,
        0x766c02 | 0x766c03 | 0x766d1f => 4,
        0x766c04 | 0x766c09 | 0x76700b => 32,
        0x76700c => 40,
        0x766d14 => 12,
        _ => 0,
    }
}

impl Sys for Anything {
    fn open(&self, _: &CStr) -> io::Result<i32> {
        if self.answers.lock().unwrap().byte() >= 0xf8 {
            return Err(io::Error::from_raw_os_error(self.answers.lock().unwrap().byte().into()));
        }
        let mut open = self.open.lock().unwrap();
        let fd = open.last().map_or(3, |last| last + 1);
        open.insert(fd);
        Ok(fd)
    }

    unsafe fn ioctl(&self, _: i32, request: i32, argument: *mut c_void) -> io::Result<i32> {
        // SAFETY: the argument has at least the size that the headers say.
        let argument = unsafe { std::slice::from_raw_parts_mut(argument.cast::<u8>(), size(request)) };
        let mut answers = self.answers.lock().unwrap();
        let kind = answers.byte();
        let mut bound = self.bound.lock().unwrap();
        match request {
            0x766c02 if kind < 0xf0 => *bound += 1,
            0x766c03 => *bound -= 1,
            _ => {}
        }
        match kind {
            0xf0.. => return Err(io::Error::from_raw_os_error(answers.byte().into())),
            // A function as there are: an identity, a capability list with MSI and MSI-X, BARs of whole pages.
            0..0x80 => plausible(request, argument, &mut answers),
            // Short, or whatever.
            _ => argument.iter_mut().take(usize::from(kind) & 0x3f).for_each(|byte| *byte = answers.byte()),
        }
        Ok(if kind & 1 == 0 { 0 } else { answers.number() as i32 & i32::MAX })
    }

    fn mmap(&self, _: i32, len: usize, _: u64) -> io::Result<NonNull<u8>> {
        if len == 0 || len > 1 << 20 || self.answers.lock().unwrap().byte() >= 0xf0 {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let memory = vec![0u64; len.div_ceil(8)].leak();
        self.mapped.lock().unwrap().push((memory.as_ptr() as usize, len));
        Ok(NonNull::new(memory.as_mut_ptr().cast()).unwrap())
    }

    unsafe fn munmap(&self, address: NonNull<u8>, len: usize) {
        let mut mapped = self.mapped.lock().unwrap();
        let at = mapped.iter().position(|known| *known == (address.as_ptr() as usize, len));
        mapped.swap_remove(at.expect("exactly what was mapped is unmapped"));
        // SAFETY: this is the allocation that was leaked for it.
        drop(unsafe {
            Box::from_raw(std::ptr::slice_from_raw_parts_mut(address.as_ptr().cast::<u64>(), len.div_ceil(8)))
        });
    }

    fn close(&self, fd: i32) {
        assert!(self.open.lock().unwrap().remove(&fd), "what is closed was open");
    }
}

fn plausible(request: i32, argument: &mut [u8], answers: &mut Answers) {
    let at = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    match request {
        0x505401 => {
            let value = match at(argument) {
                0x00 => 0x37d2_8086,
                0x04 => 0x0010_0000,
                0x34 => 0x50,
                0x50 => 0x0086_7005,
                0x70 => 0x0007_8011 | u32::from(answers.byte()) << 16,
                0x74 => u32::from(answers.byte() & 7),
                0x78 => 0x1000 | u32::from(answers.byte() & 7),
                0x80 => 0x0002_0010,
                0x84 => 0x1000_0000,
                _ => answers.number() as u32,
            };
            argument[12..16].copy_from_slice(&value.to_le_bytes());
        }
        0x505403 => {
            let space = [0x0100_0000u32, 0x0200_0000, 0x0300_0000][usize::from(answers.byte() % 3)];
            let size = 1u64 << (answers.byte() % 40);
            argument[4..8].copy_from_slice(&space.to_le_bytes());
            argument[8..16].copy_from_slice(&(answers.number() & !(size - 1)).to_le_bytes());
            argument[16..24].copy_from_slice(&size.to_le_bytes());
        }
        0x766d14 => {
            argument[4..8].copy_from_slice(&i32::from(answers.byte()).to_le_bytes());
            argument[8..12].copy_from_slice(&(answers.number() as i32 >> 16).to_le_bytes());
        }
        _ => {}
    }
}

#[derive(Default)]
struct Decoder(Mutex<Vec<Trap>>);

impl MemoryPort for Decoder {
    unsafe fn map(&self, guest: u64, _: *mut u8, len: u64, _: Access) -> Result<(), PortError> {
        Err(PortOperation::Map { guest, len }.failed()(io::ErrorKind::Unsupported))
    }

    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
        Err(PortOperation::Unmap { guest, len }.failed()(io::ErrorKind::Unsupported))
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        let mut traps = self.0.lock().unwrap();
        traps.retain(|trap| !remove.contains(&(trap.space, trap.range.clone())));
        traps.extend_from_slice(add);
        Ok(())
    }

    fn dma_regions(&self) -> Vec<DmaRegion> {
        Vec::new()
    }
}

/// A guest that does anything with the function.
fn drive(kernel: &Arc<Anything>, actions: &[u8]) -> Option<()> {
    let vm = Vm::open(kernel.clone(), "guest", GuestMemory::Wired).ok()?;
    let host = Arc::new(PptFunction::open(&vm, Path::new("/dev/ppt0")).ok()?);
    let decoder = Arc::new(Decoder::default());
    let space = Arc::new(AddressSpace::new(decoder.clone()));
    let windows = Arc::new(Windows { memory: vec![0..1 << 48], io: vec![0..1 << 16] });
    let fresh = Fresh::one(host).ok()?;
    let function = Attached::new(fresh, Slot::new(0, 8, 0)?, Shape::default(), space, windows).ok()?;
    let config = function.config();
    for bar in function.bars() {
        function.assign(bar.index, bar.size.saturating_mul(u64::from(bar.index) + 1));
    }
    for action in actions.chunks_exact(6) {
        let &[what, at, a, b, c, d] = action else { continue };
        let (data, width) = ([a, b, c, d], 1usize << (what % 3));
        let offset = u16::from(at) & !(width as u16 - 1);
        match what >> 5 {
            0 => config.config_read(offset, &mut [0; 4][..width]),
            1..4 => config.config_write(offset, &data[..width]),
            4 => config.config_write(0x04, &[a | 7, b]),
            5 => function.reset(),
            _ => {
                let traps = decoder.0.lock().unwrap().clone();
                let Some(trap) = traps.get(usize::from(what) % traps.len().max(1)) else { continue };
                let len = trap.range.end - trap.range.start;
                let offset = trap.offset + u64::from(u16::from_le_bytes([at, a])) % len.max(1);
                match what & 1 {
                    0 => trap.target.bar_read(trap.bar, offset, &mut [0; 8][..width]),
                    _ => trap.target.bar_write(trap.bar, offset, &data[..width]),
                }
            }
        }
    }
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let (actions, answers) = data.split_at(data.len() / 3);
    let kernel = Arc::new(Anything {
        answers: Mutex::new(Answers(answers.iter().rev().copied().collect())),
        open: Mutex::default(),
        mapped: Mutex::default(),
        bound: Mutex::default(),
    });
    drive(&kernel, actions);
    assert_eq!(*kernel.open.lock().unwrap(), BTreeSet::new(), "all files are closed");
    assert_eq!(*kernel.mapped.lock().unwrap(), [], "nothing stays mapped");
    assert_eq!(*kernel.bound.lock().unwrap(), 0, "what is bound is unbound, once");
});
