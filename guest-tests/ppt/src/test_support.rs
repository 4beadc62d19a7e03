//! A machine for tests: the kernel over simulated functions, in a VMM that only keeps book.

use std::ffi::{CString, c_void};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use passthru::host::ppt::sys::Sys;
use passthru::host::simulated::SimulatedFunction;
use passthru::host::*;
use passthru::pci::Slot;
use passthru::ports::PortOperation;

use crate::abi::{ppt, vm, vmmctl};
use crate::{IllumosKernel, Interface, KernelPorts, Options, PptFunction};
use vmm::Vmm;

#[path = "../../../passthru/tests/embedding/vmm.rs"]
#[allow(dead_code)]
pub mod vmm;

/// The 2018 interface.
pub const OLD: Options = Options { interface: Interface::Year2018, iommu: true };
/// Registers of the simulated function: its I/O BAR's index and data, and what raises a vector.
const INDEX: u32 = 0x8;
const DATA: u32 = 0xc;
const RAISE: u32 = 0x48;

/// The simulated function, but for what a test changes; writes down what it is asked for.
pub struct Altered {
    pub inner: SimulatedFunction,
    pub description: Description,
    pub report: Report,
    pub calls: Mutex<Vec<String>>,
    /// Calls that begin with this fail.
    pub fails: Mutex<Option<&'static str>>,
    /// What was written to configuration space is read there.
    pub config: Mutex<Vec<u8>>,
}

impl Altered {
    fn call(&self, operation: Operation, call: String) -> Result<(), HostError> {
        let fails = self.fails.lock().is_some_and(|start| call.starts_with(start));
        self.calls.lock().push(call);
        if !fails {
            return Ok(());
        }
        let source = io::Error::from_raw_os_error(libc::EREMOTEIO).into();
        Err(HostError { device: self.inner.name().clone(), operation, source })
    }
}

impl HostFunction for Altered {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }
    fn description(&self) -> &Description {
        &self.description
    }
    fn report(&self) -> &Report {
        &self.report
    }
    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        let operation = Operation::ConfigRead { offset, len: data.len() };
        if self.fails.lock().is_some_and(|start| start == "config read") {
            return self.call(operation, "config read".to_owned());
        }
        data.copy_from_slice(&self.config.lock()[usize::from(offset)..][..data.len()]);
        Ok(())
    }
    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        let operation = Operation::ConfigWrite { offset, len: data.len() };
        self.call(operation, format!("config {offset:#x} = {data:x?}"))?;
        self.config.lock()[usize::from(offset)..][..data.len()].copy_from_slice(data);
        self.inner.config_write(offset, data)
    }
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        let range = BarRange { bar, offset, len: data.len() as u64 };
        self.call(Operation::BarRead(range), format!("read of {range}"))?;
        self.inner.bar_read(bar, offset, data)
    }
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError> {
        self.inner.bar_write(bar, offset, data)
    }
    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.call(Operation::Map { range, guest }, format!("map {range} at {guest:#x}"))?;
        self.inner.map(range, guest)
    }
    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.call(Operation::Unmap { range, guest }, format!("unmap {range} at {guest:#x}"))?;
        self.inner.unmap(range, guest)
    }
    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        let vectors: Vec<u16> = changes.iter().map(|change| change.vector).collect();
        let operation = Operation::Vector { kind, vector: vectors.first().copied().unwrap_or_default() };
        let nowhere = changes.iter().find_map(|change| match change.state {
            VectorState::Armed(message) if message.address == 0 => Some(message),
            _ => None,
        });
        match (self.call(operation.clone(), format!("{kind} of {count}: {vectors:?}")), nowhere) {
            (Err(error), _) => vec![error],
            // As a hypervisor's port refuses it.
            (_, Some(message)) => {
                let source = PortOperation::Message(message).failed()(io::ErrorKind::InvalidInput).into();
                vec![HostError { device: self.inner.name().clone(), operation, source }]
            }
            (Ok(()), None) => self.inner.set_vectors(kind, count, changes),
        }
    }
    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        self.call(Operation::DisableVectors(kind), format!("{kind} off"))?;
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
        self.call(Operation::Reset, "reset".to_owned())?;
        self.inner.reset()
    }
}

/// A page with nothing behind it.
pub struct Edge(*mut c_void);

impl Edge {
    pub fn new(protection: i32) -> Edge {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice, of which the second half is taken away again.
        unsafe {
            let address = libc::mmap(std::ptr::null_mut(), 8192, protection, flags, -1, 0);
            assert_ne!(address, libc::MAP_FAILED);
            libc::munmap(address.byte_add(4096), 4096);
            Edge(address)
        }
    }

