//! Writes down what a kernel is asked.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Mutex;

use passthru::host::ppt::sys::Sys;
use ppt_over_vfio::{ppt, vm, vmmctl};

/// A kernel, each of whose calls becomes a line: `bind /dev/vmm/slotpass: ok`. Accesses to configuration space and ports are
/// left out: they come with every access of the guest's.
pub struct Traced<S> {
    kernel: S,
    trace: Mutex<Trace>,
}

struct Trace {
    file: File,
    names: BTreeMap<i32, String>,
}

/// What a request is called here; nothing for one that is not written down.
fn name(request: i32) -> Option<&'static str> {
    Some(match request {
        ppt::CFG_READ | ppt::CFG_WRITE | ppt::BAR_READ | ppt::BAR_WRITE => return None,
        ppt::BAR_QUERY => "bar-query",
        vmmctl::CREATE_VM => "create-vm",
        vmmctl::INTERFACE_VERSION => "interface-version",
        vm::BIND_PPTDEV => "bind",
        vm::UNBIND_PPTDEV => "unbind",
        vm::MAP_PPTDEV_MMIO => "map",
        vm::UNMAP_PPTDEV_MMIO => "unmap",
        vm::ALLOC_MEMSEG => "alloc-memory",
        vm::MMAP_MEMSEG => "wire-memory",
        vm::PPTDEV_MSI => "msi",
        vm::PPTDEV_MSIX => "msix",
        vm::GET_PPTDEV_LIMITS => "limits",
        vm::PPTDEV_DISABLE_MSIX => "disable-msix",
        _ => "unknown",
    })
}

impl<S: Sys> Traced<S> {
    pub fn new(kernel: S, file: &Path) -> io::Result<Traced<S>> {
        let trace = Trace { file: File::create(file)?, names: BTreeMap::new() };
        Ok(Traced { kernel, trace: Mutex::new(trace) })
    }

    fn write(&self, fd: i32, call: &str, outcome: Result<(), &io::Error>) {
        let Ok(mut trace) = self.trace.lock() else { return };
        let file = trace.names.get(&fd).map_or("?", String::as_str);
        let line = match outcome {
            Ok(()) => format!("{call} {file}: ok\n"),
            Err(error) => format!("{call} {file}: errno {}\n", error.raw_os_error().unwrap_or_default()),
        };
        // A trace that cannot be written is found to be short.
        let _ = trace.file.write_all(line.as_bytes());
    }
}

impl<S: Sys> Sys for Traced<S> {
    fn open(&self, path: &CStr) -> io::Result<i32> {
        let opened = self.kernel.open(path);
        if let (Ok(fd), Ok(mut trace)) = (&opened, self.trace.lock()) {
            trace.names.insert(*fd, path.to_string_lossy().into_owned());
        }
        match &opened {
            Ok(fd) => self.write(*fd, "open", Ok(())),
            Err(error) => self.write(-1, "open", Err(error)),
        }
        opened
    }

    unsafe fn ioctl(&self, fd: i32, request: i32, argument: *mut c_void) -> io::Result<i32> {
        // SAFETY: the caller's promise is the same.
        let answer = unsafe { self.kernel.ioctl(fd, request, argument) };
        if let Some(name) = name(request) {
            self.write(fd, name, answer.as_ref().map(|_| ()));
        }
        answer
    }

    fn mmap(&self, fd: i32, len: usize, offset: u64) -> io::Result<NonNull<u8>> {
        let mapped = self.kernel.mmap(fd, len, offset);
        self.write(fd, "mmap", mapped.as_ref().map(|_| ()));
        mapped
    }

    unsafe fn munmap(&self, address: NonNull<u8>, len: usize) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.kernel.munmap(address, len) };
        self.write(-1, "munmap", Ok(()));
    }

    fn close(&self, fd: i32) {
        self.kernel.close(fd);
        self.write(fd, "close", Ok(()));
    }
}
