//! The VMM's ports, as functions are opened with them: a part of a BAR can be mapped into this process instead of the
//! guest.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use passthru::host::{BarRange, Cause, HostFunction};
use passthru::pci::Space;
use passthru::ports::{Access, DmaRegion, MemoryPort, PortError, PortOperation, Ports, Trap};

/// From here on addresses are no guest's, since no processor has as many: what is mapped there stays in this process.
const HERE: u64 = 1 << 60;

/// The ports of the VMM, and the way around them.
pub struct KernelPorts {
    vmm: Ports,
    memory: Arc<Memory>,
}

struct Memory {
    vmm: Arc<dyn MemoryPort>,
    here: Mutex<Here>,
}

#[derive(Default)]
struct Here {
    /// How many bytes from [`HERE`] on have been given out.
    used: u64,
    /// Where the host has put what was mapped at an address, and its length.
    mapped: BTreeMap<u64, (usize, u64)>,
}

/// A part of a BAR that is mapped in this process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Window {
    range: BarRange,
    address: u64,
}

impl KernelPorts {
    /// Around the ports of the VMM whose guest this process runs.
    pub fn new(vmm: Ports) -> KernelPorts {
        let memory = Arc::new(Memory { vmm: vmm.memory.clone(), here: Mutex::default() });
        KernelPorts { vmm, memory }
    }

    /// What the functions of the kernel are opened with.
    pub fn ports(&self) -> Ports {
        Ports { memory: self.memory.clone(), ..self.vmm.clone() }
    }

    /// The VMM's own memory port.
    pub(crate) fn memory(&self) -> &dyn MemoryPort {
        &*self.vmm.memory
    }

    /// Maps a part of a function's BAR into this process; it is inside one of the ranges that its host can map.
    pub(crate) fn map_here(
        &self,
        function: &dyn HostFunction,
        range: BarRange,
    ) -> Result<(NonNull<u8>, Window), Cause> {
        let address = self.memory.reserve(range.len)?;
        function.map(range, address).map_err(|error| error.source)?;
        let window = Window { range, address };
        let host = self.memory.here.lock().mapped.get(&address).map(|(host, _)| *host);
        match host.and_then(|host| NonNull::new(host as *mut u8)) {
            Some(host) => Ok((host, window)),
            None => {
                // The function was opened with other ports.
                self.unmap_here(function, &window)?;
                Err(io::Error::from_raw_os_error(libc::ENXIO).into())
            }
        }
    }

    /// Undoes [`KernelPorts::map_here`].
    pub(crate) fn unmap_here(&self, function: &dyn HostFunction, window: &Window) -> Result<(), Cause> {
        function.unmap(window.range, window.address).map_err(|error| error.source)
    }
}

impl Memory {
    fn reserve(&self, len: u64) -> io::Result<u64> {
        let mut here = self.here.lock();
        let address = HERE + here.used;
        let end = address.checked_add(len).filter(|end| end >> 63 == 0);
        here.used = end.ok_or(io::ErrorKind::OutOfMemory)? - HERE;
        Ok(address)
    }
}

impl MemoryPort for Memory {
    unsafe fn map(&self, guest: u64, host: *mut u8, len: u64, access: Access) -> Result<(), PortError> {
        if guest < HERE {
            // SAFETY: the caller's promise is the same.
            return unsafe { self.vmm.map(guest, host, len, access) };
        }
        self.here.lock().mapped.insert(guest, (host as usize, len));
        Ok(())
    }

    fn unmap(&self, guest: u64, len: u64) -> Result<(), PortError> {
        if guest < HERE {
            return self.vmm.unmap(guest, len);
        }
        match self.here.lock().mapped.remove(&guest) {
            Some(_) => Ok(()),
            None => Err(PortOperation::Unmap { guest, len }.failed()(io::ErrorKind::NotFound)),
        }
    }

    fn trap(&self, remove: &[(Space, Range<u64>)], add: &[Trap]) -> Result<(), PortError> {
        self.vmm.trap(remove, add)
    }

    fn dma_regions(&self) -> Vec<DmaRegion> {
        self.vmm.dma_regions()
    }
}
