//! A host with the ppt driver, made of functions that are bound to vfio-pci.

use std::ffi::{CString, OsString, c_void};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use passthru::host::HostFunction;
use passthru::host::ppt::sys::Sys;
use passthru::host::ppt::{GuestMemory, OpenError, Vm};
use passthru::host::vfio::sysfs::{self, SysfsFunction};
use passthru::host::vfio::{self, Interface, Ioas, VfioFunction};
use passthru::pci::bar::Bar;
use passthru::pci::{HostAddress, Slot};
use passthru::ports::{DmaRegion, Ports};
use ppt_over_vfio::{IllumosKernel, KernelPorts, Options, PptFunction, vm, vmmctl};
use vmm::ppt::{PptHost, PptVm};

use crate::trace::Traced;

/// Functions that are `/dev/ppt0` and so on.
#[derive(Debug)]
pub struct OverVfio {
    functions: Vec<SysfsFunction>,
    trace: Option<PathBuf>,
}

/// The name of the only virtual machine.
const VM: &str = "slotpass";

impl OverVfio {
    /// Those of a list.
    pub fn new(list: &str, trace: Option<OsString>) -> Result<OverVfio, vfio::OpenError> {
        let names = list.split(',').filter(|name| !name.is_empty());
        Ok(OverVfio {
            functions: names.map(sysfs::find).collect::<Result<_, _>>()?,
            trace: trace.map(PathBuf::from),
        })
    }

    fn kernel(&self, ports: &Ports) -> Result<IllumosKernel, vfio::OpenError> {
        let ports = KernelPorts::new(ports.clone());
        let ioas = Ioas::open(ports.ports(), Interface::Group)?;
        let together: Vec<HostAddress> = self.functions.iter().map(|function| function.address).collect();
        // In messages only: whoever has a function behind ppt does not say where it is in the guest.
        let slots = (0..=u8::MAX).filter_map(|device| Slot::new(0xff, device, 0));
        let named: Vec<(&SysfsFunction, Slot)> = self.functions.iter().zip(slots).collect();
        let opened = VfioFunction::open(&ioas, &named).map_err(|(_, error)| error)?;
        let mut functions = Vec::new();
        for (mut opened, (_, slot)) in opened.into_iter().zip(named) {
            if let Err(reason) = opened.settle_reset(&together) {
                log::info!("{}: not reset: {reason}", opened.name());
            }
            functions.push(PptFunction { function: Arc::new(opened), slot });
        }
        Ok(IllumosKernel::new(Options::default(), ports, functions))
    }
}

impl PptHost for OverVfio {
    fn bars(&self, path: &str) -> Result<Vec<Bar>, OpenError> {
        let number = path.strip_prefix("/dev/ppt").and_then(|number| number.parse::<usize>().ok());
        let function = number.and_then(|number| self.functions.get(number));
        function.map(SysfsFunction::bars).ok_or_else(|| OpenError::NotThere { path: path.into() })
    }

    fn vm(&self, ports: &Ports) -> Result<Arc<PptVm>, OpenError> {
        let failed = |source| OpenError::Vm { path: "/dev/vmmctl".into(), source };
        let kernel = self.kernel(ports).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let sys: Arc<dyn Sys> = match &self.trace {
            Some(file) => Arc::new(Traced::new(kernel, file).map_err(failed)?),
            None => Arc::new(kernel),
        };
        create(&*sys, &ports.memory.dma_regions()).map_err(failed)?;
        Vm::open(Arc::new(sys), VM, GuestMemory::Wired)
    }
}

/// Makes the virtual machine and wires its memory, as the VMM of an illumos host does before it gives functions to it.
fn create(sys: &dyn Sys, memory: &[DmaRegion]) -> io::Result<()> {
    // struct vm_create_req: a name of 128 bytes, flags.
    let mut request = [0u8; 136];
    request.iter_mut().zip(VM.bytes()).for_each(|(byte, letter)| *byte = letter);
    let control = sys.open(c"/dev/vmmctl")?;
    ioctl(sys, control, vmmctl::CREATE_VM, &mut request)?;
    sys.close(control);
    let path = CString::new(format!("/dev/vmm/{VM}"))?;
    let machine = sys.open(&path)?;
    for (segment, region) in (0i32..).zip(memory) {
        // struct vm_memseg: segment, length, no name.
        let mut request = [0u8; 144];
        put(&mut request, 0, &segment.to_le_bytes());
        put(&mut request, 8, &region.len.to_le_bytes());
        ioctl(sys, machine, vm::ALLOC_MEMSEG, &mut request)?;
        // struct vm_memmap: guest address, segment, offset in it, length, to read, write and execute, wired.
        let mut request = [0u8; 40];
        put(&mut request, 0, &region.guest.to_le_bytes());
        put(&mut request, 8, &segment.to_le_bytes());
        put(&mut request, 24, &region.len.to_le_bytes());
        put(&mut request, 32, &7i32.to_le_bytes());
        put(&mut request, 36, &1i32.to_le_bytes());
        ioctl(sys, machine, vm::MMAP_MEMSEG, &mut request)?;
    }
    sys.close(machine);
    Ok(())
}

fn put(request: &mut [u8], at: usize, bytes: &[u8]) {
    request.iter_mut().skip(at).zip(bytes).for_each(|(byte, from)| *byte = *from);
}

fn ioctl(sys: &dyn Sys, fd: i32, request: i32, argument: &mut [u8]) -> io::Result<i32> {
    // SAFETY: the argument has the size of the request's.
    unsafe { sys.ioctl(fd, request, argument.as_mut_ptr().cast::<c_void>()) }
}
