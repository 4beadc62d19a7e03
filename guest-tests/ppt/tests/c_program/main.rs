//! A program in C, compiled with declarations that are made from `abi.json`, drives the kernel through its files.

// A test that meets what it does not expect is to stop.
#![allow(clippy::unwrap_used)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use passthru::host::ppt::sys::Sys;
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::Slot;
use ppt_over_vfio::{IllumosKernel, KernelPorts, Options, PptFunction};
use vmm::Vmm;

/// The ports that only keep book.
#[path = "../../../../passthru/tests/embedding/vmm.rs"]
#[allow(dead_code)]
mod vmm;

/// `struct system` of `system.h`.
#[repr(C)]
struct System {
    context: *const World,
    open: extern "C" fn(&World, *const c_char) -> c_int,
    ioctl: extern "C" fn(&World, c_int, c_int, *mut c_void) -> c_int,
    mmap: extern "C" fn(&World, c_int, usize, u64, *mut *mut u8) -> c_int,
    munmap: extern "C" fn(&World, *mut u8, usize),
    close: extern "C" fn(&World, c_int),
    delivered: extern "C" fn(&World, &mut u64, &mut u32) -> c_int,
    in_guest: extern "C" fn(&World, u64) -> u64,
    wrong: extern "C" fn(&World, c_int, *const c_char, i64, i64),
}

unsafe extern "C" {
    fn ppt_life(system: *const c_void);
}

struct World {
    kernel: IllumosKernel,
    vmm: Arc<Vmm>,
    wrong: Mutex<Vec<String>>,
}

fn result(result: io::Result<i32>) -> c_int {
    result.unwrap_or_else(|error| -error.raw_os_error().unwrap())
}

extern "C" fn open(world: &World, path: *const c_char) -> c_int {
    // SAFETY: the program gives string constants.
    result(world.kernel.open(unsafe { CStr::from_ptr(path) }))
}

extern "C" fn ioctl(world: &World, fd: c_int, request: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: the program gives the structure of the request, or null.
    result(unsafe { world.kernel.ioctl(fd, request, argument) })
}

extern "C" fn mmap(world: &World, fd: c_int, len: usize, offset: u64, address: *mut *mut u8) -> c_int {
    let mapped = world.kernel.mmap(fd, len, offset);
    // SAFETY: the program gives the address of a pointer.
    result(mapped.map(|mapped| unsafe { address.write(mapped.as_ptr()) }).map(|()| 0))
}

extern "C" fn munmap(world: &World, address: *mut u8, len: usize) {
    // SAFETY: the program gives what it was given, and uses it no more.
    unsafe { world.kernel.munmap(NonNull::new(address).unwrap(), len) };
}

extern "C" fn close(world: &World, fd: c_int) {
    world.kernel.close(fd);
}

extern "C" fn delivered(world: &World, address: &mut u64, data: &mut u32) -> c_int {
    world.vmm.turn();
    let messages = world.vmm.delivered();
    if let Some(last) = messages.last() {
        (*address, *data) = (last.address, last.data);
    }
    messages.len() as c_int
}

extern "C" fn in_guest(world: &World, gpa: u64) -> u64 {
    let book = world.vmm.book();
    let mapped = book.mapped.keys().map(|(start, len)| (*start, *len));
    let trapped = book.trapped.iter().map(|trap| (trap.range.start, trap.range.end - trap.range.start));
    mapped.chain(trapped).find(|(start, _)| *start == gpa).map_or(0, |(_, len)| len)
}

extern "C" fn wrong(world: &World, line: c_int, what: *const c_char, found: i64, expected: i64) {
    // SAFETY: the program gives string constants.
    let what = unsafe { CStr::from_ptr(what) }.to_string_lossy();
    world.wrong.lock().unwrap().push(format!("life.c:{line}: {what} is {found:#x}, not {expected:#x}"));
}

#[test]
fn a_program_in_c_finds_the_interface_of_the_table() {
    let vmm = Vmm::new();
    let ports = KernelPorts::new(vmm.ports());
    let slot = Slot::new(0, 5, 0).unwrap();
    let function = Arc::new(SimulatedFunction::new("demo", slot, ports.ports()).unwrap());
    let kernel = IllumosKernel::new(Options::default(), ports, vec![PptFunction { function, slot }]);
    let world = World { kernel, vmm, wrong: Mutex::default() };
    let system = System { context: &world, open, ioctl, mmap, munmap, close, delivered, in_guest, wrong };
    // SAFETY: the structure is the one it knows, and it calls nothing but what is in there.
    unsafe { ppt_life((&raw const system).cast()) };
    let World { kernel, vmm, wrong } = world;
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    drop(kernel);
    assert!(vmm.is_empty(), "nothing of the function is left");
}
