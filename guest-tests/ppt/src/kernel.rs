//! The kernel: its files, and who answers their calls.

use std::ffi::{CStr, c_void};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use log::warn;
use parking_lot::Mutex;
use passthru::host::HostFunction;
use passthru::host::ppt::sys::Sys;
use passthru::pci::Slot;

use crate::abi::PAGE;
use crate::assignment::Assignment;
use crate::device::Device;
use crate::device::addresses::Addresses;
use crate::errno::{Errno, Result};
use crate::files::{File, FileTable};
use crate::ports::{KernelPorts, Window};
use crate::user_memory::UserMemory;
use crate::vmm::Machine;
use crate::vmm::vm::Caller;

/// Most mappings of nodes that there can be.
const MOST_MAPPINGS: usize = 64;

/// Which interface the kernel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// Version 18, as illumos has it from 2024 on.
    #[default]
    Now,
    /// Of the first import: no UNMAP, no DISABLE_MSIX, no interface version, no mmap of a node; a VM may bind a function that
    /// it has, and binding leaves decoding and bus mastering as they are.
    Year2018,
}

/// What the kernel is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its interface.
    pub interface: Interface,
    /// It drives the machine's IOMMU: illumos does on Intel only.
    pub iommu: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { interface: Interface::Now, iommu: true }
    }
}

/// A function for the `ppt` driver.
#[derive(Clone)]
pub struct PptFunction {
    /// What carries it out, opened with [`KernelPorts::ports`].
    pub function: Arc<dyn HostFunction>,
    /// Its place in the guest, as it was opened with.
    pub slot: Slot,
}

/// illumos' kernel, as far as it passes functions through. The machine is switched off when this is dropped: VMs are
/// destroyed, and functions taken back.
pub struct IllumosKernel {
    options: Options,
    files: FileTable,
    devices: Vec<Arc<Device>>,
    /// Taken before that of the machine.
    mappings: Mutex<Vec<Mapping>>,
    machine: Mutex<Machine>,
    ports: KernelPorts,
}

/// A node that is mapped into this process.
struct Mapping {
    address: NonNull<u8>,
    len: usize,
    device: usize,
    window: Window,
}

// SAFETY: the address is only compared with others, and handed to whoever mapped it.
unsafe impl Send for Mapping {}

impl IllumosKernel {
    /// A kernel whose driver has these functions: the first is `/dev/ppt0`.
    pub fn new(options: Options, ports: KernelPorts, functions: Vec<PptFunction>) -> IllumosKernel {
        let mut addresses = Addresses::default();
        let devices: Vec<Arc<Device>> =
            functions.into_iter().map(|f| Arc::new(Device::new(f, &mut addresses))).collect();
        let assignments = devices.iter().cloned().map(Assignment::new).collect();
        let machine = Mutex::new(Machine::new(assignments));
        IllumosKernel {
            options,
            files: FileTable::default(),
            devices,
            mappings: Mutex::default(),
            machine,
            ports,
        }
    }

    /// Guest addresses and bytes of the memory that the VM of this name has wired, which is what its functions could reach.
    pub fn wired(&self, vm: &str) -> Vec<(u64, u64)> {
        self.machine.lock().wired(vm.as_bytes())
    }

    fn find(&self, path: &[u8]) -> Result<File> {
        let name = path.strip_prefix(b"/dev/").ok_or(Errno::ENOENT)?;
        if name == b"vmmctl" {
            return Ok(File::Control);
        }
        if let Some(vm) = name.strip_prefix(b"vmm/") {
            return self.machine.lock().find(vm).map(File::Vm);
        }
        let instance = name.strip_prefix(b"ppt").and_then(instance).ok_or(Errno::ENOENT)?;
        if instance < self.devices.len() { Ok(File::Ppt(instance)) } else { Err(Errno::ENOENT) }
    }

    fn answer(&self, fd: i32, request: i32, user: UserMemory) -> Result<i32> {
        match self.files.get(fd)? {
            File::Control => self.machine.lock().control(request, user, &self.options, &self.ports),
            File::Vm(vm) => {
                let caller = Caller { vm, files: &self.files, options: &self.options, ports: &self.ports };
                self.machine.lock().vm_ioctl(&caller, request, user)
            }
            File::Ppt(device) => {
                let device = self.devices.get(device).ok_or(Errno::ENOENT)?;
                device.ioctl(request, user).map(|()| 0)
            }
        }
    }

    fn map(&self, fd: i32, len: usize, offset: u64) -> Result<NonNull<u8>> {
        let index = match self.files.get(fd)? {
            File::Ppt(device) if self.options.interface == Interface::Now => device,
            _ => return Err(Errno::ENODEV),
        };
        let device = self.devices.get(index).ok_or(Errno::ENXIO)?;
        let range = device.table_range(offset, len)?;
        let mut mappings = self.mappings.lock();
        if mappings.len() >= MOST_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        let (address, window) = self.ports.map_here(&**device.host(), range).map_err(|cause| {
            warn!("{}: mapping {range} here: {cause}", device.host().name());
            Errno::ENXIO
        })?;
        mappings.push(Mapping { address, len: whole_pages(len), device: index, window });
        Ok(address)
    }

    fn unmap(&self, mapping: &Mapping) {
        if let Some(device) = self.devices.get(mapping.device)
            && let Err(cause) = self.ports.unmap_here(&**device.host(), &mapping.window)
        {
            warn!("{}: unmapping its MSI-X BAR here: {cause}", device.host().name());
        }
    }
}

impl Sys for IllumosKernel {
    fn open(&self, path: &CStr) -> io::Result<i32> {
        Ok(self.find(path.to_bytes()).and_then(|file| self.files.open(file))?)
    }

    unsafe fn ioctl(&self, fd: i32, request: i32, argument: *mut c_void) -> io::Result<i32> {
        // SAFETY: the caller promises that the argument is what the request reads and writes.
        let user = unsafe { UserMemory::new(argument) };
        Ok(self.answer(fd, request, user)?)
    }

    fn mmap(&self, fd: i32, len: usize, offset: u64) -> io::Result<NonNull<u8>> {
        Ok(self.map(fd, len, offset)?)
    }

    unsafe fn munmap(&self, address: NonNull<u8>, len: usize) {
        let mut mappings = self.mappings.lock();
        let is_it = |mapping: &Mapping| (mapping.address, mapping.len) == (address, whole_pages(len));
        if let Some(index) = mappings.iter().position(is_it) {
            let mapping = mappings.remove(index);
            self.unmap(&mapping);
        }
    }

    fn close(&self, fd: i32) {
        self.files.close(fd);
    }
}

impl Drop for IllumosKernel {
    fn drop(&mut self) {
        for mapping in std::mem::take(&mut *self.mappings.lock()) {
            self.unmap(&mapping);
        }
        let mut machine = self.machine.lock();
        for name in machine.names() {
            if let Err(errno) = machine.destroy(&name, &self.ports) {
                warn!("VM {}: {}", name.escape_ascii(), io::Error::from(errno));
            }
        }
    }
}

fn whole_pages(len: usize) -> usize {
    len.checked_next_multiple_of(PAGE as usize).unwrap_or(len)
}

/// The number in a node's name: decimal, without a sign or leading zeros.
fn instance(digits: &[u8]) -> Option<usize> {
    let plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || !digits.starts_with(b"0"));
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}
