//! A host with two functions of the ppt driver and two virtual machines, "a" and "b".

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use passthru::host::ppt::sys::Sys;
use passthru::host::ppt::{GuestMemory, OpenError, PptFunction, Vm};
use passthru::host::simulated::SimulatedFunction;
use passthru::host::*;
use passthru::pci::Slot;
use ppt_over_vfio::{IllumosKernel, KernelPorts, Options};

use crate::vmm::Vmm;

pub const CREATE_VM: i32 = 0x564d01;
pub const DESTROY_VM: i32 = 0x564d02;
pub const CFG_READ: i32 = 0x505401;
pub const CFG_WRITE: i32 = 0x505402;
pub const BAR_QUERY: i32 = 0x505403;
pub const BAR_READ: i32 = 0x505404;
pub const BAR_WRITE: i32 = 0x505405;
pub const BIND: i32 = 0x766c02;
pub const UNBIND: i32 = 0x766c03;
pub const MAP: i32 = 0x766c04;
pub const UNMAP: i32 = 0x766c09;
pub const MSI: i32 = 0x76700b;
pub const MSIX: i32 = 0x76700c;
pub const LIMITS: i32 = 0x766d14;
pub const DISABLE_MSIX: i32 = 0x766d1f;

/// Which call of a function's host fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    ConfigRead,
    ConfigWrite,
    Map,
    Unmap,
    SetVectors,
    DisableVectors,
}

/// The simulated function on a host that fails when it is told to.
pub struct Host {
    pub inner: SimulatedFunction,
    description: Description,
    fails: Mutex<Option<Fails>>,
    pub resets: Mutex<u32>,
}

impl Host {
    fn unless(&self, call: Fails, operation: Operation) -> Result<(), HostError> {
        if *self.fails.lock() != Some(call) {
            return Ok(());
        }
        let source = io::Error::from_raw_os_error(libc::EREMOTEIO).into();
        Err(HostError { device: self.inner.name().clone(), operation, source })
    }
}

impl HostFunction for Host {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }
    fn description(&self) -> &Description {
        &self.description
    }
    fn report(&self) -> &Report {
        self.inner.report()
    }
    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        self.unless(Fails::ConfigRead, Operation::ConfigRead { offset, len: data.len() })?;
        let config = &self.description.config;
        data.copy_from_slice(&config[usize::from(offset)..][..data.len()]);
        Ok(())
    }
    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        self.unless(Fails::ConfigWrite, Operation::ConfigWrite { offset, len: data.len() })?;
        self.inner.config_write(offset, data)
    }
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        self.inner.bar_read(bar, offset, data)
    }
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError> {
        self.inner.bar_write(bar, offset, data)
    }
    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.unless(Fails::Map, Operation::Map { range, guest })?;
        self.inner.map(range, guest)
    }
    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.unless(Fails::Unmap, Operation::Unmap { range, guest })?;
        self.inner.unmap(range, guest)
    }
    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        let Some(first) = changes.first() else { return self.inner.set_vectors(kind, count, changes) };
        match self.unless(Fails::SetVectors, Operation::Vector { kind, vector: first.vector }) {
            Ok(()) => self.inner.set_vectors(kind, count, changes),
            Err(error) => vec![error],
        }
    }
    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        self.unless(Fails::DisableVectors, Operation::DisableVectors(kind))?;
        self.inner.disable_vectors(kind)
    }
    fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        self.inner.is_pending(kind, vector)
    }
    fn set_intx(&self, on: bool) -> Result<(), HostError> {
        self.inner.set_intx(on)
    }
    fn listen(&self, listener: Listener) -> Result<(), HostError> {
        self.inner.listen(listener)
    }
    fn reset(&self) -> Result<(), HostError> {
        *self.resets.lock() += 1;
        self.inner.reset()
    }
}

/// What happens to a request on its way to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTheWay {
    /// Its argument is where nothing is.
    Nowhere,
    /// The same, once the function was bound.
    NowhereOnceBound,
    /// The function, which the argument's first field names, is unbound just before.
    Unbound,
}

/// The kernel's system calls, which it notes.
pub struct Calls {
    kernel: IllumosKernel,
    open: Mutex<BTreeMap<i32, String>>,
    requests: Mutex<Vec<i32>>,
    on_the_way: Mutex<BTreeMap<i32, OnTheWay>>,
}

impl Sys for Calls {
    fn open(&self, path: &CStr) -> io::Result<i32> {
        let fd = self.kernel.open(path)?;
        self.open.lock().insert(fd, path.to_str().unwrap().to_owned());
        Ok(fd)
    }

    unsafe fn ioctl(&self, fd: i32, request: i32, argument: *mut c_void) -> io::Result<i32> {
        self.requests.lock().push(request);
        let argument = match self.on_the_way.lock().get(&request) {
            None => argument,
            Some(OnTheWay::NowhereOnceBound) if !self.requests.lock().contains(&BIND) => argument,
            Some(OnTheWay::Nowhere | OnTheWay::NowhereOnceBound) => 0x1000 as *mut c_void,
            Some(OnTheWay::Unbound) => {
                // SAFETY: an int is what this one takes, and the first field of the other.
                unsafe { self.kernel.ioctl(fd, UNBIND, argument) }.unwrap();
                argument
            }
        };
        // SAFETY: what the caller promises, or an address at which nothing is.
        unsafe { self.kernel.ioctl(fd, request, argument) }
    }

