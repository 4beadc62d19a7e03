//! Loads and stores that end in an error, not in the process' death, when they meet a bus error.
//!
//! The kernel maps a function's memory only while the function decodes it, is in D0 and is there at all; at other times
//! an access is answered with SIGBUS. Each access here is one instruction, the first of a routine of its own. The
//! handler of SIGBUS, installed once for the process, knows these instructions by their addresses and lets the routine
//! return an error. A bus error at any other place is passed on to the handler that was there before, or ends the
//! process as it would have without this one.
//!
//! Whoever installs a handler of SIGBUS later must pass on what is not its own.

use std::arch::naked_asm;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

/// What a load gives: in two registers (System V ABI, AMD64 supplement §3.2.3).
#[repr(C)]
struct Loaded {
    value: u64,
    failed: u64,
}

// Each routine's first instruction is the access. They use no stack, so that a return from `failed` is one from them.

#[unsafe(naked)]
unsafe extern "C" fn load1(from: *const u8) -> Loaded {
    naked_asm!("movzx eax, byte ptr [rdi]", "xor edx, edx", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn load2(from: *const u8) -> Loaded {
    naked_asm!("movzx eax, word ptr [rdi]", "xor edx, edx", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn load4(from: *const u8) -> Loaded {
    naked_asm!("mov eax, dword ptr [rdi]", "xor edx, edx", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn load8(from: *const u8) -> Loaded {
    naked_asm!("mov rax, qword ptr [rdi]", "xor edx, edx", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn store1(to: *mut u8, value: u64) -> u64 {
    naked_asm!("mov byte ptr [rdi], sil", "xor eax, eax", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn store2(to: *mut u8, value: u64) -> u64 {
    naked_asm!("mov word ptr [rdi], si", "xor eax, eax", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn store4(to: *mut u8, value: u64) -> u64 {
    naked_asm!("mov dword ptr [rdi], esi", "xor eax, eax", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn store8(to: *mut u8, value: u64) -> u64 {
    naked_asm!("mov qword ptr [rdi], rsi", "xor eax, eax", "ret")
}

/// Where a routine goes on after a bus error: `failed` of a load, or the result of a store, is 1.
#[unsafe(naked)]
unsafe extern "C" fn failed() -> Loaded {
    naked_asm!("mov eax, 1", "mov edx, 1", "ret")
}

type Load = unsafe extern "C" fn(*const u8) -> Loaded;
type Store = unsafe extern "C" fn(*mut u8, u64) -> u64;

/// By the logarithm of the width.
const LOADS: [Load; 4] = [load1, load2, load4, load8];
const STORES: [Store; 4] = [store1, store2, store4, store8];

/// The handler that was there before; none when ours could not be installed.
static FORMER: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Accesses can be made: the handler is there.
pub fn is_available() -> bool {
    FORMER.get_or_init(install).is_some()
}

fn install() -> Option<libc::sigaction> {
    let mut former = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for what is there and changes nothing; the kernel fills the struct, for which zeros are valid too.
    let former = unsafe {
        if libc::sigaction(libc::SIGBUS, ptr::null(), former.as_mut_ptr()) != 0 {
            return None;
        }
        former.assume_init()
    };
    // SAFETY: a struct of integers, for which zeros are valid.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = on_bus_error as *const () as usize;
    // On the thread's alternate stack, if it has one, as Rust's own handler is.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler only does what a handler may.
    (unsafe { libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) } == 0).then_some(former)
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel hands over the interrupted thread's context, which is this handler's to change.
    let ip =
        unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs.get_mut(libc::REG_RIP as usize) };
    let loads = LOADS.map(|routine| routine as usize);
    let stores = STORES.map(|routine| routine as usize);
    if let Some(ip) = ip
        && loads.iter().chain(&stores).any(|start| *start == *ip as usize)
    {
        *ip = failed as *const () as usize as libc::greg_t;
        return;
    }
    pass_on(signal, info, context);
}

/// Not ours: what would have happened without our handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // Unknown only in another thread's bus error while ours was being installed: as if there were none.
    let former = FORMER.get().copied().flatten();
    // SAFETY: the kernel filled it in before it called the handler.
    let was_sent = unsafe { (*info).si_code } <= 0;
    match former {
        Some(former) if !matches!(former.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) => {
            let handler = former.sa_sigaction as *const ();
            if former.sa_flags & libc::SA_SIGINFO != 0 {
                type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                // SAFETY: whoever installed the handler said that it has this type.
                let handler = unsafe { std::mem::transmute::<*const (), Handler>(handler) };
                handler(signal, info, context);
            } else {
                // SAFETY: as above.
                let handler =
                    unsafe { std::mem::transmute::<*const (), extern "C" fn(libc::c_int)>(handler) };
                handler(signal);
            }
        }
        // Sent by somebody, and nobody wants to know.
        Some(former) if was_sent && former.sa_sigaction == libc::SIG_IGN => {}
        _ => {
            // SAFETY: the default action, for which a struct of zeros is all that is needed. The instruction is tried again
            // and ends the process; a signal that was sent is sent again.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(libc::SIGBUS, &default, ptr::null_mut());
                if was_sent {
                    libc::raise(signal);
                }
            }
        }
    }
}

fn bus_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// The widest access, as logarithm, with which an access of `len` bytes at `address` begins: naturally aligned, as a bus
/// carries it.
fn width(address: usize, len: usize) -> usize {
    (address.trailing_zeros().min(3)).min(len.max(1).ilog2()) as usize
}

/// Reads `data.len()` bytes, in one access where address and length allow it. An error after a bus error; what was not
/// read is left as it was.
///
/// # Safety
/// The range is mapped in this process, readable, and stays so meanwhile. It is no Rust object's.
pub unsafe fn read(mut from: *const u8, mut data: &mut [u8]) -> io::Result<()> {
    while !data.is_empty() {
        let log = width(from as usize, data.len());
        let (part, rest) = std::mem::take(&mut data).split_at_mut(1 << log);
        let Some(load) = LOADS.get(log) else { return Err(bus_error()) };
        // SAFETY: inside the range that the caller vouches for; a bus error is caught.
        let Loaded { value, failed } = unsafe { load(from) };
        if failed != 0 {
            return Err(bus_error());
        }
        for (to, byte) in part.iter_mut().zip(value.to_le_bytes()) {
            *to = byte;
        }
        from = from.wrapping_add(1 << log);
        data = rest;
    }
    Ok(())
}

/// Writes `data`, in one access where address and length allow it. An error after a bus error; what comes before it is
/// written.
///
/// # Safety
/// The range is mapped in this process, writable, and stays so meanwhile. It is no Rust object's.
pub unsafe fn write(mut to: *mut u8, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let log = width(to as usize, data.len());
        let (part, rest) = data.split_at(1 << log);
        let mut value = [0; 8];
        for (to, from) in value.iter_mut().zip(part) {
            *to = *from;
        }
        let Some(store) = STORES.get(log) else { return Err(bus_error()) };
        // SAFETY: inside the range that the caller vouches for; a bus error is caught.
        if unsafe { store(to, u64::from_le_bytes(value)) } != 0 {
            return Err(bus_error());
        }
        to = to.wrapping_add(1 << log);
        data = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;
    use crate::host::vfio::mapping::Mapping;

    /// Two pages of a file that has one: the second is a bus error.
    fn torn() -> Mapping {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.set_len(0x2000).unwrap();
        let mapping = Mapping::new(&file, 0, 0, 0x2000).unwrap();
        file.set_len(0x1000).unwrap();
        mapping
    }

    #[test]
    fn accesses_of_every_width_and_alignment_read_what_was_written() {
        assert!(is_available());
        let mapping = torn();
        for offset in 0..16usize {
            for len in 1..=8 {
                let data: Vec<u8> = (0..len).map(|at| (offset * 16 + at) as u8 | 0x80).collect();
                let (mut back, at) = (vec![0; len], mapping.address().wrapping_add(offset));
                // SAFETY: in the first page.
                unsafe {
                    ptr::write_bytes(mapping.address(), 0, 64);
                    write(at, &data).unwrap();
                    read(at, &mut back).unwrap();
                }
                assert_eq!(back, data, "{len} at {offset}");
                let mut all = [0; 64];
                // SAFETY: as above.
                unsafe { read(mapping.address(), &mut all) }.unwrap();
                assert_eq!(all.iter().filter(|byte| **byte != 0).count(), len, "and no more was written");
            }
        }
    }

    #[test]
    fn an_access_is_as_wide_as_its_address_and_length_allow() {
        for (address, len, bytes) in [
            (0x1000, 8, 8),
            (0x1004, 8, 4),
            (0x1006, 8, 2),
            (0x1001, 8, 1),
            (0x1000, 7, 4),
            (0x1000, 4, 4),
            (0x1000, 3, 2),
            (0x1000, 1, 1),
        ] {
            assert_eq!(1 << width(address, len), bytes, "{len} at {address:#x}");
        }
    }

    #[test]
    fn a_bus_error_is_an_error_in_every_thread() {
        assert!(is_available());
        let mapping = torn();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let mapping = &mapping;
                scope.spawn(move || {
                    for round in 0..500usize {
                        let len = 1 << (round % 4);
                        let (lost, there) =
                            (mapping.address().wrapping_add(0x1000 + round % 0xff8), mapping.address());
                        let mut data = [thread; 8];
                        let data = &mut data[..len];
                        // SAFETY: both pages are mapped; the second is a bus error.
                        unsafe {
                            assert_eq!(read(lost, data).unwrap_err().raw_os_error(), Some(libc::EIO));
                            assert_eq!(write(lost, data).unwrap_err().raw_os_error(), Some(libc::EIO));
                            assert_eq!(data, [thread; 8][..len].as_ref(), "what was not read is left");
                            let own = there.wrapping_add(usize::from(thread) * 8);
                            write(own, data).unwrap();
                            read(own, data).unwrap();
                        }
                        assert_eq!(data, &[thread; 8][..len]);
                    }
                });
            }
        });
    }

    const CHILD: &str = "PASSTHRU_TEST_BUS_ERROR";

    extern "C" fn former_handler(_: libc::c_int) {
        // SAFETY: may be called by a handler.
        unsafe { libc::_exit(42) }
    }

    fn set_handler(handler: libc::sighandler_t) {
        // SAFETY: a handler that may be one, or a constant.
        assert_ne!(unsafe { libc::signal(libc::SIGBUS, handler) }, libc::SIG_ERR);
    }

    /// What a process does that ends, or does not, by a bus error of its own.
    fn child(what: &str) {
        match what {
            "former" => set_handler(former_handler as *const () as libc::sighandler_t),
            "default" | "sent" => set_handler(libc::SIG_DFL),
            "ignored" | "ignored-sent" => set_handler(libc::SIG_IGN),
            _ => {}
        }
        assert!(is_available());
        let mapping = torn();
        let lost = mapping.address().wrapping_add(0x1000);
        // SAFETY: both pages are mapped; the second is a bus error.
        assert!(unsafe { read(lost, &mut [0]) }.is_err(), "a guarded one does nothing");
        if matches!(what, "sent" | "ignored-sent") {
            // SAFETY: takes and gives numbers.
            unsafe { libc::raise(libc::SIGBUS) };
        } else {
            // SAFETY: as above.
            unsafe { ptr::read_volatile(lost) };
        }
    }

    #[test]
    fn a_bus_error_elsewhere_is_passed_on() {
        if let Ok(what) = std::env::var(CHILD) {
            return child(&what);
        }
        let test = "host::vfio::guarded::target::tests::a_bus_error_elsewhere_is_passed_on";
        for (what, code, signal) in [
            ("former", Some(42), None),
            ("default", None, Some(libc::SIGBUS)),
            ("ignored", None, Some(libc::SIGBUS)),
            // Rust's own handler, which knows overflows of the stack, is there before.
            ("rust", None, Some(libc::SIGBUS)),
            ("sent", None, Some(libc::SIGBUS)),
            ("ignored-sent", Some(0), None),
        ] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let output = command.args(["--exact", test]).env(CHILD, what).output().unwrap();
            assert_eq!((output.status.code(), output.status.signal()), (code, signal), "{what}: {output:?}");
        }
    }
}