    pub fn at(&self, offset: usize) -> *mut c_void {
        self.0.wrapping_byte_add(offset)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // SAFETY: the page is this one's own.
        unsafe { libc::munmap(self.0, 4096) };
    }
}

/// The bytes of an argument.
#[derive(Clone)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    pub fn new(size: usize) -> Bytes {
        Bytes(vec![0; size])
    }
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Bytes {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
    pub fn int(self, at: usize, value: i32) -> Bytes {
        self.put(at, &value.to_le_bytes())
    }
    pub fn u32(self, at: usize, value: u32) -> Bytes {
        self.put(at, &value.to_le_bytes())
    }
    pub fn u64(self, at: usize, value: u64) -> Bytes {
        self.put(at, &value.to_le_bytes())
    }
    pub fn get(&self, at: usize, len: usize) -> u64 {
        let mut value = [0; 8];
        value[..len].copy_from_slice(&self.0[at..at + len]);
        u64::from_le_bytes(value)
    }
}

/// The kernel with two functions, and the VMs "a" and "b".
pub struct World {
    pub kernel: IllumosKernel,
    pub vmm: Arc<Vmm>,
    pub functions: Vec<Arc<Altered>>,
    pub control: i32,
    pub a: i32,
    pub b: i32,
    /// `/dev/ppt0` and `/dev/ppt1`
    pub ppt: [i32; 2],
}

/// What a call gives: its value, or the errno.
pub type Outcome = Result<i32, i32>;

fn outcome(result: io::Result<i32>) -> Outcome {
    result.map_err(|error| error.raw_os_error().unwrap())
}

impl World {
    pub fn new(options: Options) -> World {
        World::with(options, |_, _| {})
    }

    /// With functions that are not quite the simulated one.
    pub fn with(options: Options, alter: impl Fn(&mut Description, &mut Report)) -> World {
        let vmm = Vmm::new();
        let ports = KernelPorts::new(vmm.ports());
        let slots = [4, 5].map(|device| Slot::new(0, device, 0).unwrap());
        let functions = slots.map(|slot| {
            let inner = SimulatedFunction::new("demo", slot, ports.ports()).unwrap();
            let (mut description, mut report) = (inner.description().clone(), inner.report().clone());
            alter(&mut description, &mut report);
            let config = Mutex::new(description.config.clone());
            let (calls, fails) = Default::default();
            Arc::new(Altered { inner, description, report, calls, fails, config })
        });
        let of_kernel = functions.clone().into_iter().zip(slots);
        let of_kernel = of_kernel.map(|(f, slot)| PptFunction { function: f, slot }).collect();
        let kernel = IllumosKernel::new(options, ports, of_kernel);
        let mut world =
            World { kernel, vmm, functions: functions.to_vec(), control: 0, a: 0, b: 0, ppt: [0; 2] };
        world.control = world.open("/dev/vmmctl").unwrap();
        for name in ["a", "b"] {
            assert_eq!(world.named(vmmctl::CREATE_VM, name), Ok(0));
        }
        world.a = world.open("/dev/vmm/a").unwrap();
        world.b = world.open("/dev/vmm/b").unwrap();
        world.ppt = ["/dev/ppt0", "/dev/ppt1"].map(|path| world.open(path).unwrap());
        world
    }

    /// With `/dev/ppt0` bound by "a".
    pub fn bound(options: Options) -> World {
        let world = World::new(options);
        assert_eq!(world.owner(world.a, vm::BIND_PPTDEV, 0), Ok(0));
        world.functions[0].calls.lock().clear();
        world
    }

    pub fn open(&self, path: &str) -> Outcome {
        outcome(self.kernel.open(&CString::new(path).unwrap()))
    }

    pub fn mmap(&self, fd: i32, len: usize, offset: u64) -> Result<std::ptr::NonNull<u8>, i32> {
        self.kernel.mmap(fd, len, offset).map_err(|error| error.raw_os_error().unwrap())
    }

    pub fn call(&self, fd: i32, request: i32, bytes: &mut Bytes) -> Outcome {
        let argument = bytes.0.as_mut_ptr().cast();
        // SAFETY: as many bytes as the request has.
        outcome(unsafe { self.kernel.ioctl(fd, request, argument) })
    }

    /// With an argument at an address where nothing is.
    pub fn call_nowhere(&self, fd: i32, request: i32) -> Outcome {
        self.call_at(fd, request, 0x1000 as *mut c_void)
    }

    /// With an argument at an address where nothing is that anybody else uses.
    pub fn call_at(&self, fd: i32, request: i32, argument: *mut c_void) -> Outcome {
        // SAFETY: nothing is there, or a page of the test.
        outcome(unsafe { self.kernel.ioctl(fd, request, argument) })
    }