    fn mmap(&self, fd: i32, len: usize, offset: u64) -> io::Result<NonNull<u8>> {
        self.kernel.mmap(fd, len, offset)
    }

    unsafe fn munmap(&self, address: NonNull<u8>, len: usize) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.kernel.munmap(address, len) };
    }

    fn close(&self, fd: i32) {
        assert!(self.open.lock().remove(&fd).is_some(), "closed once");
        self.kernel.close(fd);
    }
}

pub type Opened = Result<PptFunction<Calls>, OpenError>;

pub struct World {
    pub vmm: Arc<Vmm>,
    pub sys: Arc<Calls>,
    pub hosts: Vec<Arc<Host>>,
}

impl World {
    pub fn new(options: Options) -> World {
        World::with(options, |_| {})
    }

    /// With functions that are described otherwise.
    pub fn with(options: Options, alter: impl Fn(&mut Description)) -> World {
        let vmm = Vmm::new();
        let ports = KernelPorts::new(vmm.ports());
        let slots = [4, 5].map(|device| Slot::new(0, device, 0).unwrap());
        let hosts = slots.map(|slot| {
            let inner = SimulatedFunction::new("demo", slot, ports.ports()).unwrap();
            let mut description = inner.description().clone();
            alter(&mut description);
            Arc::new(Host { inner, description, fails: Mutex::default(), resets: Mutex::default() })
        });
        let functions = hosts.clone().into_iter().zip(slots);
        let functions =
            functions.map(|(function, slot)| ppt_over_vfio::PptFunction { function, slot }).collect();
        let kernel = IllumosKernel::new(options, ports, functions);
        let (open, requests, on_the_way) = Default::default();
        let world =
            World { vmm, sys: Arc::new(Calls { kernel, open, requests, on_the_way }), hosts: hosts.to_vec() };
        for name in ["a", "b"] {
            world.control(CREATE_VM, name);
        }
        world
    }

    /// Makes or destroys a virtual machine, as its owner does.
    pub fn control(&self, request: i32, name: &str) {
        let mut argument = [0u8; 136];
        argument[..name.len()].copy_from_slice(name.as_bytes());
        let control = self.sys.open(c"/dev/vmmctl").unwrap();
        // SAFETY: a name, and flags behind it for the request that takes them.
        unsafe { self.sys.ioctl(control, request, argument.as_mut_ptr().cast()) }.unwrap();
        self.sys.close(control);
    }

    pub fn vm(&self, name: &str) -> Arc<Vm<Calls>> {
        Vm::open(self.sys.clone(), name, GuestMemory::Wired).unwrap()
    }

    /// `/dev/ppt0`, bound to a virtual machine.
    pub fn open_in(&self, name: &str) -> Opened {
        PptFunction::open(&self.vm(name), Path::new("/dev/ppt0"))
    }

    pub fn function(&self) -> PptFunction<Calls> {
        let function = self.open_in("a").unwrap();
        self.take_requests();
        function
    }

    pub fn fail(&self, call: Fails) {
        self.hosts.iter().for_each(|host| *host.fails.lock() = Some(call));
    }

    pub fn alter(&self, request: i32, way: OnTheWay) {
        self.sys.on_the_way.lock().insert(request, way);
    }

    /// Nothing fails any more.
    pub fn works(&self) {
        self.sys.on_the_way.lock().clear();
        self.hosts.iter().for_each(|host| *host.fails.lock() = None);
    }

    /// The number of an open file.
    pub fn fd(&self, path: &str) -> i32 {
        *self.sys.open.lock().iter().find(|(_, open)| *open == path).unwrap().0
    }

    /// Takes the function away from the virtual machine behind everybody's back.
    pub fn unbind_behind(&self) {
        let (vm, mut ppt) = (self.fd("/dev/vmm/a"), self.fd("/dev/ppt0"));
        // SAFETY: an int is what the request takes.
        unsafe { self.sys.kernel.ioctl(vm, UNBIND, std::ptr::from_mut(&mut ppt).cast()) }.unwrap();
    }

    /// Closes a file behind everybody's back.
    pub fn close_behind(&self, path: &str) {
        self.sys.kernel.close(self.fd(path));
    }

    pub fn take_requests(&self) -> Vec<i32> {
        std::mem::take(&mut self.sys.requests.lock())
    }

    pub fn open_files(&self) -> Vec<String> {
        self.sys.open.lock().values().cloned().collect()
    }

    /// Nothing of a function is anywhere: no mapping, trap or interrupt, no open file, and whoever wants it gets it.
    pub fn assert_free(&self) {
        assert!(self.vmm.is_empty(), "nothing is left in the VMM's ports");
        assert_eq!(self.open_files(), [""; 0]);
        self.works();
        drop(self.open_in("b").unwrap());
        assert_eq!(self.open_files(), [""; 0]);
    }
}