    pub fn named(&self, request: i32, name: &str) -> Outcome {
        self.call(self.control, request, &mut Bytes::new(136).put(0, name.as_bytes()))
    }

    /// BIND, UNBIND, DISABLE_MSIX of `/dev/pptN`.
    pub fn owner(&self, vm: i32, request: i32, n: usize) -> Outcome {
        self.call(vm, request, &mut Bytes::new(4).int(0, self.ppt[n]))
    }

    pub fn mmio(&self, vm: i32, request: i32, n: usize, [gpa, hpa, len]: [u64; 3]) -> Outcome {
        let bytes = Bytes::new(32).int(0, self.ppt[n]).u64(8, gpa).u64(16, hpa).u64(24, len);
        self.call(vm, request, &mut { bytes })
    }

    pub fn map(&self, vm: i32, n: usize, gpa: u64, bar: u32, offset: u64, len: u64) -> Outcome {
        let hpa = self.base(n, bar).wrapping_add(offset);
        self.mmio(vm, vm::MAP_PPTDEV_MMIO, n, [gpa, hpa, len])
    }

    pub fn unmap(&self, vm: i32, n: usize, gpa: u64, len: u64) -> Outcome {
        self.mmio(vm, vm::UNMAP_PPTDEV_MMIO, n, [gpa, 0, len])
    }

    pub fn msi(&self, vm: i32, vcpu: i32, n: usize, vectors: i32, msg: u64, addr: u64) -> Outcome {
        let bytes =
            Bytes::new(32).int(0, vcpu).int(4, self.ppt[n]).int(8, vectors).u64(16, msg).u64(24, addr);
        self.call(vm, vm::PPTDEV_MSI, &mut { bytes })
    }

    pub fn msix(&self, vm: i32, vcpu: i32, n: usize, index: i32, msg: u64, control: u32) -> Outcome {
        let bytes = Bytes::new(40).int(0, vcpu).int(4, self.ppt[n]).int(8, index).u64(16, msg);
        self.call(vm, vm::PPTDEV_MSIX, &mut bytes.u32(24, control).u64(32, 0xfee0_0000))
    }

    /// LIMITS of `/dev/pptN`.
    pub fn limits(&self, vm: i32, n: usize) -> Result<[i32; 2], i32> {
        let mut bytes = Bytes::new(12).int(0, self.ppt[n]);
        self.call(vm, vm::GET_PPTDEV_LIMITS, &mut bytes)?;
        Ok([4, 8].map(|at| bytes.get(at, 4) as i32))
    }

    /// BAR_QUERY: type, base, size.
    pub fn query(&self, n: usize, bar: u32) -> Result<(u32, u64, u64), i32> {
        let mut bytes = Bytes::new(24).u32(0, bar);
        self.call(self.ppt[n], ppt::BAR_QUERY, &mut bytes)?;
        Ok((bytes.get(4, 4) as u32, bytes.get(8, 8), bytes.get(16, 8)))
    }

    pub fn base(&self, n: usize, bar: u32) -> u64 {
        self.query(n, bar).unwrap().1
    }

    /// BAR_READ or BAR_WRITE; gives the data.
    pub fn port(&self, n: usize, request: i32, [bar, offset, width, data]: [u32; 4]) -> Result<u32, i32> {
        let mut bytes = Bytes::new(16).u32(0, bar).u32(4, offset).u32(8, width).u32(12, data);
        self.call(self.ppt[n], request, &mut bytes)?;
        Ok(bytes.get(12, 4) as u32)
    }

    /// CFG_READ or CFG_WRITE; gives the data.
    pub fn config(&self, n: usize, request: i32, offset: u64, width: u32, data: u32) -> Result<u32, i32> {
        let mut bytes = Bytes::new(16).u64(0, offset).u32(8, width).u32(12, data);
        self.call(self.ppt[n], request, &mut bytes)?;
        Ok(bytes.get(12, 4) as u32)
    }

    /// The function signals a vector.
    pub fn raise(&self, n: usize, vector: u32) {
        for (offset, value) in [(INDEX, RAISE), (DATA, vector)] {
            self.port(n, ppt::BAR_WRITE, [1, offset, 4, value]).unwrap();
        }
        self.vmm.turn();
    }

    /// The messages that have come to the guest.
    pub fn delivered(&self) -> Vec<(u64, u32)> {
        self.vmm.delivered().into_iter().map(|message| (message.address, message.data)).collect()
    }

    pub fn fail(&self, call: Option<&'static str>) {
        *self.functions[0].fails.lock() = call;
    }

    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.functions[0].calls.lock())
    }
}
